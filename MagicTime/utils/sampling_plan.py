"""What a sampling run will do, checked before the weights are loaded."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from lvd.errors import InputError
from lvd.utils.config import ROOT, versions
from lvd.utils.disk import nearest, need_space
from lvd.utils.files import fingerprint
from lvd.x0.file import recording_files
from lvd.x0.sidecar import load_sidecar, sidecar_path
from MagicTime.utils.config import DOWNLOAD, LOOKED, RECORDINGS, WEIGHTS, Config, find
from MagicTime.utils.model_config import check_resolutions, check_sizes
from MagicTime.utils.more_prompts import need_same_beginning
from MagicTime.utils.output_folder import OutputFolder, need_writable
from MagicTime.utils.prompts import as_recorded, digest, negatives_of
from MagicTime.utils.safe_guidance import NONE, SafeGuidance, safe_guidance_of
from MagicTime.utils.schedulers import DDIM
from MagicTime.utils.seeds import seeds_of
from MagicTime.utils.weights.base import part_config


@dataclass(frozen=True)
class Plan:
    """A checked sampling run.

    Attributes:
        config: MagicTime.utils.config.Config.
        prompts: [Prompt], one a row of the recording.
        negatives: [negative prompt], one a row.
        seeds: [seed], one a row; -1 where it is to be drawn.
        weights: {YAML key: path of a weight file or folder, "" for none}.
        latent_shape: (C, F, h, w) of one video.
        safe_guidance: SafeGuidance, or None.
        guarding: MagicTime.utils.guarded.Guarding, or None.
        device: torch.device that samples.
        folder: OutputFolder.
        identity: {key: value} saved as config.yaml: what makes the videos.
    """

    config: Config
    prompts: list
    negatives: list
    seeds: list
    weights: dict
    latent_shape: tuple
    safe_guidance: SafeGuidance | None
    guarding: object
    device: torch.device
    folder: OutputFolder
    identity: dict

    @property
    def settings(self):
        """Return the SamplingSettings."""
        return self.config.settings

    @property
    def x0_dtype(self):
        """Return the torch dtype of the recordings."""
        return getattr(torch, self.settings.x0_dtype)

    @property
    def recordings(self):
        """Return {setting: path} of the files that are recorded.

        They lie in the run's folder, or where the setting says, from the current folder.
        """
        paths = {}
        for key, name in RECORDINGS.items():
            wanted = getattr(self.settings, key)
            if wanted:
                paths[key] = self.folder.path / name if wanted is True else Path(wanted)
        return paths

    @property
    def recorded_bytes(self):
        """Return the size of the complete recordings, in bytes."""
        values = len(self.prompts) * self.settings.steps * prod(self.latent_shape)
        return values * self.x0_dtype.itemsize * len(self.recordings)

    def need_space(self):
        """Refuse recordings that do not fit on their disks."""
        by_disk = {}
        for path in self.recordings.values():
            by_disk.setdefault(nearest(path).stat().st_dev, []).append(path)
        for paths in by_disk.values():
            size = self.recorded_bytes // len(self.recordings) * len(paths)
            what = f"{paths[0].parent}: the recordings"
            fewer = "fewer prompts, x0_dtype float16 or another disk"
            files = [file for path in paths for file in recording_files(path)]
            need_space(what, size, paths[0], fewer, files)


def make_plan(config, prompts, out, device, guarding=None):
    """Check a run as far as this is possible without its weights.

    Args:
        config: MagicTime.utils.config.Config.
        prompts: [Prompt].
        out: path of the output folder, which is not made yet.
        device: torch.device.
        guarding: MagicTime.utils.guarded.Guarding, or None.

    Returns:
        Plan.

    Raises:
        InputError: what the YAML, the files that it names or the folder lack.
    """
    settings = config.settings
    prompts = as_recorded(prompts, OutputFolder(out).made_with())
    count = len(prompts)
    negatives = negatives_of(settings, count, config.where("n_prompt"))
    seeds = seeds_of(settings, count, config.where("seed"))
    weights = weight_paths(config)
    latent_shape = _latent_shape(config, weights["pretrained_model_path"])
    if guarding:
        guarding.check(config, latent_shape)
    plan = Plan(
        config=config,
        prompts=prompts,
        negatives=negatives,
        seeds=seeds,
        weights=weights,
        latent_shape=latent_shape,
        safe_guidance=safe_guidance_of(settings),
        guarding=guarding,
        device=device,
        folder=OutputFolder(out),
        identity=_identity(config, prompts, weights, device, guarding),
    )
    plan.folder.need_writable()
    _need_recordable(plan)
    need_same_beginning(plan)
    return plan


def _need_recordable(plan):
    """Refuse recordings that cannot be written where they are to lie, or that have no content."""
    settings = plan.settings
    if settings.save_guidance and settings.guidance_scale <= 1:
        raise InputError(
            f"{plan.config.where('save_guidance')}: save_guidance={settings.save_guidance}: there "
            f"is no guidance at guidance_scale={settings.guidance_scale}; one over 1 is needed"
        )
    taken = {}
    for key, path in plan.recordings.items():
        where = f"{plan.config.where(key)}: {key}"
        if path.is_dir() or (path.exists() and not sidecar_path(path).exists()):
            kind = "a folder" if path.is_dir() else "a file that is no recording"
            raise InputError(f"{where}: {path} is {kind}; another path is needed")
        if isinstance(getattr(plan.settings, key), str) and sidecar_path(path).exists():
            load_sidecar(path)  # another JSON file would be overwritten
        place = sidecar_path(path).resolve()
        if place in taken:
            raise InputError(
                f"{where}: {path} is also that of {taken[place]}; a file of its own is needed"
            )
        taken[place] = key
        need_writable(path.parent, f"{key}={path}")


def weight_paths(config):
    """Find the weight files that a config names.

    Returns:
        {YAML key: Path, or "" for none}.

    Raises:
        InputError: a file that is not there, or no base folder.
    """
    paths = {}
    for key in WEIGHTS:
        value = getattr(config.settings, key)
        paths[key] = find(value) if value else ""
        if value and not paths[key].exists():
            raise InputError(f"{config.path}: {key}={value}: not there {LOOKED}; {DOWNLOAD}")
    if not paths["pretrained_model_path"]:
        raise InputError(
            f"{config.path}: pretrained_model_path is empty, the base folder is needed"
        )
    if not config.unet.use_motion_module:
        paths["motion_module"] = ""
    return paths


def _latent_shape(config, base):
    """Return (C, F, h, w) of one video, whose size is checked against the base folder's models."""
    settings = config.settings
    unet = part_config(base, "unet")
    vae = part_config(base, "vae")
    check_resolutions(config, unet)
    check_sizes(config, unet, vae)
    pixels_per_latent = 2 ** (len(vae["block_out_channels"]) - 1)
    height = settings.H // pixels_per_latent
    width = settings.W // pixels_per_latent
    return unet.get("in_channels", 4), settings.L, height, width


