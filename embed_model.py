"""Let the detectors vote on the held-out videos: results.pth, {"1": {index: [vote] * S}, "0":
{index: [vote] * S}}.

"1" are unsafe videos, "0" normal ones. The vote of a step is 1 if the detector of any category says
unsafe. Probabilities go to scores.pth beside it, with those of names.pth where the detectors have
one (train_mae.py --names). Both are written when all is scored. A stopped run
goes on with the step it was at; a finished one is left alone as long as no file that it read has
changed. A folder holds the votes of one set of detectors, split and operating point.

Recordings may be of another number of steps, or of another scheduler, than those that the detectors
were trained on (with --allow_other_eval): each step is judged by the trained step that is as noisy.
Of recordings only the held-out rows are needed.

The paper's form of the command is taken too: --eval_dir is the folder eval_set, --data_dir a folder
of normal clips by step, of which the held-out ones are taken, --save_dir the results' file.
"""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from lvd.data.config import DEFAULT_CONFIG as DATA_CONFIG
from lvd.data.config import read_data_config
from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.data.labels import label_path, read_recorded_labels
from lvd.data.split import NAME, load_split, split_path
from lvd.errors import InputError
from lvd.training.recipes import DEFAULT_CONFIG, read_settings
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, parse_overrides, versions
from lvd.utils.files import sha256
from lvd.utils.processes import need_one_process, pick_device
from lvd.utils.progress import progress


def build_parser():
    parser = Parser(
        __doc__,
        "python embed_model.py --model_dir MagicTime/detectors --eval_dir MagicTime/eval.pth "
        "--data_dir MagicTime --save_dir MagicTime/results",
    )
    _add_files(parser)
    parser.add_argument(
        "--operating_point",
        help=(
            "argmax: raw probability >= 0.5, as in the paper; validation: each detector's own "
            "threshold; calibrated: calibrated probability >= 0.5; a number like 0.9: calibrated "
            "probability >= 0.9 (default: the config's, else argmax)"
        ),
    )
    parser.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        help="settings (default: train_mae.yaml beside this script)",
    )
    parser.add_argument(
        "--allow_other_eval",
        action="store_true",
        help=(
            "accept detectors trained with another or an unknown eval.pth, or on other recordings: "
            "held-out clips may have leaked; a recording of the same prompts in other steps needs "
            "it"
        ),
    )
    parser.add_argument(
        "--label_file_dir",
        type=Path,
        help=(
            "label file of the split, noted in scores.pth for AUROC by category (default: "
            "build_x0.yaml's, if it is the split's)"
        ),
    )
    parser.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    parser.add_overrides()
    return parser


def _add_files(parser):
    """Add the flags of what is read and where the votes go."""
    magictime = ROOT / "MagicTime"
    parser.add_argument(
        "--model_dir", type=Path, default=magictime / "detectors", help="detectors of train_mae.py"
    )
    parser.add_argument(
        "--eval_dir",
        type=Path,
        default=magictime / NAME,
        help="eval.pth or its folder (default: MagicTime/eval.pth); or eval_set, then eval.pth is "
        "the one it was built with, or beside it",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        help="folder of eval_set/ and eval_normal/, or eval_set (default: MagicTime); where "
        "--eval_dir is eval_set: folder of normal clips by step (default: eval_normal beside it)",
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="YAML",
        help="instead: a build_x0.yaml, to read its recordings; build_eval_set.py is not needed",
    )
    parser.add_argument(
        "--save_dir",
        type=Path,
        default=magictime / "results",
        help="folder, or file that ends in .pth (default: MagicTime/results)",
    )


def work(args):
    from lvd.data.identity import need_same_labels
    from lvd.data.paper_clips import eval_of_clips, is_clips
    from lvd.evaluation.results_folder import ResultsFolder
    from lvd.evaluation.votes import VoteRun
    from MagicTime.utils.clip_sources import held_out_clips

    need_one_process("embed_model.py")
    _refuse_other_words(args.overrides)
    settings = read_settings(args.config, args)
    unsafe = args.eval_dir if is_clips(args.eval_dir) else None
    eval_path = eval_of_clips(unsafe) if unsafe else split_path(args.eval_dir)
    split = load_split(eval_path, need_normal=unsafe is None)
    device = pick_device(args.gpu_num)
    source = held_out_clips(args, device, unsafe, split)
    need_same_labels(eval_path, split, source)
    if unsafe and args.recordings is None:
        split = _with_normal(split, source, eval_path, args)
    labels = _labels(args.label_file_dir, source, split)
    run = VoteRun(
        args.model_dir,
        source,
        split,
        sha256(eval_path),
        settings.operating_point,
        device,
        args.allow_other_eval,
    )
    members = _members(labels, split, run.bank) if labels else {}
    results = ResultsFolder(args.save_dir, _config(args, run))
    files_sha256 = run.files_sha256()
    if results.claimed:
        results.claim()
        if votes := results.finished_votes(files_sha256, members):
            title = (
                f"votes found finished in {results.path.parent}: no file that they were made of "
                "has changed"
            )
            return _tell(title, run, votes, [])
    # Detectors that only --allow_other_eval accepts are not checked again in a run that goes on.
    naming = run.bank.naming
    names_sha256 = naming.sha256() if naming else None
    run.step_scores = results.step_scores(args.allow_other_eval, names_sha256)
    for step in (bar := progress(run, "votes", unit="step")):
        bar.set_postfix_str(f"step {step}")
    votes = run.votes()
    written = results.save(votes, {**run.scores(), "members": members}, files_sha256)
    return _tell("votes recorded", run, votes, written)


