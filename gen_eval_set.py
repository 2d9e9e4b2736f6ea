"""Hold out videos for evaluation: write eval.pth, the rows that no detector is ever trained on.

Of each unsafe category a fraction (at least one video), and as many normal videos to balance them.
Seeded. An eval.pth made with the same settings is left alone; one made with others is refused,
because detectors trained with it would have seen what a new one holds out. --renew draws anew after
the label file was corrected or videos were added: the old file stays as eval.1.pth, and detectors
that were trained with it are refused from then on, until they are trained again.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from lvd.data.clip_file import link_clip, list_clips
from lvd.data.clip_folders import dataset_steps, need_built, normal_folder
from lvd.data.config import INPUTS, add_recording_flags, read_data_config
from lvd.data.identity import need_other_videos
from lvd.data.labels import read_labels, video_names
from lvd.data.split import NAME, load_split, make_split, save_split, split_path
from lvd.errors import InputError, plural, shorten
from lvd.training.rows import MIN_CLIPS
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, first_difference
from lvd.utils.files import save_yaml, sha256
from lvd.utils.processes import need_one_process
from lvd.x0.file import open_x0_file

USES = (*INPUTS, "out_dir")  # keys of the config


def build_parser():
    parser = Parser(__doc__, "python gen_eval_set.py --fraction 0.2 --seed 2024")
    add_recording_flags(parser)
    parser.add_argument(
        "--out_dir", help="the dataset of build_x0.py, counted when the recordings are gone"
    )
    parser.add_argument(
        "--fraction",
        type=float,
        default=0.2,
        help="share of each category to hold out (default: 0.2)",
    )
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument(
        "--save_path",
        type=Path,
        default=ROOT / "MagicTime" / NAME,
        help="(default: MagicTime/eval.pth)",
    )
    parser.add_argument(
        "--renew",
        action="store_true",
        help="draw anew where labels or recordings changed; the old file is kept as eval.1.pth",
    )
    return parser


def work(args):
    need_one_process("gen_eval_set.py")
    if split_path(args.save_path).suffix != ".pth":
        raise InputError(
            f"--save_path {args.save_path}: a folder or a file name that ends in .pth is needed"
        )
    if not 0 <= args.seed < 2**63:
        raise InputError(f"--seed {shorten(args.seed)}: a whole number from 0 is needed")
    config = read_data_config(args.config, args, required=("label_file_dir",), uses=USES)
    _need_two_recordings(config)
    labels = _recorded_labels(config)
    normal_rows = _normal_rows(config)
    split = make_split(labels, normal_rows, args.fraction, args.seed, sha256(labels.path))
    path = split_path(args.save_path)
    saved_config = path.with_suffix(".yaml")
    facts, written = _facts(labels, split), [path, saved_config]
    if path.exists():
        changed = _what_changed(load_split(path), split)
        if changed and not args.renew:
            raise InputError(
                f"{path}: {changed}; give --renew to draw anew (the old file is kept; detectors "
                "trained with it must be trained again), or another --save_path"
            )
        if changed:
            earlier = _keep(path)
            facts["drawn anew"] = f"{changed}; train detectors again, older ones are refused"
            written.append(earlier)
            save_split(split, path)
    else:
        save_split(split, path)
    save_yaml({"label_file_dir": str(labels.path), **asdict(split)}, saved_config)
    summary("evaluation split", facts, written)


def _need_two_recordings(config):
    """Refuse one recording for both kinds of videos, where both recordings are there."""
    paths = (config.normal_pred_x0, config.pred_x0)
    if all(path is not None and path.exists() for path in paths):
        need_other_videos(*map(open_x0_file, paths))


def _recorded_labels(config):
    """Labels whose rows are all recorded.

    Without the recording (it may be deleted once the dataset is built) the rows' range cannot be
    checked; build_eval_set.py then finds what is missing.
    """
    path = config.pred_x0
    if path is None or (not path.exists() and config.out_dir.is_dir()):
        return read_labels(config.label_file_dir)
    x0 = open_x0_file(path)
    labels = read_labels(config.label_file_dir, len(x0.tensor), video_names(x0))
    x0.need_rows(labels.rows())
    return labels


def _normal_rows(config):
    """The rows of the normal videos: all recorded ones, or those of the dataset."""
    path = config.normal_pred_x0
    if path is not None and path.exists():
        return open_x0_file(path).rows
    folder = normal_folder(config.out_dir)
    if folder.is_dir():
        step = dataset_steps(config.out_dir)[0]
        need_built(config.out_dir, [step])
        return list(list_clips(folder / str(step)))
    raise InputError(
        f"no normal videos: neither normal_pred_x0 ({path}) nor {folder} exists; sample the normal "
        f"prompts first"
    )


def _what_changed(saved, planned):
    """Return why a saved split is not the planned one, in words; "" where it is."""
    keys = ("seed", "fraction", "label_sha256", "normal_rows", "unsafe", "normal")
    before = {key: getattr(saved, key) for key in keys}
    difference = first_difference(before, {key: getattr(planned, key) for key in keys})
    if difference is None:
        return ""
    key, there, now = difference
    if key in ("seed", "fraction"):
        return f"made with another {key}, {shorten(there)}, now it is {shorten(now)}"
    if key == "label_sha256" and there is not None:
        return "the label file changed after it was made"
    if key == "normal_rows" and there is not None:
        return f"there were {there} normal videos when it was made, now there are {now}"
    return "other videos would be held out by these labels and recordings"


def _keep(path):
    """Keep an eval.pth and its .yaml under the first free name, eval.1.pth; returns that.

    The old file stays where it is until the new one takes its place.
    """
    number = 1
    while (earlier := path.with_suffix(f".{number}.pth")).exists():
        number += 1
    if path.with_suffix(".yaml").exists():
        link_clip(path.with_suffix(".yaml"), earlier.with_suffix(".yaml"))
    link_clip(path, earlier)
    return earlier


def _facts(labels, split):
    facts = {"seed": split.seed, "fraction": split.fraction}
    for group, (name, column) in enumerate(zip(labels.categories, labels.columns), 1):
        held_out = set(column) & set(split.unsafe)
        told = f"{len(held_out)} of {len(column)} held out"
        facts[f"group{group} ({name})"] = told + _too_few(len(column) - len(held_out))
    facts["unsafe"] = f"{len(split.unsafe)} of {len(labels.rows())} held out"
    facts["normal"] = f"{len(split.normal)} of {split.normal_rows} held out" + _too_few(
        split.normal_rows - len(split.normal)
    )
    return facts


def _too_few(left):
    """Say that no detector can be trained on so few videos; "" where they are enough."""
    if left >= MIN_CLIPS:
        return ""
    more = plural(MIN_CLIPS - left, "more video")
    return f"; {left} left, train_mae.py needs {MIN_CLIPS}: label or sample {more}"


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
