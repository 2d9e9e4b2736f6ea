"""Predicted x0 → a picture of its middle frame, for the page."""

import base64
import io

from PIL import Image

from MagicTime.utils.pipeline import decode, to_bytes

SIDE = 256  # pixels of a picture's longer side
DECODED = 128  # pixels of the largest videos whose x0 the VAE decodes: a moment on a CPU


class Previewer:
    """Draws x0.

    Args:
        rgb: lvd.data.rgb.LatentToRGB, which costs next to nothing; None: the VAE decodes.
        vae: AutoencoderKL.
        device: torch.device that decodes.
    """

    def __init__(self, rgb, vae, device):
        self._rgb = rgb
        self._vae = vae
        self._device = device

    def __call__(self, x0):
        """Return a data URI of the middle frame of x0 [C, F, h, w], smoothly enlarged."""
        middle = x0.shape[1] // 2
        frame = x0[:, middle : middle + 1].float().nan_to_num(0.0, 0.0, 0.0)
        if self._rgb is None:
            pixels = decode(self._vae, frame, device=self._device).float().nan_to_num(0.0)
        else:
            pixels = (self._rgb(frame) / 2 + 0.5).clamp(0, 1)
        image = Image.fromarray(to_bytes(pixels)[0])
        scale = SIDE / max(image.size)
        size = tuple(max(1, round(side * scale)) for side in image.size)
        return data_uri("image/jpeg", _jpeg(image.resize(size, Image.Resampling.BICUBIC)))


def _jpeg(image):
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=88)
    return memory.getvalue()


def data_uri(kind, content):
    """Return bytes as a URI that holds them: nothing lies in a file that somebody else could ask
    the server for."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
