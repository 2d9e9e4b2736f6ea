"""What a benchmark needs, and which command makes what is not there yet."""

from argparse import Namespace
from pathlib import Path

from lvd.data.config import DEFAULT_CONFIG, read_data_config
from lvd.errors import InputError

REPRODUCE = "bash reproduce.sh makes it (15 minutes)"
REWORDED = "bash benchmarks/guard/reworded.sh makes it (5 minutes, after bash reproduce.sh)"
FROM_RECORDINGS = "--recordings build_x0.yaml --eval_dir MagicTime/eval.pth"


def train_shared(folder):
    """The command that trains the shared detector into a folder."""
    return f"python train_mae.py --model shared {FROM_RECORDINGS} --save_dir {folder}"


def shared_detector(folder):
    """What makes a missing shared detector."""
    return f"{train_shared(folder)} makes it (1 minute)"


def shared_votes(folder, model_dir="MagicTime/shared"):
    """What makes the missing votes of the shared detector, and that detector first."""
    vote = f"python embed_model.py --model_dir {model_dir} {FROM_RECORDINGS} --save_dir {folder}"
    if not Path(model_dir).exists():
        vote = f"{train_shared(model_dir)} and then {vote}"
    return f"{vote} makes it (1 minute)"


def need_path(flag, path, maker):
    """InputError that says what makes a path that is not there.

    Args:
        flag: the flag that names it.
        path: file or folder.
        maker: the command that makes it, and its minutes: "bash x.sh makes it (2 minutes)".
    """
    if not Path(path).exists():
        raise InputError(f"{flag} {path}: no such file or folder; {maker}")


def read_recordings(path, flag="--recordings", keys=("pred_x0", "normal_pred_x0")):
    """Settings of a YAML of recordings, which must be there where it is the repository's own."""
    settings = vars(read_data_config(path, Namespace(), required=keys))
    if Path(path) == DEFAULT_CONFIG:
        for key in ("pred_x0", "normal_pred_x0"):
            need_path(f"{flag} {Path(path).name}: {key}", settings[key], REPRODUCE)
    return settings
