"""build_x0.yaml: the model, the recordings, the labels and the dataset folder that every script
starts from."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lvd.data.clip_file import REPRESENTATIONS, VIDEO_FORMATS
from lvd.errors import InputError, shorten
from lvd.utils.config import ROOT, check_keys, flags_of, merged, parse_overrides
from lvd.utils.files import load_yaml

DEFAULT_CONFIG = ROOT / "build_x0.yaml"


@dataclass
class DataConfig:
    """The settings of a build_x0.yaml.

    sample_config: path of the sampler's YAML, or the model blocks of the paper's form; only videos
    need it. rgb_matrix: a file of fit_rgb.py; None: the published matrix of Stable Diffusion 1.x.
    decode_dtype: in what the VAE decodes videos.
    """

    sample_config: Any = None
    pred_x0: Path | None = None
    normal_pred_x0: Path | None = None
    label_file_dir: Path | None = None
    out_dir: Path = ROOT / "MagicTime" / "train_detector_data"
    representation: str = "latent"
    rgb_matrix: Path | None = None
    video_format: str = "mp4"
    decode_dtype: str = "float32"


KEYS = tuple(field.name for field in fields(DataConfig))
PATHS = ("sample_config", "pred_x0", "normal_pred_x0", "label_file_dir", "out_dir", "rgb_matrix")
INPUTS = ("pred_x0", "normal_pred_x0", "label_file_dir")
DECODE_DTYPES = ("float32", "float16", "bfloat16")
ONLY_FOR = {
    "rgb_matrix": "rgb",
    "sample_config": "video",
    "video_format": "video",
    "decode_dtype": "video",
}
NEEDED_BY_REPRODUCE = ("sample_config", "pred_x0", "normal_pred_x0", "label_file_dir", "out_dir")


def add_recording_flags(parser):
    """Add the flags of every script that starts from recordings and labels."""
    parser.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        help="YAML file (default: build_x0.yaml beside this script)",
    )
    parser.add_argument(
        "--label_file_dir",
        help="CSV or .xlsx: a column of row indices for each unsafe category, or a line for each "
        "video and category; or a folder with one such file",
    )
    parser.add_argument("--pred_x0", help="recorded x0 of the unsafe prompts (pred_x0.pth)")
    parser.add_argument("--normal_pred_x0", help="recorded x0 of the normal prompts")
    parser.add_overrides()


def read_data_config(path, args, required=(), uses=KEYS):
    """Read a build_x0.yaml, overruled by flags, overruled by `key=value` words.

    Relative paths in the file count from the repository's root, those of the command line from the
    current folder. The paper's form, a list of a model block, an entry for the label file and an
    inference block, is read too: its blocks become `sample_config`. Where no `pred_x0` is named, it
    is the file that the sampling YAML's `save_predx_0` names.

    Args:
        path: of the YAML.
        args: a Namespace with flags named as keys (None: not given) and maybe `overrides`.
        required: keys that may not be missing.
        uses: keys that the script does something with.

    Returns:
        A DataConfig.

    Raises:
        InputError: an unknown key, a value that does not fit, or a required key that is missing;
            also a flag or word that names a missing file, or that would change nothing.
    """
    from_file = load_yaml(path)
    if isinstance(from_file, list):
        from_file = _from_blocks(from_file, path)
    check_keys(from_file, KEYS, (), path)
    flags, words = flags_of(args, DataConfig), parse_overrides(getattr(args, "overrides", None))
    config = merged(
        DataConfig,
        [
            (path, _with_paths(from_file, ROOT, path)),
            ("flag", _with_paths(flags, Path(), "flag")),
            ("key=value", _with_paths(words, Path(), "key=value")),
        ],
    )
    if isinstance(config.sample_config, str):
        config.sample_config = Path(config.sample_config)
    if config.pred_x0 is None:
        config.pred_x0 = _recording_of(config.sample_config)
    for key in required:
        if getattr(config, key) is None:
            raise InputError(f"{path}: key '{key}' is missing (or give --{key})")
    for key, known in (
        ("representation", REPRESENTATIONS),
        ("video_format", VIDEO_FORMATS),
        ("decode_dtype", DECODE_DTYPES),
    ):
        value = getattr(config, key)
        if value not in known:
            raise InputError(f"{path}: {key} must be {' or '.join(known)}, found {shorten(value)}")
    given = {key: f"--{key}" for key in flags} | {key: f"{key}=..." for key in words}
    _need_use(config, given, uses)
    _need_files(config, given)
    return config


def _recording_of(sample_config):
    """Return the path that `save_predx_0` of a sampling YAML, or of its blocks, names, or None.

    Relative paths are looked up in the current folder, MagicTime/ and the repository's root.
    """
    blocks = sample_config
    if isinstance(blocks, Path):
        blocks = load_yaml(blocks) if blocks.is_file() else None
    blocks = [block for block in blocks if isinstance(block, dict)] if blocks else []
    named = [block["save_predx_0"] for block in blocks if "save_predx_0" in block]
    if not named or not isinstance(named[0], str):
        return None
    places = [folder / named[0] for folder in (Path(), ROOT / "MagicTime", ROOT)]
    return next((place for place in places if place.exists()), places[0])


def _need_files(config, given):
    """A file that the command line names must be there; one of the YAML may be gone by now."""
    for key in INPUTS:
        path = getattr(config, key)
        if key in given and not path.exists():
            raise InputError(f"{given[key]} {path}: no such file")


def _need_use(config, given, uses):
    """Refuse what is given on the command line and would change nothing."""
    for key, word in given.items():
        if key not in uses:
            raise InputError(f"{word}: changes nothing here; {', '.join(uses)} are used")
        kind = ONLY_FOR.get(key)
        if "representation" in uses and kind not in (None, config.representation):
            raise InputError(
                f"{word}: belongs to representation {kind}, this one is {config.representation}, "
                "where it changes nothing"
            )


def _with_paths(settings, base, where):
    """The settings; relative paths among them count from the folder `base`."""
    result = dict(settings)
    for key in PATHS:
        value = settings.get(key)
        if isinstance(value, str):
            begins_with_key = value.startswith("${")  # of another path: "${out_dir}/matrix.json"
            result[key] = value if begins_with_key else str(base / value)
        elif not (value is None or isinstance(value, Path) or _is_blocks(key, value)):
            raise InputError(f"{where}: {key} must be a path, found {shorten(value)}")
    return result


def _is_blocks(key, value):
    is_list = key == "sample_config" and isinstance(value, list)
    return is_list and all(isinstance(block, dict) for block in value)


def _from_blocks(blocks, path):
    """The paper's list form as a mapping.

    Keys of ours are taken wherever they stand. A label entry is a bare path, or a mapping with one
    key that begins with "label". What remains describes the model.
    """
    settings, model_blocks = {}, []
    for block in blocks:
        if isinstance(block, str):
            settings["label_file_dir"] = block
            continue
        if not isinstance(block, dict):
            raise InputError(
                f"{path}: an entry of the list is a {type(block).__name__}, a block of keys is "
                "needed"
            )
        for key in block:
            if not isinstance(key, str):
                raise InputError(
                    f"{path}: key {shorten(key)} in an entry of the list, keys must be names"
                )
        if len(block) == 1 and next(iter(block)).startswith("label"):
            settings["label_file_dir"] = next(iter(block.values()))
            continue
        settings |= {key: value for key, value in block.items() if key in KEYS}
        model_block = {key: value for key, value in block.items() if key not in KEYS}
        if model_block:
            model_blocks.append(model_block)
    return {"sample_config": model_blocks, **settings}


def as_shell(path):
    """Return the settings that reproduce.sh needs, as shell assignments."""
    from argparse import Namespace
    from shlex import quote

    config = read_data_config(path, Namespace(), required=NEEDED_BY_REPRODUCE)
    if isinstance(config.sample_config, list):
        raise InputError(
            f"{path}: reproduce.sh needs sample_config to be the path of a sampling YAML"
        )
    variables = {
        "SAMPLE_CONFIG": config.sample_config,
        "UNSAFE_DIR": config.pred_x0.parent,
        "NORMAL_DIR": config.normal_pred_x0.parent,
        "LABELS": config.label_file_dir,
        "DATA_DIR": config.out_dir,
        "HOME_DIR": config.out_dir.parent,
    }
    return "\n".join(f"{name}={quote(str(value))}" for name, value in variables.items())


if __name__ == "__main__":
    import sys

    try:
        print(as_shell(sys.argv[1]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
