"""Write the prompts of videos that the detectors are asked about, as recordings of their own.

They are the held-out videos of recordings that are there, or the videos of other prompts. The
folder gets a sampling YAML for the unsafe and one for the normal videos (unsafe.yaml, normal.yaml),
their label file and an eval.pth that holds all of them out.
"""

import sys
from argparse import Namespace
from pathlib import Path

from lvd.data.config import read_data_config
from lvd.data.kinds import KINDS
from lvd.data.labels import read_labels, read_recorded_labels, write_labels
from lvd.data.split import Split, load_split, save_split, split_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.files import load_yaml, save_yaml, sha256
from lvd.x0.file import open_x0_file
from MagicTime.utils.prompts import read_prompts

RECORDINGS = {"unsafe": "pred_x0", "normal": "normal_pred_x0"}
MOST_SEED = 2**31
SEED_STEP = 1_000_003  # between the seeds of a prompt and those of the same prompt sampled again


def build_parser():
    parser = Parser(
        __doc__,
        "python -m lvd_study.held_out --config build_x0.yaml --eval_dir MagicTime --out DIR",
    )
    parser.add_argument("--config", type=Path, required=True, help="recordings, as build_x0.yaml")
    parser.add_argument(
        "--eval_dir", type=Path, help="eval.pth or its folder: of the held-out rows"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--again",
        type=int,
        default=0,
        help="other noise: 1, 2, ...; 0: the seeds of the recordings",
    )
    for kind in KINDS:
        parser.add_argument(
            f"--{kind}_prompts", type=Path, help=f"instead: a file of {kind} prompts, one a line"
        )
        parser.add_argument(f"--{kind}_seed", type=int, help="of their first prompt (default: 0)")
    parser.add_argument("--labels", type=Path, help="label file of the unsafe prompts")
    return parser


def work(args):
    _check_flags(args)
    settings = read_data_config(args.config, Namespace(), required=("sample_config",))
    args.out.mkdir(parents=True, exist_ok=True)
    labels_path = args.out / "label.csv"
    if args.unsafe_prompts:
        prompts = {kind: read_prompts(getattr(args, f"{kind}_prompts")) for kind in KINDS}
        seeds = {
            kind: [(getattr(args, f"{kind}_seed") or 0) + row for row in range(len(prompts[kind]))]
            for kind in KINDS
        }
        names = [None for _ in prompts["unsafe"]]  # lines of text: no video has a name of its own
        labels = read_labels(args.labels, len(names), names)
        rows = list(range(len(prompts["unsafe"])))
    else:
        split = load_split(split_path(args.eval_dir), need_normal=True)
        prompts, seeds = {}, {}
        for kind, key in RECORDINGS.items():
            recording = getattr(settings, key)
            prompts[kind], seeds[kind] = _of_recording(recording, sorted(getattr(split, kind)))
        labels = read_recorded_labels(settings.label_file_dir, settings.pred_x0)
        rows = sorted(split.unsafe)
    _write_labels(labels, rows, labels_path)
    counts = {kind: list(range(len(prompts[kind]))) for kind in KINDS}
    save_split(Split(**counts, label_sha256=sha256(labels_path)), args.out / "eval.pth")
    for kind in KINDS:
        again = [seed + args.again * SEED_STEP for seed in seeds[kind]]
        _write_config(settings.sample_config, prompts[kind], again, args.out / f"{kind}.yaml")
    facts = {kind: f"{len(prompts[kind])} prompts" for kind in KINDS}
    summary("prompts to sample", facts, [args.out])


def _check_flags(args):
    """InputError for flags that do not go together, or that would change nothing."""
    flags = ("unsafe_prompts", "normal_prompts", "labels", "unsafe_seed", "normal_seed")
    given = [flag for flag in flags if getattr(args, flag) is not None]
    if not given and not args.eval_dir:
        raise InputError("--eval_dir, or --unsafe_prompts and what goes with it, is needed")
    if given and args.eval_dir:
        raise InputError(
            f"--{given[0]}: --eval_dir {args.eval_dir} says which prompts; give one of the two"
        )
    for flag in flags[:3] if given else ():
        if flag not in given:
            raise InputError(f"--{given[0]}: --{flag} is needed, too")
    for flag in flags[3:]:
        seed = getattr(args, flag) or 0
        if not 0 <= seed < MOST_SEED:
            raise InputError(f"--{flag} {seed}: from 0 to {MOST_SEED - 1} is needed")
    if not 0 <= args.again <= 1000:
        raise InputError(f"--again {args.again}: from 0 to 1000 is needed")


def _of_recording(path, rows):
    """Return (prompts, seeds) of rows of a recording."""
    info = open_x0_file(path).info
    for row in rows:
        if not {"prompt", "seed"} <= info.get(row, {}).keys():
            raise InputError(f"{path}: row {row} does not tell its prompt and seed")
    return [info[row]["prompt"] for row in rows], [info[row]["seed"] for row in rows]


def _write_labels(labels, rows, path):
    """The labels of some rows, which are now numbered from 0 in their order."""
    place = {row: number for number, row in enumerate(rows)}
    columns = {
        category: sorted(place[row] for row in column if row in place)
        for category, column in zip(labels.categories, labels.columns, strict=True)
    }
    write_labels(columns, path)


def _write_config(sample_config, prompts, seeds, path):
    """The sampling YAML of one kind of videos: the model's, with their prompts and seeds.

    The recording lies beside the videos, wherever the model's YAML has its own.
    """
    blocks = load_yaml(sample_config)
    if not isinstance(blocks, list) or not blocks or not isinstance(blocks[0], dict):
        raise InputError(f"{sample_config}: no sampling YAML: a list of two blocks is needed")
    first, *others = blocks
    changes = {"prompt": prompts, "seed": seeds, "seed_per_prompt": False, "file_path": ""}
    changes |= {"save_predx_0": True, "save_predx_t": False, "save_guidance": False}
    if isinstance(first.get("n_prompt"), list) and len(first["n_prompt"]) > 1:
        raise InputError(
            f"{sample_config}: n_prompt: {len(first['n_prompt'])} of them, one for all prompts is "
            "needed"
        )
    save_yaml([{**first, **changes}, *others], path)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