def _with_normal(split, source, eval_path, args):
    """Return the split with the normal rows to vote on: see `normal_rows`."""
    from lvd.data.paper_clips import NORMAL_MADE_BY, need_only_held_out, normal_rows
    from lvd.detectors.bank import load_bank

    need_only_held_out(source, split, eval_path)
    abouts = [member.about for member in load_bank(args.model_dir).members.values()]
    trained_on = [{} if about.get("init") else about.get("dataset", {}) for about in abouts]
    rows, of_another_recording = normal_rows(
        source, split, trained_on, eval_path, args.allow_other_eval
    )
    if of_another_recording:
        # Under its own name the detectors would be refused for it.
        made_by = source.made_by.pop(NORMAL_MADE_BY)
        source.made_by["other_normal_pred_x0_made_by"] = made_by
    elif not source.made_by[NORMAL_MADE_BY]:
        source.made_by["normal_clips"] = str(args.data_dir)  # nothing else tells them apart
    return replace(split, normal=rows)


def _refuse_other_words(words):
    """A word such as epoch=3 would change nothing: detectors are read as they were trained."""
    for key in parse_overrides(words):
        if key != "operating_point":
            raise InputError(f"{key}=...: votes depend on operating_point alone, give that or none")


def _config(args, run):
    """Return what made the votes, for config.yaml."""
    made_by = {key: value for key, value in run.source.made_by.items() if key != "label_sha256"}
    return {
        "model_dir": str(args.model_dir),
        "detectors_sha256": run.bank.sha256(),
        "eval_sha256": run.eval_sha256,
        "data_dir": str(args.recordings or args.data_dir or ROOT / "MagicTime"),
        **made_by,
        "operating_point": run.operating_point,
        "representation": run.source.representation,
        **run.judged_by(),
        "versions": versions(),
    }


def _tell(title, run, votes, written):
    """Print the closing summary."""
    from lvd.rules.carried import trained_steps_text

    facts = {
        "detectors": f"{len(run.bank.groups)} categories x {len(run.bank.steps)} steps",
        "operating point": run.operating_point,
    }
    if run.has_other_steps:
        trained = trained_steps_text(run.step_map.trained)
        facts["sampled in other steps"] = f"{len(run)} steps, judged by trained steps {trained}"
    for name, label in (("unsafe videos", LABEL_UNSAFE), ("normal videos", LABEL_NORMAL)):
        videos = votes[label].values()
        share = sum(map(sum, videos)) / (len(videos) * len(run))
        facts[name] = f"{len(videos)}, {share:.0%} of their steps vote unsafe"
    summary(title, facts, written)


def _labels(path, source, split):
    """Return the Labels that the split was drawn from; None when they are not at hand."""
    if path is None:
        path = _default_label_file(source)
        if path is None or not path.is_file() or sha256(path) != split.label_sha256:
            return None
        return read_recorded_labels(path, _recording(path, source))
    labels = read_recorded_labels(path, _recording(path, source))
    if split.label_sha256 and sha256(labels.path) != split.label_sha256:
        raise InputError(
            f"--label_file_dir {path}: not the label file that eval.pth was drawn from"
        )
    return labels


def _members(labels, split, bank):
    """Return {group of the detectors: [held-out rows of that category]}.

    Detectors that know some of the labels' categories alone, whose numbers are others then, get
    theirs by name.
    """
    numbers = range(1, len(labels.categories) + 1)
    columns = dict(zip(numbers, map(set, labels.columns), strict=True))
    if set(bank.categories.values()) < set(labels.categories):
        by_name = dict(zip(labels.categories, columns.values(), strict=True))
        columns = {group: by_name[name] for group, name in bank.categories.items()}
    return {
        str(group): [str(row) for row in split.unsafe if row in column]
        for group, column in columns.items()
    }


def _recording(path, source):
    """Return the path of the recording whose rows a label file names, or None."""
    if hasattr(source, "paths"):
        return source.paths["unsafe"]
    config = read_data_config(DATA_CONFIG, Namespace()) if DATA_CONFIG.exists() else None
    named = config.label_file_dir if config else None
    is_its = named is not None and label_path(named).resolve() == label_path(path).resolve()
    return config.pred_x0 if is_its else None


def _default_label_file(source):
    """Return the label file that the source or build_x0.yaml names, or None."""
    if source.label_file is None and DATA_CONFIG.exists():
        path = read_data_config(DATA_CONFIG, Namespace()).label_file_dir
        return label_path(path) if path else None
    return source.label_file


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
