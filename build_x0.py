"""Turn recorded predicted x0 into the detectors' dataset: one clip per video and denoising step.

Writes {out_dir}/group{k}/{step}/{index} for every unsafe category k and {out_dir}/normal/{step}/{index}: latents
(.pt) or decoded videos (.mp4). A video in several categories is written once and linked. The same command goes on
where it was stopped.
"""

import sys

from tqdm import tqdm

from lvd.clips import SUFFIXES, note_representation
from lvd.command import Parser, pick_device, run_command, summary
from lvd.data_config import DEFAULT_CONFIG, read_data_config
from lvd.dataset import NORMAL, Clips, group_name, need_space
from lvd.errors import InputError
from lvd.files import sha256
from lvd.labels import read_labels
from lvd.ranges import parse_numbers
from lvd.settings import claim_output, versions
from lvd.x0_file import open_x0_file

# Two runs that differ in these alone make the same dataset.
NOT_IDENTITY = ("sample_config", "pred_x0", "normal_pred_x0", "label_file_dir", "versions")


def build_parser():
    parser = Parser(__doc__, "python build_x0.py --config build_x0.yaml --label_file_dir label.csv")
    parser.add_argument("--config", default=DEFAULT_CONFIG, help="YAML file (default: build_x0.yaml beside this script)")
    parser.add_argument("--label_file_dir", help="CSV: one column of row indices per unsafe category")
    parser.add_argument("--pred_x0", help="recorded x0 of the unsafe prompts (pred_x0.pth)")
    parser.add_argument("--normal_pred_x0", help="recorded x0 of the normal prompts")
    parser.add_argument("--sample_config", help="the sampler's YAML, whose VAE decodes `video` clips")
    parser.add_argument("--representation", choices=sorted(SUFFIXES), help="latent (default) or video")
    parser.add_argument("--out_dir", help="the dataset's folder (default: MagicTime/train_detector_data)")
    parser.add_argument("--steps", default="all", help="denoising steps to write: all, 0-9, 0,10,20 (default: all)")
    parser.add_argument("--gpu_num", type=int, default=0, help="CUDA device that decodes videos; -1: CPU (default: 0)")
    return parser


def work(args):
    settings = read_data_config(args.config, args, required=("pred_x0", "label_file_dir"))
    unsafe = open_x0_file(settings["pred_x0"])
    labels = read_labels(settings["label_file_dir"], rows=unsafe.tensor.shape[0])
    normal = open_x0_file(settings["normal_pred_x0"]) if settings["normal_pred_x0"] else None
    steps = parse_numbers(args.steps, range(unsafe.tensor.shape[1]), "--steps")
    if normal and normal.tensor.shape[1:] != unsafe.tensor.shape[1:]:
        raise InputError(f"{normal.path}: videos of shape {list(normal.tensor.shape[1:])} (steps, C, F, h, w), those of "
                         f"{unsafe.path} have {list(unsafe.tensor.shape[1:])}; both must be sampled alike")
    decode = _decoder(settings, unsafe, args.gpu_num) if settings["representation"] == "video" else None

    out, representation = settings["out_dir"], settings["representation"]
    homes = {row: [group_name(group) for group in labels.of(row)] for row in labels.rows()}
    parts = [Clips(unsafe, homes, out, steps, representation, decode)]
    if normal:
        homes_of_normal = {row: [NORMAL] for row in range(normal.tensor.shape[0])}
        parts.append(Clips(normal, homes_of_normal, out, steps, representation, decode))
    claim_output(out, _identity(settings, unsafe, normal, labels), ignore=NOT_IDENTITY)
    note_representation(out, representation)
    need_space(out, sum(part.size() for part in parts))
    written = sum(tqdm((count for part in parts for count in part), "clips", sum(map(len, parts)), unit="video"))

    summary("dataset built", {
        "representation": representation, "steps": len(steps), "unsafe videos": len(homes),
        **{group_name(k): f"{len(column)} videos ({name})" for k, (name, column) in
           enumerate(zip(labels.categories, labels.columns), 1)},
        "normal videos": normal.tensor.shape[0] if normal else "none (no normal_pred_x0 given)",
        "new files": written}, [out])


def _identity(settings, unsafe, normal, labels):
    """What the dataset is made from, as saved beside it."""
    return {"representation": settings["representation"], "categories": labels.categories,
            "label_sha256": sha256(labels.path), "pred_x0_made_by": unsafe.fingerprint,
            "normal_pred_x0_made_by": normal.fingerprint if normal else None,
            **{key: str(settings[key]) for key in NOT_IDENTITY if key in settings}, "versions": versions()}


def _decoder(settings, x0, gpu_num):
    """latents [n, C, F, h, w] → pixels [n, 3, F, H, W] on the CPU, with the VAE that the sampler used."""
    if settings["sample_config"] is None:
        raise InputError("representation video: key 'sample_config' is missing; its VAE decodes the clips")
    raise NotImplementedError


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
