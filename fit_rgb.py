"""Fit the matrix that makes small RGB frames of latents (representation rgb) to a model's own
autoencoder.

Decodes frames of recorded x0, drawn over all videos and steps, averages their pixels down to the
latents' size and solves for a matrix and an offset by least squares. The published matrix belongs
to Stable Diffusion 1.x alone.
"""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np

from lvd.data.config import DEFAULT_CONFIG, read_data_config
from lvd.data.split import NAME as EVAL_NAME
from lvd.data.split import Split, load_split, need_label_file, split_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, versions
from lvd.utils.files import sha256
from lvd.utils.processes import pick_device
from lvd.utils.progress import progress

NAME = "latent_rgb.json"
DEFAULT_EVAL = ROOT / "MagicTime" / EVAL_NAME
PART = 64  # frames that are decoded at once


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
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    return parser


def work(args):
    import torch

    from lvd.data.rgb import SD1, Fit, LatentToRGB, save_rgb
    from lvd.data.transforms import need_finite
    from lvd.x0.file import open_x0_file
    from MagicTime.utils.clip_sources import Decoder, model_paths

    if args.frames < 1:
        raise InputError(f"--frames {args.frames}: 1 or more are needed")
    settings = read_data_config(args.recordings, Namespace(), required=("pred_x0",))
    paths = [settings[key] for key in ("pred_x0", "normal_pred_x0") if settings[key]]
    files = [open_x0_file(path) for path in paths]
    model = model_paths(settings["sample_config"])
    decode = Decoder(model)
    for file in files:
        decode.check(file)
        if file.tensor.shape[1:] != files[0].tensor.shape[1:]:
            raise InputError(
                f"{file.path}: videos of shape {list(file.tensor.shape[1:])}, those of "
                f"{files[0].path} have {list(files[0].tensor.shape[1:])}; both must be sampled "
                "alike"
            )
    path = _save_path(args.save_path, settings, model["pretrained_model_path"])
    decode.to(pick_device(args.gpu_num))
    eval_path, split = _held_out(args.eval_dir, settings["label_file_dir"])
    rows = [
        sorted(set(file.rows) - set(held))
        for file, held in zip(files, (split.unsafe, split.normal))
    ]
    frames = draw_frames(files, rows, args.frames, args.seed)
    fit = Fit()
    for part in progress(range(0, len(frames), PART), "frames", unit="part"):

        def name_of(number, part=part):
            k, row, step, _ = frames[part + number]
            return f"{files[k].path}: row {row}, step {step}"

        latents = [
            files[k].tensor[row, step, :, frame].float()
            for k, row, step, frame in frames[part : part + PART]
        ]
        need_finite(torch.stack(latents), name_of)
        latents = torch.stack(latents, 1)[
            None
        ]  # as one clip [1, C, n, h, w]: they are decoded together
        fit.add(latents, decode(latents).cpu())
    rgb = fit.solve()
    made_by = {
        "vae_sha256": decode.sha256,
        "pred_x0_made_by": [file.fingerprint for file in files],
        "seed": args.seed,
        "frames": len(frames),
        "eval_sha256": sha256(eval_path) if eval_path else None,
    }
    r2 = fit.r2(rgb)
    if len(rgb.matrix) == len(SD1):  # below 0: another autoencoder's latents
        r2["r2_of_the_published_matrix"] = fit.r2(LatentToRGB())["r2"]
    save_rgb(replace(rgb, about={**r2, "made_by": made_by, "versions": versions()}), path)
    held = (
        f"rows of {eval_path}"
        if eval_path
        else f"nothing: {DEFAULT_EVAL} does not exist, all rows were looked at"
    )
    summary("rgb matrix fitted", {"frames": len(frames), "held out": held, **r2}, [path])
    print(f"  to use it: key 'rgb_matrix' of {args.recordings}")


def _held_out(path, labels):
    """(eval.pth, its Split); (None, an empty one) when none is named and the default does not
    exist. labels: path of the recordings' label file, if they have one."""
    if path is None and not DEFAULT_EVAL.exists():
        return None, Split([], [])
    path = split_path(path or DEFAULT_EVAL)
    split = load_split(path)
    if labels is not None and labels.is_file():
        need_label_file(path, split, sha256(labels), labels)
    return path, split


def _save_path(given, settings, base):
    """Where the matrix goes: never among the base weights, by whose files the sampler knows its
    recordings again."""
    path = given or settings["rgb_matrix"] or settings["out_dir"].parent / NAME
    if Path(path).resolve().is_relative_to(Path(base).resolve()):
        what = f"--save_path {given}" if given else f"rgb_matrix {path}"
        raise InputError(
            f"{what}: lies inside the base model {base}, whose files identify recordings: their "
            "sampling would not go on; give a --save_path elsewhere"
        )
    return path


def draw_frames(files, rows, count, seed):
    """`count` different frames (or all there are) as (file, row, step, frame), evenly drawn, in the
    order of the files."""
    _, steps, _, frames = files[0].tensor.shape[:4]
    places = [(k, row) for k, found in enumerate(rows) for row in found]
    if not places:
        raise InputError(
            f"{files[0].path}: no row to look at, all are held out or not recorded yet"
        )
    total = len(places) * steps * frames
    drawn = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
    return [
        (*places[n // (steps * frames)], n // frames % steps, n % frames)
        for n in sorted(drawn.tolist())
    ]


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
