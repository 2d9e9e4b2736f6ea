"""Fit the matrix that makes small RGB frames of latents (representation rgb) to a model's own
autoencoder.

Decodes frames of recorded x0, drawn over all videos and steps, averages their pixels down to the
latents' size and solves for a matrix and an offset by least squares. The published matrix belongs
to Stable Diffusion 1.x alone.
With --videos nothing is decoded: the finished clips (videos/ beside each recording) are compared
with x0 of the last step. This serves recordings of any pipeline.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lvd.data.config import DEFAULT_CONFIG, INPUTS, read_data_config
from lvd.data.finished_clips import VIDEOS, finished_clip, pixels_like
from lvd.data.identity import need_other_videos, need_same_shape
from lvd.data.labels import label_path
from lvd.data.rgb import SD1, LatentToRGB, LeastSquares, load_rgb, save_rgb
from lvd.data.split import NAME as EVAL_NAME
from lvd.data.split import Split, load_split, need_label_file, split_path
from lvd.data.transforms import need_finite
from lvd.errors import InputError, shorten
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, versions
from lvd.utils.files import sha256
from lvd.utils.processes import need_one_process, pick_device
from lvd.utils.progress import progress
from lvd.x0.file import open_x0_file
from lvd.x0.sidecar import numbered_name
from MagicTime.utils.vae_decoder import VaeDecoder, model_paths

NAME = "latent_rgb.json"
DEFAULT_EVAL = ROOT / "MagicTime" / EVAL_NAME
FRAMES_AT_ONCE = 64  # that are decoded
MOST_FRAMES = 10**9
USES = (*INPUTS, "sample_config", "out_dir", "rgb_matrix")  # keys of the config


def build_parser():
    parser = Parser(
        __doc__,
        "python fit_rgb.py --recordings build_x0.yaml --eval_dir MagicTime/eval.pth "
        "--save_path MagicTime/latent_rgb.json",
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="YAML",
        help=(
            "build_x0.yaml that names the recordings and the model (default: the one beside "
            "this script)"
        ),
    )
    parser.add_argument(
        "--save_path",
        type=Path,
        help=f"(default: the rgb_matrix that the YAML names, else {NAME} beside its out_dir)",
    )
    parser.add_argument(
        "--eval_dir",
        type=Path,
        help="eval.pth or its folder: what it holds out is not looked at "
        "(default: MagicTime/eval.pth, if it is there)",
    )
    parser.add_argument("--frames", type=int, default=2000, help="frames to decode (default: 2000)")
    parser.add_argument(
        "--videos",
        action="store_true",
        help="decode nothing, take the finished clips beside the recordings, and x0 of the last "
        "step",
    )
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    parser.add_overrides()
    return parser


def work(args):
    need_one_process("fit_rgb.py")
    if not 1 <= args.frames <= MOST_FRAMES:
        raise InputError(f"--frames {shorten(args.frames)}: 1 to {MOST_FRAMES} are needed")
    if not 0 <= args.seed < 2**63:
        raise InputError(f"--seed {shorten(args.seed)}: a whole number from 0 is needed")
    config = read_data_config(args.recordings, args, required=("pred_x0",), uses=USES)
    eval_path, split = _held_out(args.eval_dir, config.label_file_dir)
    recordings = [open_x0_file(p) for p in (config.pred_x0, config.normal_pred_x0) if p]
    decode = None if args.videos else VaeDecoder(_model_of(config, args.recordings))
    _need_alike(recordings, decode)
    path = _save_path(args.save_path, config, decode)
    rows = [
        sorted(set(x0.rows) - set(held))
        for x0, held in zip(recordings, (split.unsafe, split.normal))
    ]
    if decode:
        decode.to(pick_device(args.gpu_num))
        frames = draw_frames(recordings, rows, args.frames, args.seed)
        least_squares = _fit(recordings, frames, decode)
    else:
        frames = draw_clips(recordings, rows, args.frames, args.seed)
        least_squares = _fit_clips(recordings, frames)
    rgb = least_squares.solve()
    r2 = least_squares.r2(rgb)
    if len(rgb.matrix) == len(SD1):  # below 0: another autoencoder's latents
        r2["r2_of_the_published_matrix"] = least_squares.r2(LatentToRGB())["r2"]
    count = len(frames) * (1 if decode else recordings[0].tensor.shape[3])
    made_by = {
        "vae_sha256": decode.sha256 if decode else None,
        "pred_x0_made_by": [x0.fingerprint for x0 in recordings],
        "seed": args.seed,
        "frames": count,
        "eval_sha256": sha256(eval_path) if eval_path else None,
    }
    save_rgb(replace(rgb, about={**r2, "made_by": made_by, "versions": versions()}), path)

    held_out = f"nothing: {DEFAULT_EVAL} does not exist, all rows were looked at"
    if eval_path:
        held_out = f"rows of {eval_path}"
    summary("rgb matrix fitted", {"frames": count, "held out": held_out, **r2}, [path])
    print(f"  to use it: key 'rgb_matrix' of {args.recordings}")


def _model_of(config, path):
    """Return the weight files of the YAML's model; InputError where it names none."""
    if config.sample_config is None:
        raise InputError(
            f"{path}: key 'sample_config' is missing; for a model that is not MagicTime's give "
            "--videos, which takes the finished clips"
        )
    return model_paths(config.sample_config)


