"""Turn recorded predicted x0 into the detectors' dataset: one clip per video and denoising step.

Writes {out_dir}/group{k}/{step}/{index} for every unsafe category k and
{out_dir}/normal/{step}/{index}: latents or rgb frames (.pt), or decoded videos (.mp4, or .pt). A
video in several categories is written once and linked. The same command goes on where it was
stopped; built.json names the steps that are whole.
"""

import sys

from lvd.data.clip_file import REPRESENTATIONS, VIDEO_FORMATS, note_representation
from lvd.data.clip_folders import NORMAL, ClipWriter, group_name, need_space, note_built
from lvd.data.config import add_recording_flags, read_data_config
from lvd.data.identity import rgb_identity
from lvd.data.labels import read_labels
from lvd.errors import InputError
from lvd.utils.cli import Parser, parse_numbers, run_command, summary
from lvd.utils.config import claim_output, versions
from lvd.utils.files import sha256
from lvd.utils.processes import pick_device
from lvd.utils.progress import progress
from lvd.x0.file import open_x0_file
from lvd.x0.provenance import recorded_sampling

# Two runs that differ in these alone make the same dataset.
NOT_IDENTITY = (
    "sample_config",
    "pred_x0",
    "normal_pred_x0",
    "label_file_dir",
    "sampling",
    "versions",
)


def build_parser():
    parser = Parser(__doc__, "python build_x0.py --config build_x0.yaml --label_file_dir label.csv")
    add_recording_flags(parser)
    parser.add_argument(
        "--sample_config", help="the sampler's YAML, whose VAE decodes `video` clips"
    )
    parser.add_argument(
        "--representation",
        choices=REPRESENTATIONS,
        help="latent (default), rgb (a matrix makes small frames of it) or video (decoded)",
    )
    parser.add_argument(
        "--rgb_matrix",
        help="matrix of fit_rgb.py (default: the published one of Stable Diffusion 1.x)",
    )
    parser.add_argument(
        "--video_format",
        choices=VIDEO_FORMATS,
        help="mp4 (default, as in the paper) or pt (lossless)",
    )
    parser.add_argument(
        "--out_dir", help="the dataset's folder (default: MagicTime/train_detector_data)"
    )
    parser.add_argument(
        "--steps", default="all", help="denoising steps to write: all, 0-9, 0,10,20 (default: all)"
    )
    parser.add_argument(
        "--gpu_num",
        type=int,
        default=0,
        help="CUDA device that decodes videos; -1: CPU (default: 0)",
    )
    return parser


def work(args):
    settings = read_data_config(args.config, args, required=("pred_x0", "label_file_dir"))
    unsafe = open_x0_file(settings["pred_x0"])
    labels = read_labels(settings["label_file_dir"], rows=unsafe.tensor.shape[0])
    normal = open_x0_file(settings["normal_pred_x0"]) if settings["normal_pred_x0"] else None
    steps = parse_numbers(args.steps, range(unsafe.tensor.shape[1]), "--steps")
    if normal and normal.tensor.shape[1:] != unsafe.tensor.shape[1:]:
        raise InputError(
            f"{normal.path}: videos of shape {list(normal.tensor.shape[1:])} (steps, C, F, h, w), "
            f"those of {unsafe.path} have {list(unsafe.tensor.shape[1:])}; both must be sampled "
            "alike"
        )
    from MagicTime.utils.clip_sources import decoder_of

    decode = decoder_of(settings, unsafe)
    if settings["representation"] == "video":
        decode.to(pick_device(args.gpu_num))

    out, representation = settings["out_dir"], settings["representation"]
    homes = {row: [group_name(group) for group in labels.of(row)] for row in labels.rows()}
    parts = [
        ClipWriter(unsafe, homes, out, steps, representation, decode, settings["video_format"])
    ]
    if normal:
        homes_of_normal = {row: [NORMAL] for row in range(normal.tensor.shape[0])}
        parts.append(
            ClipWriter(
                normal,
                homes_of_normal,
                out,
                steps,
                representation,
                decode,
                settings["video_format"],
            )
        )
    claim_output(out, _identity(settings, unsafe, normal, labels, decode), ignore=NOT_IDENTITY)
    note_representation(out, representation)
    need_space(out, sum(part.size() for part in parts))
    note_built(out, parts, steps)
    written = sum(
        progress(
            (count for part in parts for count in part),
            "clips",
            unit="video",
            total=sum(map(len, parts)),
        )
    )
    note_built(out, parts, steps, done=True)

    summary(
        "dataset built",
        {
            "representation": representation,
            "steps": len(steps),
            "unsafe videos": len(homes),
            **{
                group_name(k): f"{len(column)} videos ({name})"
                for k, (name, column) in enumerate(zip(labels.categories, labels.columns), 1)
            },
            "normal videos": normal.tensor.shape[0] if normal else "none (no normal_pred_x0 given)",
            "new files": written,
        },
        [out],
    )


def _identity(settings, unsafe, normal, labels, decode):
    """What the dataset is made from, as saved beside it."""
    return {
        "representation": settings["representation"],
        "categories": labels.categories,
        "label_sha256": sha256(labels.path),
        "pred_x0_made_by": unsafe.fingerprint,
        "normal_pred_x0_made_by": normal.fingerprint if normal else None,
        "vae_sha256": decode.sha256 if settings["representation"] == "video" else None,
        **(
            {"video_format": "pt"}
            if (settings["representation"], settings["video_format"]) == ("video", "pt")
            else {}
        ),
        **rgb_identity(getattr(decode, "numbers", None)),
        **{key: str(settings[key]) for key in NOT_IDENTITY if key in settings},
        "sampling": recorded_sampling(unsafe),
        "versions": versions(),
    }


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
