"""What each step of reproduce.sh adds to the disk, and whether that fits."""

import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from lvd.errors import InputError
from lvd.utils.disk import nearest
from lvd_plan.inputs import NORMAL, UNSAFE
from lvd_plan.networks import (
    clip_shape,
    network_config,
    shared_weight_count,
    tensor_count,
    weight_count,
)
from lvd_plan.table import size_text
from lvd_plan.there import look
from MagicTime.utils.config import RECORDINGS
from MagicTime.utils.video import video_kinds

BLOCK = 4096  # bytes that a file system gives at once
TORCH_FILE = 1577  # bytes of a torch file beside its tensor
TENSOR_IN_FILE = 330  # bytes of a detector's file for each of its tensors, beside the values
ROW_IN_FILE = 10  # and for each video that it was trained on
# Bytes a pixel of an mp4 in frames of 64 x 64 pixels, measured in the tiny world: of the sampler's
# videos (x264, crf 12) and of clips (crf 18). Larger frames take fewer: each pixel says less.
VIDEO_BYTES_OF_A_PIXEL, CLIP_BYTES_OF_A_PIXEL, MP4_SIDE, MP4_POWER = 0.34, 0.2, 64, -2 / 3
ROW_OF_SIDECAR = 350  # bytes of pred_x0.json for each video
SCORE_BYTES = {"scores.pth": 28, "folds.pth": 21}  # a video, step and category
FIGURES = {"grid": 800_000, "shared": 1_300_000}  # bytes of tables and figures beside them
FILMSTRIP = 500_000  # bytes of one: half of it in the tiny world, up to double in colourful videos


@dataclass(frozen=True)
class Piece:
    """What one step writes.

    Attributes:
        step: of reproduce.sh.
        size: bytes of all it makes; left: of what is still missing of that.
        temporary: bytes that are there while it runs.
        path: where it lies.
        is_estimate: whether the size depends on what the videos show.
    """

    step: str
    size: int
    left: int
    temporary: int
    path: Path
    is_estimate: bool = False


def disk_of(inputs, counts, model, there=None):
    """Return [Piece] of the steps of reproduce.sh, in their order.

    Args:
        inputs: Inputs.
        counts: Counts.
        model: "grid", "shared" or "both".
        there: of `look`, if it is known.
    """
    there = there or look(inputs, counts)
    pieces = []

    def add(step, size, path, temporary=0, is_estimate=False):
        left = int(size * there[step].left)
        pieces.append(Piece(step, size, left, temporary if left else 0, path, is_estimate))

    for kind in (UNSAFE, NORMAL):
        add(f"sample {kind}", _sampling_size(inputs, kind), inputs.folders[kind], 0, True)
    if model in ("grid", "both"):
        _add_clips(inputs, counts, add)
        _add_grid(inputs, counts, add)
    else:
        add("gen_eval_set", BLOCK, inputs.home)
    if model in ("shared", "both"):
        _add_shared(inputs, counts, add)
    return pieces


def recording_size(inputs, videos):
    """Return the bytes of one recording of so many videos."""
    settings = inputs.sampling.settings
    values = videos * settings.steps * prod(inputs.latents)
    return values * getattr(torch, settings.x0_dtype).itemsize + TORCH_FILE


def _sampling_size(inputs, kind):
    settings, videos = inputs.sampling.settings, inputs.videos[kind]
    recorded = sum(bool(getattr(settings, key)) for key in RECORDINGS)
    size = recorded * (recording_size(inputs, videos) + ROW_OF_SIDECAR * videos)
    of_video = mp4_size(settings.L, settings.H, settings.W, VIDEO_BYTES_OF_A_PIXEL)
    size += videos * len(video_kinds(settings.format)) * on_disk(of_video)
    strips = min(inputs.strips[kind], videos) if settings.save_predx_0 else 0
    return size + strips * FILMSTRIP


def mp4_size(frames, height, width, of_a_pixel):
    """Return about the bytes of a video: from half to double of it, by what it shows.

    Args:
        frames, height, width: of the video.
        of_a_pixel: bytes in frames of MP4_SIDE x MP4_SIDE pixels.
    """
    side = (height * width) ** 0.5
    return int(frames * height * width * of_a_pixel * (side / MP4_SIDE) ** MP4_POWER)


