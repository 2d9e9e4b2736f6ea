"""From a build_x0.yaml to the clips it describes: the recordings, and the sampler's VAE that decodes them."""

from dataclasses import dataclass, field

from lvd.data_config import read_data_config
from lvd.errors import InputError
from lvd.labels import read_labels
from lvd.source import RecordedClips
from lvd.x0_file import open_x0_file


def open_recordings(path, device):
    """RecordedClips of a build_x0.yaml; device: where `video` clips are decoded."""
    from argparse import Namespace

    settings = read_data_config(path, Namespace(), required=("pred_x0", "normal_pred_x0", "label_file_dir"))
    unsafe = open_x0_file(settings["pred_x0"])
    labels = read_labels(settings["label_file_dir"], rows=unsafe.tensor.shape[0])
    decode = decoder_of(settings, unsafe)
    if decode:
        decode.to(device)
    return RecordedClips(settings["pred_x0"], settings["normal_pred_x0"], labels, settings["representation"], decode)


def decoder_of(settings, x0):
    """What turns recorded latents of x0 into clips of settings["representation"]; None: nothing has to be done."""
    if settings["representation"] == "latent":
        return None
    decoder = Decoder(model_paths(settings["sample_config"]))
    for key, found in (("latent_channels", x0.tensor.shape[2]), ("scaling_factor", x0.meta.get("scaling_factor"))):
        if found not in (None, decoder.vae.config[key]):
            raise InputError(f"{x0.path}: recorded with {key} {found}, the VAE of sample_config has "
                             f"{decoder.vae.config[key]}")
    return decoder


@dataclass
class Decoder:
    """latents [n, C, F, h, w] → pixels [n, 3, F, H, W] in [0, 1], by the VAE that the sampler used.

    It is loaded when first needed, by each process that gets a (pickled) copy.
    """

    paths: dict
    device: str = "cpu"
    _vae: object = field(default=None, repr=False)

    def __call__(self, latents):
        from .pipeline import decode

        return decode(self.vae, latents)

    @property
    def vae(self):
        from .weights import load_sampling_vae

        if self._vae is None:
            self._vae = load_sampling_vae(self.paths).to(self.device)
        return self._vae

    def to(self, device):
        self.device = str(device)
        if self._vae is not None:
            self._vae.to(self.device)

    def __getstate__(self):
        return {**self.__dict__, "_vae": None}


def model_paths(sample_config):
    """{"pretrained_model_path", "dreambooth_path"} of a sampling YAML or of the model block of the paper's form."""
    from .config import find, read_config

    model = sample_config
    if isinstance(model, list):
        model = next((block for block in model if block.get("pretrained_model_path")), None)
    elif model is not None:
        model = read_config(model).settings
    if model is None:
        raise InputError("representation video: key 'sample_config' is missing; its VAE decodes the clips")
    return {key: find(model[key]) for key in ("pretrained_model_path", "dreambooth_path") if model.get(key)}
