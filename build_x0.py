"""Turn recorded predicted x0 into the detectors' dataset: one clip per video and denoising step.

Writes {out_dir}/group{k}/{step}/{index} for every unsafe category k and
{out_dir}/normal/{step}/{index}: latents or rgb frames (.pt), or decoded videos (.mp4, or .pt). A
video in several categories is written once and linked. The same command goes on where it was
stopped; built.json names the steps that are whole. When the label file was corrected or a recording
has grown, it brings the dataset up to date: what is there already is not made again. On several
GPUs: accelerate launch --multi_gpu --num_processes 8 build_x0.py ... (the same files).
"""

import sys
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from lvd.data.clip_file import REPRESENTATIONS, VIDEO_FORMATS, note_representation
from lvd.data.clip_folders import NORMAL, ClipWriter, group_name, note_built
from lvd.data.config import DECODE_DTYPES, DataConfig, add_recording_flags, read_data_config
from lvd.data.dataset_update import DatasetUpdate, only_run
from lvd.data.identity import need_pair, rgb_identity
from lvd.data.label_examples import counted_from_1, example
from lvd.data.labels import Labels, read_labels, video_names
from lvd.errors import InputError
from lvd.utils.changes import noun_of
from lvd.utils.cli import Parser, parse_numbers, run_command, summary
from lvd.utils.config import claim_output, versions
from lvd.utils.disk import look_anew, need_space
from lvd.utils.exchange import code_facts, need_same
from lvd.utils.files import sha256
from lvd.utils.processes import processes
from lvd.utils.progress import progress
from lvd.utils.shared_folder import need_shared_folder
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
        "--decode_dtype",
        choices=DECODE_DTYPES,
        help="in what the VAE decodes videos: float32 (default), or float16, bfloat16, which are "
        "faster on a GPU and differ in some pixels by a step of 255",
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


@dataclass
class Build:
    """A dataset to be built, checked.

    Attributes:
        config: DataConfig.
        x0: {"unsafe": X0File, "normal": X0File or None}.
        labels: Labels.
        steps: numbers of the denoising steps.
        decode: see ClipWriter.
        homes: {"unsafe" or "normal": {row: [folder name, ...]}} of all clips.
        identity: what it is made from.
        note: what is not known of whether the videos were sampled alike, or "".
    """

    config: DataConfig
    x0: dict
    labels: Labels
    steps: list
    decode: object
    homes: dict
    identity: dict
    note: str

    def writers(self, homes=None):
        """Return {kind: ClipWriter} of what is missing; homes: of the clips, None: of all."""
        kind = (self.config.representation, self.decode, self.config.video_format)
        homes, out = homes or self.homes, self.config.out_dir
        return {
            name: ClipWriter(x0, homes[name], out, self.steps, *kind)
            for name, x0 in self.x0.items()
            if x0
        }


def work(args):
    team = processes()
    with team.main_first():
        build = _checked_build(args, team)
    _need_one_run(build, team)
    changes, writers = None, {}
    with ExitStack() as stack:
        with team.main_first():
            if team.is_main:  # alone: it updates, claims and notes
                stack.enter_context(only_run(build.config.out_dir))
                changes = _bring_up_to_date(build)
                writers = build.writers()
                _claim(build, writers)
        new_files = _write(build, writers, team)
        if not team.is_main:
            return
        if team.count > 1:
            _need_all(build)
        note_built(build.config.out_dir, writers.values(), build.steps, done=True)
    _tell(build, changes, new_files, team)


def _tell(build, changes, new_files, team):
    """Print the summary."""
    facts = _facts(build)
    if changes:
        facts["changed since"] = changes
    facts["new files"] = new_files
    if team.count > 1:
        facts["processes"] = team.count
    if build.note:
        facts["sampled alike"] = f"not known: {build.note}"
    summary("dataset built", facts, [build.config.out_dir])
    if counted_from_1(build.labels, len(build.x0["unsafe"].tensor)):
        print(
            f"{build.labels.path}: all rows but row 0 are labelled; do your rows count from 1? "
            "Here the first is 0",
            file=sys.stderr,
        )


