"""Videos of MagicTime's sampler under the guard."""

from dataclasses import replace

from lvd.errors import InputError
from lvd.guard.guidance import SAME
from lvd.guard.result import UNCHECKED
from lvd.x0.levels import levels_of
from lvd_server.request import WHERE
from MagicTime.utils import config as cfg
from MagicTime.utils.guarded import Guarding
from MagicTime.utils.one_video import OneVideo

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
        self._sampler = OneVideo(config, device)
        self.defaults = {"negative_prompt": self._sampler.negative, "seed": None}
        self.defaults |= {field: getattr(settings, key) for field, key in SETTINGS.items()}

    def describe(self):
        """Return what samples, in words."""
        return f"MagicTime as in {self.config.path}, on {self._device}"

    def read_guard(self):
        """Load the guard, which must know this sampling.

        Returns:
            (lvd.Guard, Guarding).
        """
        guarding = Guarding(self._path, None, None, self._device, guidance=SAME)
        guarding.check(self.config, self._sampler.latent_shape(self.config.settings))
        return guarding.guard, guarding

    def load(self):
        """Load the weights."""
        self._sampler.load()

    def prepare(self, guard, guarding):
        """Return what `check` and `make` need of a guard that `read_guard` has made."""
        guarding.vae = self._sampler.vae
        return guarding

    def check(self, guarding, request):
        """Refuse a request that this model or the guard does not know.

        Raises:
            InputError: says what is needed.
        """
        config = self._config_of(request)
        texts = {key: getattr(request, key) for key in ("prompt", "negative_prompt")}
        try:
            self._sampler.check(config, texts)
        except InputError as error:
            raise InputError(_in_words_of_requests(str(error))) from None
        guarding.check(config, self._sampler.latent_shape(config.settings))

    def make(self, guarding, request):
        """Sample a video.

        Returns:
            (uint8 frames [F, H, W, 3], or None; GuardResult).
        """
        config = self._config_of(request)
        settings = config.settings
        levels, scale = levels_of(config.make_scheduler()), settings.guidance_scale
        batch = guarding.batch([0], [0], settings.steps, levels, scale)
        latents = self._sampler.sample(
            config, request.prompt, request.negative_prompt, request.seed, batch.step
        )
        result = batch.results[0]
        if latents is None or batch.allowed([0]) != [0]:
            return None, result
        frames = self._sampler.frames(latents)
        if frames is None:
            reason = f"values that are not finite in dtype {settings.dtype}"
            return None, replace(result, verdict=UNCHECKED, reason=reason)
        return frames, result

    def _config_of(self, request):
        """Return the Config of a request."""
        given = {key: getattr(request, field) for field, key in SETTINGS.items()}
        return self._sampler.config_with(WHERE, **given)


def _in_words_of_requests(text):
    """Name a size as a request does, not as a sampling YAML: "H=65" → "height=65"."""
    for field, key in SETTINGS.items():
        text = text.replace(f" {key}=", f" {field}=")
    return text


def read_sampling(path, overrides):
    """Read the sampling YAML of a server; see MagicTime.utils.config.read_config."""
    return cfg.read_config(path, {"save_predx_0": False}, overrides)
