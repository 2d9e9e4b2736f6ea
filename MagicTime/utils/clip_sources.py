"""From a build_x0.yaml to the clips it describes: the recordings, and what makes frames of their
latents."""

import hashlib
from argparse import Namespace
from dataclasses import dataclass, field

import torch

from lvd.data.config import read_data_config
from lvd.data.labels import read_labels
from lvd.data.rgb import load_rgb
from lvd.data.sources import RecordedClips
from lvd.errors import InputError
from lvd.x0.file import open_x0_file

BYTES_OF_A_LATENT = (
    512 << 10
)  # that decoding takes: 2 GB for a frame of 64 x 64 latents (512x512 px) in float32


def open_recordings(path, device, labelled=True):
    """RecordedClips of a build_x0.yaml; device: where `video` clips are decoded; labelled: of the
    rows of its label file, else of all that are recorded."""
    needed = ("pred_x0", "normal_pred_x0", *(["label_file_dir"] if labelled else []))
    settings = read_data_config(path, Namespace(), required=needed)
    unsafe = open_x0_file(settings["pred_x0"])
    labels = (
        read_labels(settings["label_file_dir"], rows=unsafe.tensor.shape[0]) if labelled else None
    )
    decode = decoder_of(settings, unsafe)
    if settings["representation"] == "video":
        decode.to(device)
    return RecordedClips(
        settings["pred_x0"], settings["normal_pred_x0"], labels, settings["representation"], decode
    )


def decoder_of(settings, x0):
    """What turns recorded latents of x0 into clips of settings["representation"]: None, LatentToRGB
    or Decoder."""
    if settings["representation"] == "latent":
        return None
    if settings["representation"] == "rgb":
        rgb = load_rgb(settings["rgb_matrix"])
        rgb.need_channels(x0.tensor.shape[2])
        return rgb
    return Decoder(model_paths(settings["sample_config"])).check(x0)


@dataclass
class Decoder:
    """latents [n, C, F, h, w] → pixels [n, 3, F, H, W] in [0, 1], by the VAE that the sampler used.

    paths: as of `model_paths`. The VAE is loaded when first needed, by each process that gets a
    (pickled) copy. A clip's frames are decoded together, without those of other clips: a batch
    changes a pixel's last bits, and so the pixels do not depend on what else is asked for.
    """

    paths: dict
    device: str = "cpu"
    _vae: object = field(default=None, repr=False)

    def __call__(self, latents):
        from MagicTime.utils.pipeline import decode

        at_once = self._frames_at_once(latents)
        return torch.cat([decode(self.vae, clip, at_once) for clip in latents.split(1)])

    @property
    def vae(self):
        from MagicTime.utils.weights.load import load_sampling_vae

        if self._vae is None:
            self._vae = load_sampling_vae(self.paths).to(self.device)
        return self._vae

    @property
    def sha256(self):
        """Hex digest of the VAE's weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(
                name.encode()
                + tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            )
        return digest.hexdigest()

    def to(self, device):
        self.device = str(device)
        if self._vae is not None:
            self._vae.to(self.device)

    def check(self, x0):
        """self; InputError when x0 was recorded with another kind of VAE."""
        for key, found in (
            ("latent_channels", x0.tensor.shape[2]),
            ("scaling_factor", x0.meta.get("scaling_factor")),
        ):
            if found not in (None, self.vae.config[key]):
                raise InputError(
                    f"{x0.path}: recorded with {key} {found}, the VAE of sample_config has "
                    f"{self.vae.config[key]}"
                )
        return self

    def _frames_at_once(self, latents):
        """As many as fit in a quarter of the GPU; None, the pipeline's own choice, elsewhere."""
        if not self.device.startswith("cuda"):
            return None
        whole = torch.cuda.get_device_properties(self.device).total_memory
        return max(1, whole // 4 // (latents.shape[-2] * latents.shape[-1] * BYTES_OF_A_LATENT))

    def __getstate__(self):
        return {**self.__dict__, "_vae": None}


def model_paths(sample_config):
    """{"pretrained_model_path", "dreambooth_path"} of a sampling YAML or of the model block of the
    paper's form."""
    from MagicTime.utils.config import find, read_config

    model = sample_config
    if isinstance(model, list):
        model = next((block for block in model if block.get("pretrained_model_path")), None)
    elif model is not None:
        model = read_config(model).settings
    if model is None:
        raise InputError("key 'sample_config' is missing; its VAE decodes the clips")
    return {
        key: find(model[key])
        for key in ("pretrained_model_path", "dreambooth_path")
        if model.get(key)
    }
