"""From a build_x0.yaml to the clips it describes: the recordings, and what makes frames of their
latents."""

from argparse import Namespace

from lvd.data.config import read_data_config
from lvd.data.labels import read_labels
from lvd.data.recorded_clips import RecordedClips
from lvd.data.rgb import load_rgb
from lvd.x0.file import open_x0_file
from MagicTime.utils.vae_decoder import VaeDecoder, model_paths


def open_recordings(path, device, labelled=True):
    """Open the recordings that a build_x0.yaml names.

    Args:
        path: of the YAML.
        device: where `video` clips are decoded.
        labelled: hand out the rows of the label file; else all that are recorded.

    Returns:
        RecordedClips.
    """
    required = ["pred_x0", "normal_pred_x0"]
    if labelled:
        required.append("label_file_dir")
    config = read_data_config(path, Namespace(), required)
    unsafe = open_x0_file(config.pred_x0)
    labels = None
    if labelled:
        labels = read_labels(config.label_file_dir, rows=unsafe.tensor.shape[0])
    decode = decoder_of(config, unsafe)
    if config.representation == "video":
        decode.to(device)
    return RecordedClips(
        config.pred_x0, config.normal_pred_x0, labels, config.representation, decode
    )


def decoder_of(config, x0):
    """Return what makes clips of recorded latents.

    Args:
        config: a DataConfig.
        x0: the X0File of the latents.

    Returns:
        None for representation "latent", LatentToRGB for "rgb", VaeDecoder for "video".

    Raises:
        InputError: it was made for other latents.
    """
    if config.representation == "latent":
        return None
    if config.representation == "rgb":
        rgb = load_rgb(config.rgb_matrix)
        rgb.need_channels(x0.tensor.shape[2])
        return rgb
    decoder = VaeDecoder(model_paths(config.sample_config))
    decoder.check(x0)
    return decoder
