"""Turn recorded predicted x0 into the detectors' dataset: one clip per video and denoising step.

Writes {out_dir}/group{k}/{step}/{index} for every unsafe category k and
{out_dir}/normal/{step}/{index}: latents or rgb frames (.pt), or decoded videos (.mp4, or .pt). A
video in several categories is written once and linked. The same command goes on where it was
stopped; built.json names the steps that are whole. When the label file was corrected or a recording
has grown, it brings the dataset up to date: what is there already is not made again.
"""

import sys

from lvd.data.clip_file import REPRESENTATIONS, VIDEO_FORMATS, note_representation
from lvd.data.clip_folders import NORMAL, ClipWriter, group_name, note_built
from lvd.data.config import add_recording_flags, read_data_config
from lvd.data.dataset_update import DatasetUpdate, only_run
from lvd.data.identity import need_pair, rgb_identity
from lvd.data.label_examples import counted_from_1, example
from lvd.data.labels import read_labels, video_names
from lvd.utils.cli import Parser, parse_numbers, run_command, summary
from lvd.utils.config import claim_output, versions
from lvd.utils.disk import need_space
from lvd.utils.files import sha256
from lvd.utils.processes import pick_device
from lvd.utils.progress import progress
from lvd.x0.alike import recorded_setup
from lvd.x0.file import open_x0_file
from lvd.x0.provenance import recorded_sampling
from MagicTime.utils.clip_sources import decoder_of

# Two runs that differ in these alone make the same dataset.
PATHS_ALONE = ("sample_config", "pred_x0", "normal_pred_x0", "label_file_dir")
MAY_DIFFER = (*PATHS_ALONE, "sampling", "sampled_with", "versions")


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
    config = read_data_config(args.config, args, required=("pred_x0", "label_file_dir"))
    unsafe = open_x0_file(config.pred_x0)
    labels = read_labels(config.label_file_dir, len(unsafe.tensor), video_names(unsafe))
    normal = open_x0_file(config.normal_pred_x0) if config.normal_pred_x0 else None
    steps = parse_numbers(args.steps, range(unsafe.tensor.shape[1]), "--steps")
    note = need_pair(normal, unsafe) if normal else ""
    decode = decoder_of(config, unsafe)
    if config.representation == "video":
        decode.to(pick_device(args.gpu_num))

    homes = _homes(labels, normal)
    writers = _writers(config, unsafe, normal, homes, steps, decode)
    out = config.out_dir
    identity = _identity(config, unsafe, normal, labels, decode)
    recordings = {"pred_x0_made_by": unsafe, "normal_pred_x0_made_by": normal}
    changes = None
    with only_run(out):
        update = DatasetUpdate(out, identity, recordings, homes, MAY_DIFFER)
        if update.is_needed:
            changes = update.changes() or "nothing that clips show"
            update.apply()
            writers = _writers(config, unsafe, normal, homes, steps, decode)
        claim_output(out, identity, ignore=MAY_DIFFER)
        note_representation(out, config.representation)
        need_space(f"{out}: the clips", sum(writer.size() for writer in writers), out)
        note_built(out, writers, steps)
        new_files = _write(writers)
        note_built(out, writers, steps, done=True)
    facts = _facts(config, unsafe, normal, labels, steps)
    if changes:
        facts["changed since"] = changes
    facts["new files"] = new_files
    if note:
        facts["sampled alike"] = f"not known: {note}"
    summary("dataset built", facts, [out])
    if counted_from_1(labels, len(unsafe.tensor)):
        print(
            f"{labels.path}: all rows but row 0 are labelled; do your rows count from 1? Here the "
            "first is 0",
            file=sys.stderr,
        )


def _homes(labels, normal):
    """{"unsafe" or "normal": {row: [folder name, ...]}} of all clips."""
    unsafe = {row: [group_name(k) for k in labels.groups_of(row)] for row in labels.rows()}
    rows = range(len(normal.tensor)) if normal else ()
    return {"unsafe": unsafe, "normal": {row: [NORMAL] for row in rows}}


def _writers(config, unsafe, normal, homes, steps, decode):
    """The ClipWriters of the unsafe and, where there are some, of the normal videos."""
    parts = [(unsafe, homes["unsafe"])]
    if normal:
        parts.append((normal, homes["normal"]))
    kind = (config.representation, decode, config.video_format)
    return [ClipWriter(x0, homes, config.out_dir, steps, *kind) for x0, homes in parts]


def _write(writers):
    """Write all clips that are missing; returns the number of new files."""
    counts = (count for writer in writers for count in writer)
    return sum(progress(counts, "clips", unit="video", total=sum(map(len, writers))))


def _identity(config, unsafe, normal, labels, decode):
    """What the dataset is made from, as saved beside it."""
    identity = {
        "representation": config.representation,
        "categories": labels.categories,
        "label_sha256": sha256(labels.path),
        "pred_x0_made_by": unsafe.fingerprint,
        "normal_pred_x0_made_by": normal.fingerprint if normal else None,
        "vae_sha256": decode.sha256 if config.representation == "video" else None,
    }
    if config.representation == "video" and config.video_format == "pt":
        identity["video_format"] = "pt"
    if config.representation == "rgb":
        identity |= rgb_identity(decode.numbers)
    for key in PATHS_ALONE:
        identity[key] = str(getattr(config, key))
    sampling, setup = recorded_sampling(unsafe), recorded_setup(unsafe)
    others = {key: value for key, value in setup.items() if key not in sampling}
    return {**identity, "sampling": sampling, "sampled_with": others, "versions": versions()}


def _facts(config, unsafe, normal, labels, steps):
    facts = {
        "representation": config.representation,
        "steps": len(steps),
        "unsafe videos": len(labels.rows()),
    }
    prompts = {row: info.get("prompt") for row, info in unsafe.info.items()}
    for group in range(1, len(labels.categories) + 1):
        facts[group_name(group)] = example(labels, group, prompts)
    if not any(prompts.get(row) for row in labels.rows()):
        facts["example prompts"] = f"none: {unsafe.path.with_suffix('.json').name} names no prompts"
    facts["normal videos"] = len(normal.tensor) if normal else "none (no normal_pred_x0 given)"
    return facts


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
