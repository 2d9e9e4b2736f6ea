"""Recordings whose clips a VAE decodes, for trainings that see all steps: refused where it would
take days."""

from lvd.data.clip_cache import HOLD
from lvd.data.transforms import input_size
from lvd.detectors.videomae import scratch_config
from lvd.errors import InputError
from lvd.utils.disk import GIB

# 40.2 TFLOP decode 16 frames of 512 x 512 pixels, at 94 TFLOPS of an H100 in float32.
SECONDS_OF_A_PIXEL = 40.2 / 94 / (16 * 512 * 512)
MOST_HOURS = 24
INSTEAD = "representation latent or rgb is needed"


def need_few_decodings(job, videos):
    """Refuse to decode recorded clips anew for every mini-batch, where that would take days.

    Args:
        job: Job.
        videos: how many are trained on and validated with.

    Raises:
        InputError: see `need_hours`.
    """
    latents = job.source.latent_shape
    if job.source.representation != "video" or latents is None:
        return
    _, frames, height, width = latents
    need_hours(
        "--recordings, representation video",
        videos * len(job.steps),
        (3, frames, 8 * height, 8 * width),
        job.settings,
        f"{INSTEAD}, or --data_dir with the clips of build_x0.py",
    )


def need_hours(what, clips, shape, settings, instead=INSTEAD):
    """Refuse decodings that take more than MOST_HOURS.

    Clips that fit the memory are decoded once.

    Args:
        what: what the message begins with.
        clips: how many, of all steps.
        shape: (3, F, H, W) of a decoded one.
        settings: TrainSettings.
        instead: what the message asks for.

    Raises:
        InputError: it takes longer.
    """
    config = scratch_config(settings.size, shape, "video")
    height, width = input_size(config)
    size = 2 * clips * config.num_channels * config.num_frames * height * width
    if size <= HOLD:
        return
    pixels = shape[1] * shape[2] * shape[3]
    hours = (1 + settings.epoch) * clips * pixels * SECONDS_OF_A_PIXEL / 3600
    if hours > MOST_HOURS:
        raise InputError(
            f"{what}: {clips:,} clips fill {size / GIB:,.0f} GiB, more than is held in memory, and "
            f"would be decoded anew in each of {settings.epoch} epochs: about {hours:,.0f} hours "
            f"of an H100; {instead}"
        )