def _identity(config, prompts, weights, device, guarding):
    """Return what makes the videos; weights and prompts are told by their hashes.

    The kind of device belongs to it: the same seed gives other noise on a GPU than on a CPU.
    """
    identity = {}
    for key, path in weights.items():
        identity[key] = f"{_short(path)} ({fingerprint(path)[:16]})" if path else ""
    for key, value in vars(config.settings).items():
        if key not in (*WEIGHTS, "prompt"):
            identity[key] = value
    # Said only where they matter: folders from before they existed can be resumed.
    if not config.settings.vae_tiling:
        del identity["vae_tiling"]
    if not config.settings.save_guidance:
        del identity["save_guidance"]
    if config.settings.safe_guidance == NONE:
        del identity["safe_guidance"], identity["safety_concept"]
    if config.settings.scheduler == DDIM:
        del identity["scheduler"]
    identity["prompts"] = len(prompts)
    identity["prompts_sha256"] = digest(prompts)
    identity["device"] = device.type
    identity["unet"] = config.unet.motion
    identity["noise_scheduler_kwargs"] = config.noise_schedule
    if guarding:
        identity["guard"] = guarding.identity
    identity["versions"] = versions()
    return identity


def _short(path):
    """Return a path that stays the same when the repository moves."""
    path = Path(path).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
