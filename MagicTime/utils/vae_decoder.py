"""Recorded latents → the pixels that the sampler's own VAE makes of them."""

import hashlib
from dataclasses import dataclass, field

import torch

from lvd.errors import InputError
from lvd.utils.files import raw_bytes

# What decoding takes: 2 GB for a frame of 64 x 64 latents (512 x 512 px) in float32, half of it in
# half precision.
BYTES_OF_A_LATENT = 512 << 10


@dataclass
class VaeDecoder:
    """Latents [n, C, F, h, w] → pixels [n, 3, F, H, W] in [0, 1], by the VAE that the sampler used.

    The VAE is loaded when it is first needed. A pickled copy leaves it behind, so each process that
    gets one loads its own. The frames of a clip are decoded together, but never with those of
    another clip: the size of a batch changes a pixel's last bits, and so the pixels do not depend
    on what else is asked for.

    Args:
        paths: as `model_paths` returns them.
        device: where it decodes.
        dtype: in what it decodes: "float32", "float16" or "bfloat16".
    """

    paths: dict
    device: str = "cpu"
    dtype: str = "float32"
    _vae: object = field(default=None, repr=False)

    def __call__(self, latents):
        from MagicTime.utils.pipeline import decode

        at_once = self._frames_at_once(latents)
        clips = [decode(self.vae, clip, at_once, check=self._check) for clip in latents.split(1)]
        return torch.cat(clips).float()

    @property
    def vae(self):
        """The diffusers AutoencoderKL."""
        from MagicTime.utils.weights.load import load_sampling_vae

        if self._vae is None:
            vae = load_sampling_vae(self.paths, getattr(torch, self.dtype))
            self._vae = vae.to(self.device)
        return self._vae

    @property
    def sha256(self):
        """Hex digest of the VAE's weights as they are loaded, in whatever it decodes."""
        from MagicTime.utils.weights.load import load_sampling_vae

        vae = self.vae if self.dtype == "float32" else load_sampling_vae(self.paths)
        digest = hashlib.sha256()
        for name, tensor in sorted(vae.state_dict().items()):
            digest.update(name.encode())
            digest.update(raw_bytes(tensor.cpu()))
        return digest.hexdigest()

    def to(self, device):
        """Decode on this device from now on."""
        self.device = str(device)
        if self._vae is not None:
            self._vae.to(self.device)

    def check(self, x0):
        """Raise InputError when the X0File x0 was recorded with another kind of VAE."""
        recorded = {
            "latent_channels": x0.tensor.shape[2],
            "scaling_factor": x0.meta.get("scaling_factor"),
        }
        for key, value in recorded.items():
            if value not in (None, self.vae.config[key]):
                raise InputError(
                    f"{x0.path}: recorded with {key} {value}, the VAE of sample_config has "
                    f"{self.vae.config[key]}"
                )

    def _frames_at_once(self, latents):
        """As many as fit in a quarter of the GPU; None, the pipeline's own choice, elsewhere."""
        if not self.device.startswith("cuda"):
            return None
        height, width = latents.shape[-2:]
        memory = torch.cuda.get_device_properties(self.device).total_memory
        of_frame = height * width * BYTES_OF_A_LATENT
        if self.dtype != "float32":
            of_frame //= 2
        return max(1, memory // 4 // of_frame)

    def _check(self, pixels):
        """InputError for a value that is not finite: float16 ends at 65,504."""
        if not all(map(torch.isfinite, pixels.aminmax())):
            others = "use decode_dtype float32" if self.dtype != "float32" else "check the weights"
            raise InputError(
                f"the VAE of sample_config, decoding in {self.dtype}: pixels that are not finite; "
                f"{others}"
            )

    def __getstate__(self):
        return {**self.__dict__, "_vae": None}


def model_paths(sample_config):
    """Find the model whose VAE decodes.

    Args:
        sample_config: path of a sampling YAML, or the model blocks of the paper's form.

    Returns:
        {"pretrained_model_path": Path, "dreambooth_path": Path}, each where it is named.

    Raises:
        InputError: no model is named.
    """
    from MagicTime.utils.config import find, read_config

    if isinstance(sample_config, list):
        named = [block for block in sample_config if block.get("pretrained_model_path")]
        model = named[0] if named else None
    elif sample_config is None:
        model = None
    else:
        model = vars(read_config(sample_config).settings)
    if model is None:
        raise InputError("key 'sample_config' is missing; its VAE decodes the clips")
    keys = ("pretrained_model_path", "dreambooth_path")
    return {key: find(model[key]) for key in keys if model.get(key)}
