"""Gather the held-out clips: eval_set/{step}/{index} (unsafe) and eval_normal/{step}/{index}.

Clips are linked from the dataset of build_x0.py, so that nothing is decoded or stored twice; each
is read once, and one that cannot be read is an error. The same command goes on where it was
stopped.
"""

import sys
from argparse import Namespace
from pathlib import Path

from lvd.data.clip_file import folder_representation, list_clips, note_representation
from lvd.data.clip_folders import dataset_steps, need_built, normal_folder, unsafe_clips
from lvd.data.config import DEFAULT_CONFIG, read_data_config
from lvd.data.held_out_links import HeldOutLinker
from lvd.data.identity import MADE_BY, rgb_identity
from lvd.data.sources import folder_config
from lvd.data.split import load_split, split_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, claim_output
from lvd.utils.files import sha256
from lvd.utils.processes import need_one_process
from lvd.utils.progress import progress

EVAL_SET, EVAL_NORMAL = "eval_set", "eval_normal"
MAY_DIFFER = ("data_dir", "eval_path", "sampling")  # folders from before do not say their sampling


def build_parser():
    parser = Parser(
        __doc__, "python build_eval_set.py --eval_dir MagicTime/eval.pth --save_dir MagicTime"
    )
    parser.add_argument("--config", help="YAML file (default: build_x0.yaml beside this script)")
    parser.add_argument(
        "--eval_dir",
        type=Path,
        default=ROOT / "MagicTime",
        help="eval.pth or its folder (MagicTime)",
    )
    parser.add_argument(
        "--data_dir", type=Path, help="dataset of build_x0.py (default: out_dir of the config)"
    )
    parser.add_argument(
        "--save_dir",
        type=Path,
        default=ROOT / "MagicTime",
        help="gets eval_set, eval_normal (MagicTime)",
    )
    parser.add_overrides()
    return parser


def work(args):
    need_one_process("build_eval_set.py")
    data = _dataset(args)
    eval_path = split_path(args.eval_dir)
    split = load_split(eval_path)
    steps = dataset_steps(data)
    representation = folder_representation(data)
    need_built(data, steps)
    linkers = _linkers(data, split, steps, args.save_dir)
    identity = _identity(data, eval_path, representation)
    for name in linkers:
        claim_output(args.save_dir / name, identity, ignore=MAY_DIFFER)
        note_representation(args.save_dir / name, representation)
    new_files = _link(linkers.values())
    no_normal = f"none: {eval_path} holds out no normal rows, run gen_eval_set.py"
    facts = {
        "representation": representation,
        "steps": len(steps),
        "unsafe videos": len(split.unsafe),
        "normal videos": len(split.normal) or no_normal,
        "new files": new_files,
    }
    summary("evaluation set built", facts, [args.save_dir / name for name in linkers])


def _dataset(args):
    """The dataset's folder: of --data_dir, of `out_dir=...`, or of the config."""
    if args.data_dir and not args.config and not args.overrides:
        return args.data_dir
    if args.data_dir and args.overrides:
        raise InputError(
            f"{args.overrides[0]}: --data_dir {args.data_dir} names the dataset; give one of the "
            "two"
        )
    given = Namespace(out_dir=args.data_dir, overrides=args.overrides)
    return read_data_config(args.config or DEFAULT_CONFIG, given, uses=("out_dir",)).out_dir


def _linkers(data, split, steps, save_dir):
    """{folder name: HeldOutLinker} of the held-out videos."""

    def clips_of_unsafe(step):
        return unsafe_clips(data, step)

    def clips_of_normal(step):
        return list_clips(normal_folder(data) / str(step))

    linkers = {EVAL_SET: HeldOutLinker(split.unsafe, steps, clips_of_unsafe, save_dir / EVAL_SET)}
    if split.normal:  # the paper's form of eval.pth holds out no normal videos
        linkers[EVAL_NORMAL] = HeldOutLinker(
            split.normal, steps, clips_of_normal, save_dir / EVAL_NORMAL
        )
    return linkers


def _link(linkers):
    """Link all clips that are missing; returns the number of new files."""
    counts = (count for linker in linkers for count in linker)
    return sum(progress(counts, "held-out clips", unit="step", total=sum(map(len, linkers))))


def _identity(data, eval_path, representation):
    """What the held-out clips are made from, as saved beside them."""
    made_by = folder_config(data)
    sampling = {"sampling": made_by["sampling"]} if made_by.get("sampling") else {}
    return {
        "eval_sha256": sha256(eval_path),
        "eval_path": str(eval_path.resolve()),
        "representation": representation,
        "data_dir": str(data),
        **{key: made_by.get(key) for key in MADE_BY},
        **rgb_identity(made_by.get("rgb_matrix")),
        **sampling,
    }


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
