"""From a build_x0.yaml to the clips it describes: the recordings, and what makes frames of their
latents."""

from argparse import Namespace

from lvd.data.config import read_data_config
from lvd.data.kinds import KINDS
from lvd.data.labels import read_labels, video_names
from lvd.data.paper_clips import need_normal_clips
from lvd.data.recorded_clips import RecordedClips
from lvd.data.rgb import load_rgb
from lvd.data.sources import FolderClips, HeldOutFolders
from lvd.errors import InputError
from lvd.utils.config import ROOT
from lvd.x0.file import open_x0_file
from MagicTime.utils.vae_decoder import VaeDecoder, model_paths


def open_recordings(path, device, labelled=True, only=None):
    """Open the recordings that a build_x0.yaml names.

    Args:
        path: of the YAML.
        device: where `video` clips are decoded.
        labelled: hand out the rows of the label file; else all that are recorded.
        only: {kind: rows} of those that are needed, see RecordedClips; None: all.

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
        labels = read_labels(config.label_file_dir, len(unsafe.tensor), video_names(unsafe))
    decode = decoder_of(config, unsafe)
    if config.representation == "video":
        decode.to(device)
    source = RecordedClips(
        config.pred_x0, config.normal_pred_x0, labels, config.representation, decode, only
    )
    _tell(source)
    return source


def _tell(source):
    if source.note:
        print(f"not known whether all clips were sampled alike: {source.note}", flush=True)


def training_clips(args, device, labelled=True):
    """Open the clips to train on: recordings, or the folders of build_x0.py.

    Args:
        args: the parsed flags recordings, data_dir and normal_video_dir.
        device: where recorded latents are decoded, if they have to be.
        labelled: False also takes recorded rows that no label names.

    Raises:
        InputError: flags of both kinds, or what the source itself refuses.
    """
    if args.recordings is None:
        data_dir = args.data_dir or ROOT / "MagicTime" / "train_detector_data"
        source = FolderClips(data_dir, args.normal_video_dir)
        _tell(source)
        return source
    _refuse_folders(args, ("data_dir", "normal_video_dir"))
    return open_recordings(args.recordings, device, labelled)


def held_out_clips(args, device, unsafe=None, split=None):
    """Open the clips to vote on: recordings, or the folders of build_eval_set.py.

    Args:
        args: the parsed flags recordings and data_dir.
        device: where recorded latents are decoded, if they have to be.
        unsafe: folder of the unsafe clips; data_dir is then that of the normal clips (default:
            eval_normal beside it).
        split: the held-out rows: of recordings only these have to be there. None: all rows.

    Raises:
        InputError: both flags, or what the source itself refuses.
    """
    if args.recordings is None and unsafe:
        if args.data_dir is not None:
            need_normal_clips(args.data_dir, unsafe)
        return HeldOutFolders(unsafe, args.data_dir)
    if args.recordings is None:
        return HeldOutFolders(args.data_dir or ROOT / "MagicTime")
    _refuse_folders(args, ("data_dir",))
    only = {kind: getattr(split, kind) for kind in KINDS} if split else None
    return open_recordings(args.recordings, device, only=only)


def _refuse_folders(args, flags):
    """InputError for a folder of clips that is given beside recordings."""
    for flag in flags:
        folder = getattr(args, flag)
        if folder is not None:
            raise InputError(
                f"--{flag} {folder}: clips come from --recordings {args.recordings}; give one of "
                "the two"
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
    decoder = VaeDecoder(model_paths(config.sample_config), dtype=config.decode_dtype)
    decoder.check(x0)
    return decoder
