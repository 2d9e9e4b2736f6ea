"""What a plan starts from: the configs, the models' sizes, the prompts and the labels, resolved."""

from argparse import Namespace
from dataclasses import dataclass, field, replace
from pathlib import Path

from lvd.data.config import DEFAULT_CONFIG, NEEDED_BY_REPRODUCE, DataConfig, read_data_config
from lvd.errors import InputError
from lvd.training.recipes import read_settings
from lvd.utils.files import load_json
from lvd_plan.models import TEXT, UNET, VAE
from MagicTime.utils.config import DOWNLOAD, LOOKED, WEIGHTS, Config, find, read_config
from MagicTime.utils.model_config import check_length, check_resolutions, check_sizes
from MagicTime.utils.prompts import read_source
from MagicTime.utils.weights.base import part_config

TINY_NORMAL = "ckpts/Tiny/prompts/normal.txt"  # of the build_x0.yaml that comes with LVD
NO_TEXT = (".csv", ".tsv", ".json", ".xlsx", ".docx", ".yaml")  # as in reproduce.sh
UNSAFE, NORMAL = "unsafe", "normal"


@dataclass(frozen=True)
class Models:
    """Configs of the models that sample.

    Attributes:
        unet, vae, text: as their config.json says.
        missing: [weight file or folder that is not there].
    """

    unet: dict
    vae: dict
    text: dict
    missing: list

    @property
    def factor(self):
        """Pixels per latent, along one side."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)


@dataclass(frozen=True)
class Inputs:
    """What a plan is made of.

    Attributes:
        data: DataConfig; sampling: MagicTime.utils.config.Config.
        models: Models; latents: (C, F, h, w) of a video.
        videos: {"unsafe": number, "normal": number}.
        prompts: {"unsafe": [Prompt], "normal": [Prompt]}; None where numbers alone are given.
        grid, shared, names: settings of the trainings.
        grid_folds: whether the folds of the grid are trained, too.
        strips: {"unsafe": number, "normal": number} of filmstrips, as reproduce.sh draws them.
    """

    data: DataConfig
    sampling: Config
    models: Models
    latents: tuple
    videos: dict
    prompts: dict | None
    grid: object
    shared: object
    names: object
    grid_folds: bool = False
    strips: dict = field(default_factory=lambda: {UNSAFE: 8, NORMAL: 4})

    @property
    def home(self):
        """The folder that everything but the recordings lands in."""
        return self.data.out_dir.parent

    @property
    def folders(self):
        """{"unsafe": Path, "normal": Path} of the samplings, as reproduce.sh names them."""
        return {UNSAFE: self.data.pred_x0.parent, NORMAL: self.data.normal_pred_x0.parent}


def read_inputs(args, need_weights=True):
    """Read what the flags name.

    Args:
        args: the flags of plan.py.
        need_weights: refuse weights that are not there; else they are told in `Models.missing`.

    Returns:
        Inputs.

    Raises:
        InputError: a config, a prompt file or weights that are missing or do not fit.
    """
    data = read_data_config(args.config, Namespace(), required=NEEDED_BY_REPRODUCE)
    if not isinstance(data.sample_config, Path):
        raise InputError(f"{args.config}: sample_config must be the path of a sampling YAML")
    sampling = read_config(data.sample_config)
    models = _models(sampling, need_weights)
    latents = _latents(sampling, models)
    prompts = _prompts(args, sampling)
    videos = (
        {kind: len(prompts[kind]) for kind in prompts}
        if prompts
        else {UNSAFE: args.videos, NORMAL: args.normal_videos}
    )
    return Inputs(
        data,
        sampling,
        models,
        latents,
        videos,
        prompts,
        *(read_settings(args.train_config, Namespace(), kind) for kind in ("grid", "shared")),
        read_settings(args.train_config, Namespace(names=True), "names"),
        getattr(args, "folds", False),
    )


def is_many_lanes(inputs):
    """Whether reproduce.sh samples by a process for each core of a CPU, as in the tiny world."""
    return max(inputs.sampling.settings.H, inputs.sampling.settings.W) <= 128


def _models(sampling, need_weights):
    """The Models of a sampling YAML; where the base folder is missing, Stable Diffusion 1.5's."""
    missing = []
    for key in WEIGHTS:
        value = getattr(sampling.settings, key)
        if value and not find(value).exists():
            missing.append(value)
            if need_weights:
                raise InputError(f"{sampling.path}: {key}={value}: not there {LOOKED}; {DOWNLOAD}")
    base = sampling.settings.pretrained_model_path
    if base in missing or not base:
        return Models(UNET, VAE, TEXT, missing)
    base = find(base)
    text = TEXT | load_json(base / "text_encoder" / "config.json")
    return Models(part_config(base, "unet"), part_config(base, "vae"), text, missing)


def _latents(sampling, models):
    """(C, F, h, w) of one video, whose size is checked against the models."""
    check_resolutions(sampling, models.unet)
    check_sizes(sampling, models.unet, models.vae)
    check_length(sampling, sampling.unet.max_length)
    settings = sampling.settings
    channels = models.unet.get("in_channels", 4)
    return channels, settings.L, settings.H // models.factor, settings.W // models.factor


def _prompts(args, sampling):
    """{"unsafe": [Prompt], "normal": [Prompt]}, or None where numbers alone are given."""
    if args.videos is not None:
        return None
    unsafe, normal = args.prompts, args.normal_prompts
    if Path(args.config).resolve() == DEFAULT_CONFIG.resolve():
        unsafe = unsafe or find(sampling.settings.file_path)
        normal = normal or find(TINY_NORMAL)
    for flag, path in (("--prompts", unsafe), ("--normal_prompts", normal)):
        if path is not None and Path(path).suffix.lower() in NO_TEXT:
            raise InputError(
                f"{flag} {path}: a text file with one prompt a line is needed, whose name does not "
                "end so"
            )
        if path is None:
            raise InputError(f"{flag}: a file of prompts is needed, or --videos and a number")
    return {UNSAFE: _read_prompts(sampling, unsafe), NORMAL: _read_prompts(sampling, normal)}


def _read_prompts(sampling, path):
    """[Prompt] of a text file, as the sampler reads it."""
    settings = replace(sampling.settings, file_path=str(path))
    return read_source(settings, sampling.path)
