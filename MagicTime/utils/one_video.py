"""MagicTime, loaded once, that samples one video at a time for whoever asks: a server, a page."""

from contextlib import ExitStack
from dataclasses import replace

import torch

from lvd.errors import InputError
from lvd.guard.twin import locked_tokenizer
from lvd.utils.processes import settle_threads
from MagicTime.utils.hardware import kernels
from MagicTime.utils.model_config import check_resolutions, check_sizes
from MagicTime.utils.pipeline import decode, sample, to_bytes
from MagicTime.utils.prompts import words_cut
from MagicTime.utils.run import load_model
from MagicTime.utils.safe_guidance import safe_guidance_of
from MagicTime.utils.sampling_plan import weight_paths
from MagicTime.utils.weights.base import part_config


class OneVideo:
    """MagicTime, as a sampling YAML describes it. Several threads may sample at once.

    Args:
        config: MagicTime.utils.config.Config. Its prompts, seeds and recordings are not used.
        device: torch.device.

    Attributes:
        negative: the YAML's negative prompt.
        vae: AutoencoderKL, once it is loaded.

    Raises:
        InputError: settings that do not fit each other, or weights that are not there.
    """

    def __init__(self, config, device):
        self.config = config
        self.device = device
        self._paths = weight_paths(config)
        base = self._paths["pretrained_model_path"]
        self._unet, self._vae = part_config(base, "unet"), part_config(base, "vae")
        check_resolutions(config, self._unet)
        self._model = None
        negative = config.settings.n_prompt
        if isinstance(negative, list):
            negative = negative[0] if negative else ""
        self.negative = negative

    def load(self):
        """Load the weights."""
        model = load_model(self.config, self._paths, self.device, tell=False)
        self._model = replace(model, tokenizer=locked_tokenizer(model.tokenizer))
        self._kernels = ExitStack()  # for as long as the process lives: all threads share them
        self._kernels.enter_context(kernels(self.config.settings))

    @property
    def vae(self):
        """The AutoencoderKL; None before `load`."""
        return self._model.vae if self._model else None

    def config_with(self, where, **given):
        """Return the Config under other settings; `where` is what messages call them."""
        settings = replace(self.config.settings, **given)
        return replace(self.config, path=where, settings=settings)

    def check(self, config, texts):
        """Refuse what this model cannot sample.

        Args:
            config: of `config_with`.
            texts: {what a message calls it: text} that the text encoder must read to its end.

        Raises:
            InputError: says what is needed.
        """
        check_sizes(config, self._unet, self._vae)
        safe_guidance_of(config.settings, config.path)
        for name, text in texts.items():
            if words := words_cut(self._model, text):
                left_out = words[:80]
                raise InputError(
                    f"{config.path}: {name}: longer than the model reads, from: {left_out}"
                )

    def latent_shape(self, settings):
        """Return (C, F, h, w) of a video."""
        pixels_per_latent = 2 ** (len(self._vae["block_out_channels"]) - 1)
        size = settings.H // pixels_per_latent, settings.W // pixels_per_latent
        return self._unet.get("in_channels", 4), settings.L, *size

    def sample(self, config, prompt, negative, seed, on_step):
        """Sample the latents of one video.

        Args:
            config: of `config_with`.
            prompt, negative, seed: of the video.
            on_step: function (step, x0 [1, C, F, h, w]) that returns [] to stop here, else None.

        Returns:
            Latents [C, F, h, w]; None where it was stopped.
        """
        settle_threads()
        settings = config.settings
        # Each call steps through a scheduler of its own.
        model = replace(self._model, scheduler=config.make_scheduler())
        latents = sample(
            model,
            [prompt],
            [negative],
            [seed],
            settings.L,
            settings.H,
            settings.W,
            settings.steps,
            settings.guidance_scale,
            settings.x0_mode,
            lambda step, timestep, x0, latents: on_step(step, x0),
            safe_guidance_of(settings),
        )
        return latents[0] if len(latents) else None

    def frames(self, latents):
        """Decode a video.

        Args:
            latents: [C, F, h, w].

        Returns:
            uint8 [F, H, W, 3]; None where a value is not finite.
        """
        pixels = decode(self._model.vae, latents, device=self.device)
        if not (torch.isfinite(latents).all() and torch.isfinite(pixels).all()):
            return None
        return to_bytes(pixels)
