"""build_x0.yaml: the model, the recordings, the labels and the dataset folder that every script
starts from."""

from pathlib import Path

from lvd.data.clip_file import REPRESENTATIONS, VIDEO_FORMATS
from lvd.errors import InputError
from lvd.utils.config import ROOT, check_keys, resolve
from lvd.utils.files import load_yaml

DEFAULT_CONFIG = ROOT / "build_x0.yaml"
DEFAULTS = {
    "sample_config": None,  # needed to decode videos only
    "pred_x0": None,
    "normal_pred_x0": None,
    "label_file_dir": None,
    "out_dir": "MagicTime/train_detector_data",
    "representation": "latent",
    "rgb_matrix": None,  # a file of fit_rgb.py; None: the published matrix of Stable Diffusion 1.x
    "video_format": "mp4",
}
PATHS = ("sample_config", "pred_x0", "normal_pred_x0", "label_file_dir", "out_dir", "rgb_matrix")
NEEDED = (
    "sample_config",
    "pred_x0",
    "normal_pred_x0",
    "label_file_dir",
    "out_dir",
)  # by reproduce.sh


def add_recording_flags(parser):
    """The flags of every script that starts from recordings and labels."""
    parser.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        help="YAML file (default: build_x0.yaml beside this script)",
    )
    parser.add_argument(
        "--label_file_dir", help="CSV: one column of row indices per unsafe category"
    )
    parser.add_argument("--pred_x0", help="recorded x0 of the unsafe prompts (pred_x0.pth)")
    parser.add_argument("--normal_pred_x0", help="recorded x0 of the normal prompts")


def read_data_config(path, args, required=()):
    """Settings {key of DEFAULTS: value} of a build_x0.yaml, overruled by the flags in `args` (None:
    not given).

    Relative paths in the file count from the repository's root, those of flags from the current
    folder. The paper's form, a list of a model block, an entry for the label file and an inference
    block, is read too: its blocks are then handed on as `sample_config`. `required`: keys that may
    not be missing.
    """
    found = load_yaml(path)
    found = _from_blocks(found, path) if isinstance(found, list) else found
    check_keys(found, DEFAULTS, (), path)
    found = {
        key: ROOT / value if key in PATHS and isinstance(value, str) else value
        for key, value in found.items()
    }
    settings = resolve({**DEFAULTS, "out_dir": ROOT / DEFAULTS["out_dir"]}, found, args)
    for key in PATHS:
        if isinstance(settings[key], str):
            settings[key] = Path(settings[key])
        are_blocks = key == "sample_config" and isinstance(settings[key], list)
        if not (are_blocks or settings[key] is None or isinstance(settings[key], Path)):
            raise InputError(f"{path}: {key} must be a path, found {settings[key]!r}")
    for key in required:
        if settings[key] is None:
            raise InputError(f"{path}: key '{key}' is missing (or give --{key})")
    for key, known in (("representation", REPRESENTATIONS), ("video_format", VIDEO_FORMATS)):
        if settings[key] not in known:
            raise InputError(f"{path}: {key} must be {' or '.join(known)}, found {settings[key]!r}")
    return settings


def _from_blocks(blocks, path):
    """The paper's list form as the mapping. Keys of ours are taken wherever they stand; a label
    entry is a bare path or a mapping with one key that begins with 'label'; what remains describes
    the model."""
    settings, model_blocks = {}, []
    for block in blocks:
        if isinstance(block, str):
            settings["label_file_dir"] = block
        elif not isinstance(block, dict):
            raise InputError(
                f"{path}: an entry of the list is a {type(block).__name__}, a block of keys is "
                "needed"
            )
        elif bad := [key for key in block if not isinstance(key, str)]:
            raise InputError(f"{path}: key {bad[0]!r} in an entry of the list, keys must be names")
        elif len(block) == 1 and next(iter(block)).startswith("label"):
            settings["label_file_dir"] = next(iter(block.values()))
        else:
            settings |= {key: value for key, value in block.items() if key in DEFAULTS}
            model_blocks.append({key: value for key, value in block.items() if key not in DEFAULTS})
    return {"sample_config": [block for block in model_blocks if block], **settings}


def _as_shell(path):
    """The settings that reproduce.sh needs, as shell assignments."""
    from argparse import Namespace
    from shlex import quote

    settings = read_data_config(path, Namespace(), required=NEEDED)
    if isinstance(settings["sample_config"], list):
        raise InputError(
            f"{path}: reproduce.sh needs sample_config to be the path of a sampling YAML"
        )
    names = {
        "SAMPLE_CONFIG": settings["sample_config"],
        "UNSAFE_DIR": settings["pred_x0"].parent,
        "NORMAL_DIR": settings["normal_pred_x0"].parent,
        "LABELS": settings["label_file_dir"],
        "DATA_DIR": settings["out_dir"],
        "HOME_DIR": settings["out_dir"].parent,
    }
    return "\n".join(f"{name}={quote(str(value))}" for name, value in names.items())


if __name__ == "__main__":
    import sys

    try:
        print(_as_shell(sys.argv[1]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
