"""Videos of MagicTime's sampler under the guard."""

from contextlib import ExitStack
from dataclasses import replace

import torch

from lvd.errors import InputError
from lvd.guard.result import UNCHECKED
from lvd.guard.twin import locked_tokenizer
from lvd.utils.processes import settle_threads
from lvd.x0.levels import levels_of
from lvd_server.request import WHERE
from MagicTime.utils import config as cfg
from MagicTime.utils.guarded import Guarding
from MagicTime.utils.hardware import kernels
from MagicTime.utils.model_config import check_resolutions, check_sizes
from MagicTime.utils.pipeline import decode, sample, to_bytes
from MagicTime.utils.prompts import words_cut
from MagicTime.utils.run import load_model
from MagicTime.utils.safe_guidance import safe_guidance_of
from MagicTime.utils.sampling_plan import weight_paths
from MagicTime.utils.weights.base import part_config

# Fields of a request, and the settings of a sampling YAML that they replace.
SETTINGS = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance_scale",
    "num_frames": "L",
    "height": "H",
    "width": "W",
}


class MagicTimeBackend:
    """MagicTime, as a sampling YAML describes it.

    Args:
        config: MagicTime.utils.config.Config. Its prompts, seeds and recordings are not used.
        guard: path of the detectors, or of a guard.yaml.
        device: torch.device.
        workers: how many calls are sampled at once.

    Attributes:
        defaults: {field of a request: value} for what a client does not say.
        fps: frames a second.

    Raises:
        InputError: settings that do not fit each other or the machine.
    """

    def __init__(self, config, guard, device, workers=1):
        settings = config.settings
        for key in ("cpu_offload", "compile"):
            if getattr(settings, key) and workers > 1:
                raise InputError(f"{config.where(key)}: {key} and --workers {workers}: 1 is needed")
        self.config = config
        self.fps = settings.fps
        self._path = guard
        self._device = device
        self._paths = weight_paths(config)
        base = self._paths["pretrained_model_path"]
        self._unet, self._vae = part_config(base, "unet"), part_config(base, "vae")
        check_resolutions(config, self._unet)
        self._model = None
        negative = settings.n_prompt
        if isinstance(negative, list):
            negative = negative[0] if negative else ""
        self.defaults = {"negative_prompt": negative, "seed": None}
        self.defaults |= {field: getattr(settings, key) for field, key in SETTINGS.items()}

    def describe(self):
        """Return what samples, in words."""
        return f"MagicTime as in {self.config.path}, on {self._device}"

    def read_guard(self):
        """Load the guard, which must know this sampling.

        Returns:
            (lvd.Guard, Guarding).
        """
        guarding = Guarding(self._path, None, None, self._device)
        guarding.check(self.config, self._latent_shape(self.config.settings))
        return guarding.guard, guarding

    def load(self):
        """Load the weights."""
        model = load_model(self.config, self._paths, self._device, tell=False)
        self._model = replace(model, tokenizer=locked_tokenizer(model.tokenizer))
        self._kernels = ExitStack()  # for as long as the process lives: all threads share them
        self._kernels.enter_context(kernels(self.config.settings))

    def prepare(self, guard, guarding):
        """Return what `check` and `make` need of a guard that `read_guard` has made."""
        guarding.vae = self._model.vae
        return guarding

    def check(self, guarding, request):
        """Refuse a request that this model or the guard does not know.

        Raises:
            InputError: says what is needed.
        """
        config = self._config_of(request)
        try:
            check_sizes(config, self._unet, self._vae)
        except InputError as error:
            raise InputError(_in_words_of_requests(str(error))) from None
        safe_guidance_of(config.settings, WHERE)
        for key in ("prompt", "negative_prompt"):
            if words := words_cut(self._model, getattr(request, key)):
                left_out = words[:80]
                raise InputError(f"{WHERE}: {key}: longer than the model reads, from: {left_out}")
        guarding.check(config, self._latent_shape(config.settings))

    def make(self, guarding, request):
        """Sample a video.

        Returns:
            (uint8 frames [F, H, W, 3], or None; GuardResult).
        """
        settle_threads()
        config = self._config_of(request)
        settings = config.settings
        scheduler = config.make_scheduler()
        model = replace(self._model, scheduler=scheduler)  # each call steps through its own
        batch = guarding.batch([0], [0], settings.steps, levels_of(scheduler))
        latents = sample(
            model,
            [request.prompt],
            [request.negative_prompt],
            [request.seed],
            settings.L,
            settings.H,
            settings.W,
            settings.steps,
            settings.guidance_scale,
            settings.x0_mode,
            lambda step, timestep, x0, latents: batch.step(step, x0),
            safe_guidance_of(settings),
        )
        result = batch.results[0]
        if not len(latents) or batch.allowed([0]) != [0]:
            return None, result
        pixels = decode(model.vae, latents[0], device=self._device)
        if not (torch.isfinite(latents).all() and torch.isfinite(pixels).all()):
            reason = f"values that are not finite in dtype {settings.dtype}"
            return None, replace(result, verdict=UNCHECKED, reason=reason)
        return to_bytes(pixels), result

    def _config_of(self, request):
        """Return the Config of a request."""
        given = {key: getattr(request, field) for field, key in SETTINGS.items()}
        settings = replace(self.config.settings, **given)
        return replace(self.config, path=WHERE, settings=settings)

    def _latent_shape(self, settings):
        """Return (C, F, h, w) of a video."""
        pixels_per_latent = 2 ** (len(self._vae["block_out_channels"]) - 1)
        size = settings.H // pixels_per_latent, settings.W // pixels_per_latent
        return self._unet.get("in_channels", 4), settings.L, *size


def _in_words_of_requests(text):
    """Name a size as a request does, not as a sampling YAML: "H=65" → "height=65"."""
    for field, key in SETTINGS.items():
        text = text.replace(f" {key}=", f" {field}=")
    return text


def read_sampling(path, overrides):
    """Read the sampling YAML of a server; see MagicTime.utils.config.read_config."""
    return cfg.read_config(path, {"save_predx_0": False}, overrides)
