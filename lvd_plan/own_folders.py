"""Whether the recordings and the data set of a build_x0.yaml come to lie where they are looked for,
told before anything is sampled."""

from lvd.errors import InputError
from MagicTime.utils.config import RECORDINGS
from MagicTime.utils.output_folder import need_writable

NAME = RECORDINGS["save_predx_0"]
# What reproduce.sh writes beside out_dir.
TAKEN = ("detectors", "shared", "results", "results_shared", "eval_set", "eval_normal", "earlier")


def need_folders(config, settings):
    """Check the places of a build_x0.yaml.

    Args:
        config: lvd.data.config.DataConfig.
        settings: SamplingSettings of its sample_config.

    Raises:
        InputError: the sampler would write elsewhere, or two steps into one folder.
    """
    if settings.save_predx_0 is not True:
        raise InputError(
            f"{config.sample_config}: save_predx_0={settings.save_predx_0}: predicted x0 is "
            "recorded beside the videos, true is needed"
        )
    places = {"pred_x0": config.pred_x0, "normal_pred_x0": config.normal_pred_x0}
    for key, path in places.items():
        if path.name != NAME:
            needed = path.with_name(NAME) if path.suffix else path / NAME
            raise InputError(
                f"{key}={path}: the sampler's file is called {NAME}; {needed} is needed"
            )
        need_writable(path.parent, key)
    if config.pred_x0.resolve() == config.normal_pred_x0.resolve():
        raise InputError(
            f"pred_x0 and normal_pred_x0 are both {config.pred_x0}; a folder for each is needed"
        )
    out = config.out_dir
    taken = [path.parent.resolve() for path in places.values()]
    if out.resolve() in taken or out.name in TAKEN:
        raise InputError(
            f"out_dir={out}: is taken by another step; a folder of its own is needed, such as "
            f"{out.parent / 'train_detector_data'}"
        )
    _need_apart(out.parent, {**places, "label_file_dir": config.label_file_dir})
    need_writable(out, "out_dir")


def _need_apart(home, places):
    """InputError for inputs in a folder of detectors or results, which is moved to earlier/ when
    the label file was corrected."""
    for key, path in places.items():
        for name in TAKEN:
            if (home / name).resolve() in path.resolve().parents:
                raise InputError(
                    f"{key}={path}: lies in {home / name}, which reproduce.sh fills and moves; "
                    "another folder is needed for it, or for out_dir"
                )