def _need_alike(recordings, decode):
    """InputError unless one matrix can be fitted to these recordings."""
    for x0 in recordings:
        if decode:
            decode.check(x0)
        need_same_shape(x0, recordings[0])
    if len(recordings) > 1:
        need_other_videos(recordings[1], recordings[0])


def draw_clips(recordings, rows, frames, seed):
    """Draw finished clips that have about so many latent frames together.

    Args:
        recordings, rows, seed: as of `draw_frames`.
        frames: how many latent frames.

    Returns:
        [(number of the recording, row, path of its clip)], in the order of the recordings.
    """
    clips = []
    for k, rows_of_one in enumerate(rows):
        found = [(k, row, finished_clip(recordings[k], row)) for row in rows_of_one]
        clips += [clip for clip in found if clip[2]]
    if not clips:
        folder = recordings[0].path.parent / VIDEOS
        raise InputError(
            f"--videos: {folder} has no clip of a row that is not held out; it is called as the "
            f"row's fact 'video' says, else {numbered_name(0)}.mp4"
        )
    count = min(len(clips), -(-frames // recordings[0].tensor.shape[3]))
    drawn = np.random.default_rng(seed).choice(len(clips), count, replace=False)
    return [clips[place] for place in sorted(drawn.tolist())]


def _fit_clips(recordings, clips):
    """LeastSquares of the pixels of finished clips on x0 of the last step."""
    least_squares = LeastSquares()
    for k, row, path in progress(clips, "clips", unit="clip"):
        latents = recordings[k].tensor[row, -1].float()  # [C, F, h, w]
        need_finite(latents[None], lambda _, k=k, row=row: f"{recordings[k].path}: row {row}")
        least_squares.add(latents[None], pixels_like(path, latents.shape[1:])[None])
    return least_squares


def draw_frames(recordings, rows, count, seed):
    """Draw different frames evenly over all videos and steps.

    Args:
        recordings: [X0File].
        rows: of each recording, those to draw from.
        count: how many frames; all there are, if those are fewer.
        seed: of the draw.

    Returns:
        [(number of the recording, row, step, frame)], in the order of the recordings.
    """
    _, steps, _, frames = recordings[0].tensor.shape[:4]
    videos = [(k, row) for k, rows_of_one in enumerate(rows) for row in rows_of_one]
    if not videos:
        raise InputError(
            f"{recordings[0].path}: no row to look at, all are held out or not recorded yet"
        )
    total = len(videos) * steps * frames
    drawn = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
    places = []
    for number in sorted(drawn.tolist()):
        video, step = number // (steps * frames), number // frames % steps
        places.append((*videos[video], step, number % frames))
    return places


def _fit(recordings, frames, decode):
    """LeastSquares of the pixels of these frames on their latents."""
    least_squares = LeastSquares()
    for start in progress(range(0, len(frames), FRAMES_AT_ONCE), "frames", unit="part"):
        part = frames[start : start + FRAMES_AT_ONCE]

        def name_of(number, part=part):
            k, row, step, _ = part[number]
            return f"{recordings[k].path}: row {row}, step {step}"

        latents = torch.stack(
            [recordings[k].tensor[row, step, :, frame].float() for k, row, step, frame in part], 1
        )  # [C, n, h, w]
        need_finite(latents.transpose(0, 1), name_of)
        clip = latents[None]  # [1, C, n, h, w]: the frames of one clip are decoded together
        least_squares.add(clip, decode(clip).cpu())
    return least_squares


def _held_out(path, labels):
    """Find what is held out.

    Args:
        path: of eval.pth or its folder; None: the default one, if it exists.
        labels: path of the recordings' label file, if they have one.

    Returns:
        (path of eval.pth, its Split); (None, an empty Split) without an eval.pth.
    """
    if path is None and not DEFAULT_EVAL.exists():
        return None, Split([], [])
    path = split_path(path or DEFAULT_EVAL)
    split = load_split(path)
    labels = label_path(labels) if labels is not None else None
    if labels is not None and labels.is_file():
        need_label_file(path, split, sha256(labels), labels)
    return path, split


def _save_path(given, config, decode):
    """Where the matrix goes.

    Never among the base weights: by the files of that folder the sampler knows its recordings
    again.
    """
    path = given or config.rgb_matrix or config.out_dir.parent / NAME
    base = decode.paths["pretrained_model_path"] if decode else None
    if base and Path(path).resolve().is_relative_to(Path(base).resolve()):
        what = f"--save_path {given}" if given else f"rgb_matrix {path}"
        raise InputError(
            f"{what}: lies inside the base model {base}, whose files identify recordings: their "
            "sampling would not go on; give a --save_path elsewhere"
        )
    if Path(path).exists():
        load_rgb(path)  # refuses to replace anything else, such as a recording
    return path


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