def clip_size(inputs):
    """Return the bytes that a clip of build_x0.py takes on the disk."""
    data, shape = inputs.data, clip_shape(inputs)
    if data.representation == "video" and data.video_format == "mp4":
        return on_disk(mp4_size(*shape[1:], CLIP_BYTES_OF_A_PIXEL))
    values = 1 if data.representation == "video" else 2
    return on_disk(prod(shape) * values + TORCH_FILE)


def on_disk(size):
    """Return the bytes that a file of this size takes."""
    return -(-size // BLOCK) * BLOCK


def _add_clips(inputs, counts, add):
    folders = (counts.groups + 1) * counts.steps * BLOCK
    is_mp4 = inputs.data.representation == "video" and inputs.data.video_format == "mp4"
    size = counts.clips * clip_size(inputs) + folders
    add("build_x0", size, inputs.data.out_dir, is_estimate=is_mp4)
    add("gen_eval_set", 2 * BLOCK, inputs.home)
    add("build_eval_set", 2 * counts.steps * BLOCK, inputs.home)  # links: folders alone


def _add_grid(inputs, counts, add):
    steps, groups = counts.steps, counts.groups
    config = network_config(inputs, inputs.grid)
    rows = sum(counts.trained.values()) // 2
    beside = TENSOR_IN_FILE * tensor_count(config) + ROW_IN_FILE * rows
    detectors = groups * steps * on_disk(4 * weight_count(config) + beside)
    add("train_mae", detectors + FIGURES["grid"], inputs.home)
    if counts.has_names:
        _add_names(inputs, counts, add, "names")
    scores = sum(counts.held_out.values()) * steps * groups * SCORE_BYTES["scores.pth"]
    add("embed_model", scores + FIGURES["grid"], inputs.home)
    if inputs.grid_folds and counts.has_folds:  # the detectors of a fold are deleted after it
        scores = sum(counts.trained.values()) * steps * groups * SCORE_BYTES["folds.pth"]
        add("folds", scores + FIGURES["grid"], inputs.home, temporary=detectors)


def _add_names(inputs, counts, add, step):
    config = network_config(inputs, inputs.names)
    size = 4 * shared_weight_count(config, counts.steps, counts.groups)
    add(step, size, inputs.home, temporary=_checkpoints(size))


def _add_shared(inputs, counts, add):
    steps, groups = counts.steps, counts.groups
    of_one = 4 * shared_weight_count(network_config(inputs, inputs.shared), steps, groups)
    add("train shared", of_one, inputs.home, temporary=_checkpoints(of_one))
    if counts.has_names:
        _add_names(inputs, counts, add, "names, shared")
    if counts.has_folds:
        scores = sum(counts.trained.values()) * steps * groups * SCORE_BYTES["folds.pth"]
        folds = scores + FIGURES["shared"]
        add("folds, shared", folds, inputs.home, temporary=of_one + _checkpoints(of_one))
    scores = sum(counts.held_out.values()) * steps * groups * SCORE_BYTES["scores.pth"]
    add("embed shared", scores, inputs.home)


def _checkpoints(size):
    """Weights, two moments and the average, in two files while one takes the other's place."""
    return 2 * 4 * size


def need_disk(pieces, free=None):
    """Refuse pieces that do not fit on their disks.

    Args:
        pieces: of `disk_of`.
        free: {number of a disk: bytes}, to plan for another disk than the one that is there.

    Returns:
        (bytes that they add at most, bytes that are free) of the disk with the least room.

    Raises:
        InputError: more is needed than is free.
    """
    disks = {}
    for piece in pieces:
        disks.setdefault(nearest(piece.path).stat().st_dev, []).append(piece)
    worst = None
    for disk, on_it in disks.items():
        peak, place = peak_of(on_it), nearest(on_it[0].path)
        there = (free or {}).get(disk, shutil.disk_usage(place).free)
        largest = max(on_it, key=lambda piece: piece.left + piece.temporary)
        if peak > there:
            raise InputError(
                f"{on_it[0].path}: the run needs {size_text(peak)} more disk, {size_text(there)} "
                f"are free; {largest.step} alone takes "
                f"{size_text(largest.left + largest.temporary)}; fewer prompts, x0_dtype float16, "
                "representation latent or another disk is needed"
            )
        if worst is None or there - peak < worst[1] - worst[0]:
            worst = peak, there
    return worst


def peak_of(pieces):
    """Return the most bytes that the pieces, made one after the other, add to a disk."""
    added = peak = 0
    for piece in pieces:
        peak = max(peak, added + piece.left + piece.temporary)
        added += piece.left
    return peak