def _checked_build(args, team):
    """Return the Build of these flags."""
    config = read_data_config(args.config, args, required=("pred_x0", "label_file_dir"))
    unsafe = open_x0_file(config.pred_x0)
    labels = read_labels(config.label_file_dir, len(unsafe.tensor), video_names(unsafe))
    normal = open_x0_file(config.normal_pred_x0) if config.normal_pred_x0 else None
    steps = parse_numbers(args.steps, range(unsafe.tensor.shape[1]), "--steps")
    note = need_pair(normal, unsafe) if normal else ""
    decode = decoder_of(config, unsafe)
    if config.representation == "video":
        decode.to(team.device(args.gpu_num))
    homes = _homes(labels, normal)
    for x0, kind in ((unsafe, "unsafe"), (normal, "normal")):
        if x0:
            x0.need_rows(homes[kind])
    identity = _identity(config, unsafe, normal, labels, decode)
    x0 = {"unsafe": unsafe, "normal": normal}
    return Build(config, x0, labels, steps, decode, homes, identity, note)


def _need_one_run(build, team):
    """Refuse processes that would make other clips than process 0, and folders not shared."""
    if team.count == 1:
        return
    identity = build.identity.items()
    facts = {noun_of(key): value for key, value in identity if key not in PATHS_ALONE}
    facts |= {"--steps": build.steps, **code_facts()}
    if build.config.representation == "video":
        device = torch.device(build.decode.device).type
        facts["device"] = device
        if device == "cpu":
            facts["threads (OMP_NUM_THREADS)"] = torch.get_num_threads()
    need_same(team, facts)
    need_shared_folder(build.config.out_dir, team, "out_dir")


def _bring_up_to_date(build):
    """Put the clips that are there where they belong now; returns what changed, None: nothing."""
    recordings = {
        "pred_x0_made_by": build.x0["unsafe"],
        "normal_pred_x0_made_by": build.x0["normal"],
    }
    out = build.config.out_dir
    update = DatasetUpdate(out, build.identity, recordings, build.homes, MAY_DIFFER)
    if not update.is_needed:
        return None
    changes = update.changes() or "nothing that clips show"
    update.apply()
    return changes


def _claim(build, writers):
    """Note in the folder what it is made from, and which steps lack clips."""
    out = build.config.out_dir
    claim_output(out, build.identity, ignore=MAY_DIFFER)
    note_representation(out, build.config.representation)
    need_space(f"{out}: the clips", sum(writer.size() for writer in writers.values()), out)
    note_built(out, writers.values(), build.steps)


def _write(build, writers, team):
    """Write all clips that are missing, each process the videos of its share.

    Args:
        build: Build.
        writers: {kind: ClipWriter} of process 0, which tells the others what is missing.
        team: Processes.

    Returns:
        the number of new files, of all processes.
    """
    name = "clips"
    if team.count > 1:
        missing = [[kind, row] for kind, writer in writers.items() for row in writer.missing]
        share = team.share(team.gather(missing)[0])
        homes = {kind: {} for kind in build.homes}
        for kind, row in share:
            homes[kind][row] = build.homes[kind][row]
        writers = build.writers(homes)
        name = f"clips of process 0 of {team.count}"
    counts = (count for writer in writers.values() for count in writer)
    total = sum(map(len, writers.values()))
    bar = progress(counts, name, unit="video", total=total, disable=not team.is_main)
    return sum(team.gather(sum(bar)))


def _need_all(build):
    """InputError for a clip that another process has written, but not where this one looks."""
    for folder in {
        name for rows in build.homes.values() for names in rows.values() for name in names
    }:
        for step in build.steps:
            look_anew(build.config.out_dir / folder / str(step))
    for kind, writer in build.writers().items():
        for row, steps in writer.missing.items():
            raise InputError(
                f"{build.config.out_dir}: the clip of {kind} row {row}, step {min(steps)} was "
                "written by another process and is not here; run the same command again"
            )


def _homes(labels, normal):
    """{"unsafe" or "normal": {row: [folder name, ...]}} of all clips."""
    unsafe = {row: [group_name(k) for k in labels.groups_of(row)] for row in labels.rows()}
    rows = range(len(normal.tensor)) if normal else ()
    return {"unsafe": unsafe, "normal": {row: [NORMAL] for row in rows}}


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
    if config.representation == "video" and config.decode_dtype != "float32":
        identity["decode_dtype"] = config.decode_dtype
    if config.representation == "rgb":
        identity |= rgb_identity(decode.numbers)
    for key in PATHS_ALONE:
        identity[key] = str(getattr(config, key))
    sampling, setup = recorded_sampling(unsafe), recorded_setup(unsafe)
    others = {key: value for key, value in setup.items() if key not in sampling}
    return {**identity, "sampling": sampling, "sampled_with": others, "versions": versions()}


def _facts(build):
    labels, unsafe, normal = build.labels, build.x0["unsafe"], build.x0["normal"]
    facts = {
        "representation": build.config.representation,
        "steps": len(build.steps),
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
