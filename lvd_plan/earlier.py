"""Put aside what was made from an older state of the labels or of the recordings.

    python -m lvd_plan.earlier --config my.yaml

When the label file was corrected, or prompts were added, then eval.pth, detectors and results no
longer belong to the data set. They are moved to earlier/1 (2, 3, ...) beside it, where they can
still be looked at, and reproduce.sh makes new ones. Recordings are never moved: nothing is sampled
again. Killed in the middle, the same command goes on.
"""

import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from lvd.data.config import NEEDED_BY_REPRODUCE, read_data_config
from lvd.data.labels import label_path
from lvd.data.split import NAME, load_split
from lvd.errors import InputError
from lvd.utils.changes import what_changed
from lvd.utils.cli import Parser, run_command
from lvd.utils.files import load_yaml, save_yaml, sha256
from lvd.x0.file import open_x0_file

FOLDER, LIST = "earlier", "moved.yaml"
REPORT = ("report.html", "report_files")
# What lies beside the data set, what says what it was made from, and what was made from it in turn.
# Of the files in a folder the first one that is there counts.
CONFIGS = {
    "eval_set": ("config.yaml",),
    "eval_normal": ("config.yaml",),
    "detectors": ("train.yaml", "names.yaml", "folds.yaml"),
    "shared": ("train.yaml", "names.yaml", "folds.yaml"),
    "results": ("config.yaml",),
    "results_shared": ("config.yaml",),
}
MADE_FROM = {
    "eval_set": ("results",),
    "eval_normal": ("results",),
    "detectors": ("results",),
    "shared": ("results_shared",),
}
# eval.pth is the last to go: it tells that something is left to be moved.
ALL = (*REPORT, *reversed(CONFIGS), "eval.yaml", NAME)


@dataclass(frozen=True)
class Now:
    """The present state of what everything is made from.

    Attributes:
        labels: sha256 of the label file.
        recordings: {key in a config: X0File}.
        split: sha256 of eval.pth; None where it is not there.
    """

    labels: str
    recordings: dict
    split: str | None

    def changed(self, config):
        """Say in words what changed since something was made; "" where nothing did.

        Args:
            config: {"label_sha256", "pred_x0_made_by", "normal_pred_x0_made_by", "eval_sha256"} as
                saved beside it; what it does not tell counts as the same.
        """
        if config.get("label_sha256") not in (None, self.labels):
            return what_changed("label_sha256", config["label_sha256"], self.labels)
        words = {"pred_x0_made_by": "prompts", "normal_pred_x0_made_by": "normal prompts"}
        for key, what in words.items():
            # another recording, not an older state of this one, is refused by what reads it
            if config.get(key) in self.recordings[key].fingerprints[:-1]:
                return f"{what} were added"
        if self.split and config.get("eval_sha256") not in (None, self.split):
            return what_changed("eval_sha256", config["eval_sha256"], self.split)
        return ""


def put_aside(config):
    """Move what was made from an older state to {home}/earlier/N.

    Args:
        config: lvd.data.config.DataConfig; home is the folder of its out_dir.

    Returns:
        [line that says what changed and what was moved, ...]; [] where nothing was.

    Raises:
        InputError: a recording, the label file or something that was made cannot be read.
    """
    home = config.out_dir.parent
    folder, plan = _unfinished(home)
    if plan is None:
        why = _why(config, home)
        if not why:
            return []
        folder = home / FOLDER / str(_last(home) + 1)
        plan = {"why": why, "moved": _with_what_follows(why, home), "finished": False}
        save_yaml(plan, folder / LIST)
    for name in plan["moved"]:
        if (home / name).exists():
            (home / name).rename(folder / name)
    save_yaml({**plan, "finished": True}, folder / LIST)
    return [
        *_told(plan["why"]),
        f"moved to {folder}: {', '.join(plan['moved'])}; they are made again from the same videos",
    ]


def _told(why):
    """Return a line for each change: since when what was made."""
    by_change = {}
    for name, changed in why.items():
        by_change.setdefault(changed, []).append(name)
    return [
        f"since {', '.join(names)} {'was' if len(names) == 1 else 'were'} made {changed}"
        for changed, names in by_change.items()
    ]


def _why(config, home):
    """Return {what is no longer right: what changed}; only eval.pth where that is not."""
    recordings = {
        f"{key}_made_by": open_x0_file(getattr(config, key))
        for key in ("pred_x0", "normal_pred_x0")
    }
    path = home / NAME
    split = load_split(path) if path.exists() else None
    now = Now(
        sha256(label_path(config.label_file_dir)), recordings, sha256(path) if split else None
    )
    if split:
        changed = now.changed({"label_sha256": split.label_sha256})
        normal = len(recordings["normal_pred_x0_made_by"].rows)
        if not changed and (split.normal_rows or normal) < normal:
            changed = f"more normal videos were recorded ({split.normal_rows}, now {normal})"
        if changed:
            return {NAME: changed}
    found = {name: now.changed(_config(home / name)) for name in CONFIGS}
    return {name: changed for name, changed in found.items() if changed}


def _config(folder):
    """Return what is saved beside a result: its own keys, and those of its data set."""
    for name in CONFIGS[folder.name]:
        if (folder / name).is_file():
            config = load_yaml(folder / name)
            if isinstance(config, dict):
                dataset = config.get("dataset")
                return {**config, **(dataset if isinstance(dataset, dict) else {})}
    return {}


def _with_what_follows(names, home):
    """Return the names of all that goes with some of them, in the order in which they go."""
    gone = set(ALL) if NAME in names else {*names, *REPORT}
    for name in names:
        gone |= set(MADE_FROM.get(name, ()))
    return [name for name in ALL if name in gone and _is_made(home / name)]


def _is_made(path):
    """Whether something is there, and no folder of somebody else's that is called so."""
    if not path.is_dir() or path.name not in CONFIGS:
        return path.exists()
    return any((path / name).exists() for name in CONFIGS[path.name])


def _last(home):
    """Return the largest N of {home}/earlier/N; 0 where there is none."""
    numbers = [int(path.name) for path in (home / FOLDER).glob("*") if path.name.isdecimal()]
    return max(numbers, default=0)


def _unfinished(home):
    """Return (folder, its list) of a move that was stopped in the middle; (None, None) for none."""
    folder = home / FOLDER / str(_last(home))
    path = folder / LIST
    plan = load_yaml(path) if path.is_file() else {}
    if not isinstance(plan, dict) or not isinstance(plan.get("finished", True), bool):
        raise InputError(f"{path}: not the list of what was moved here; delete it")
    if plan.get("finished", True):
        return None, None
    why, moved = plan.get("why"), plan.get("moved")
    if not isinstance(why, dict) or not isinstance(moved, list) or set(moved) - set(ALL):
        raise InputError(f"{path}: not the list of what was moved here; delete it")
    return folder, plan


# ---- as a command


def build_parser():
    parser = Parser(__doc__, "python -m lvd_plan.earlier --config my.yaml")
    parser.add_argument(
        "--config", type=Path, required=True, help="a file like build_x0.yaml, whose videos exist"
    )
    return parser


def work(args):
    config = read_data_config(args.config, Namespace(), required=NEEDED_BY_REPRODUCE)
    for line in put_aside(config):
        print(line)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
