"""The guard against simple baselines, on the same held-out videos (seconds).

Baselines: prompt filters, and a classifier of the finished video. The filters are trained on the
prompts of the rows that the detectors were trained on. The classifier of the finished video is the
detectors of the last step, whose predicted x0 is the video. Figures are accuracy, true positive and
true negative rate, and denoising steps. With --other the same filters and detectors are tried on
other recordings, such as those of benchmarks/guard/reworded.sh, whose prompts say the same in other
words. With --rule the rule of a rule.yaml stands beside the votes.

Needs bash reproduce.sh. Results: baselines.csv and .txt.
"""

import sys
from pathlib import Path

from benchmarks.common.flags import MAGICTIME, add_eval_dir, add_recordings
from benchmarks.common.needs import REPRODUCE, REWORDED, need_path, read_recordings
from benchmarks.common.rates import FROM_TO, rates_of
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.guard.prompt_filter import TextClassifier, WordList
from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.data.split import load_split
from lvd.errors import InputError
from lvd.evaluation.rule_of_scores import load_recording, need_trained_steps, rule_for
from lvd.evaluation.vote_report import balanced, last_step, stopping_steps, verdicts
from lvd.rules.file import load_rule
from lvd.rules.rule import NEVER
from lvd.utils.cli import Parser, run_command
from lvd.voting import verdict
from lvd.x0.file import open_x0_file

LAMBDA, ETAS = 0.6, (5, 20)
WORDS, CLASSIFIER = "prompt: words", "prompt: TF-IDF and logistic regression"
FILTERS = {WORDS: WordList, CLASSIFIER: TextClassifier}
RESULT_FILE = "baselines.csv"


def build_parser():
    parser = Parser(
        __doc__, "python benchmarks/guard/baselines.py --other MagicTime/outputs/Tiny/reworded"
    )
    add_recordings(parser)
    add_eval_dir(parser)
    parser.add_argument(
        "--results",
        type=Path,
        default=MAGICTIME / "results",
        help="results.pth or its folder (default: MagicTime/results)",
    )
    parser.add_argument(
        "--other",
        type=Path,
        metavar="DIR",
        help="folder of unsafe/pred_x0.pth, normal/pred_x0.pth and results/, of other prompts",
    )
    parser.add_argument("--rule", type=Path, metavar="YAML", help="also the rule of a rule.yaml")
    add_result_flags(parser, RESULT_FILE)
    return parser


def prompts_of(path):
    """{row: prompt} of a recording's whole rows."""
    x0 = open_x0_file(path)
    for row in x0.rows:
        if "prompt" not in x0.info.get(row, {}):
            raise InputError(
                f"{path}: its sidecar says no prompt of row {row}; a recording of "
                "inference_magictime.py is needed"
            )
    return {row: x0.info[row]["prompt"] for row in x0.rows}


def train_filters(prompts, split):
    """{name: filter} of the prompts {label: {row: text}} that are not held out."""
    held_out = {LABEL_UNSAFE: set(split.unsafe), LABEL_NORMAL: set(split.normal)}
    training = {}
    for label, rows in held_out.items():
        training[label] = [text for row, text in prompts[label].items() if row not in rows]
    return {
        name: kind(training[LABEL_UNSAFE], training[LABEL_NORMAL]) for name, kind in FILTERS.items()
    }


def filter_results(filter_, prompts, results):
    """What a filter says of each video, in the form of results.pth with one vote each, so that the
    same videos are drawn to balance."""
    said = {}
    for label, votes in results.items():
        texts = [prompts[label][int(row)] for row in votes]
        said[label] = {row: [flag] for row, flag in zip(votes, filter_(texts))}
    return said


def either(flags, results, eta):
    """Verdicts of the guard or a filter, in the same form: unsafe where one of them says so."""
    both = {}
    for label, part in results.items():
        both[label] = {}
        for row, votes in part.items():
            both[label][row] = [max(flags[label][row][0], verdict(votes, LAMBDA, eta))]
    return both


def rule_row(rule, recording):
    """(case, figures) of the guard with a rule, on the videos that are drawn to balance."""
    videos = recording.videos
    stops = rule.stops(videos.evidence)
    label_of = {True: LABEL_UNSAFE, False: LABEL_NORMAL}
    labels = [label_of[bool(is_unsafe)] for is_unsafe in videos.is_unsafe]
    stop_of = dict(zip(zip(labels, videos.rows), stops.tolist(), strict=True))
    taken = {  # steps until a video is stopped, 0 where it is not; in the order of the results
        label: {
            row: [0 if stop_of[label, row] == NEVER else stop_of[label, row] + 1] for row in part
        }
        for label, part in recording.results.items()
    }
    drawn = [(label, steps) for label, (steps,) in balanced(taken)]
    figures = rates_of([label for label, _ in drawn], [int(steps > 0) for _, steps in drawn])
    found = [steps for label, steps in drawn if label and steps]
    figures["steps"] = sum(found) / len(found) if found else None
    return f"guard, {rule.family}, horizon {rule.horizon}", figures


def rows_of(filters, prompts, results, steps):
    """Figures of the baselines and the guard on one set of videos.

    Args:
        filters: of `train_filters`.
        prompts: {label: {row: text}}.
        results: of load_results, {label: {row: votes}}.
        steps: denoising steps of a video.

    Returns:
        [(case, figures)].
    """
    flags = {name: filter_results(kind, prompts, results) for name, kind in filters.items()}
    rows = []
    for name, said in flags.items():
        rows.append((name, {**rates_of(*last_step(balanced(said))), "steps": 0}))
    videos = balanced(results)
    finished = {**rates_of(*last_step(videos)), "steps": steps}
    rows.append(("finished video (vote of the last step)", finished))
    for eta in ETAS:
        if eta > steps:
            continue
        guard = rates_of(*verdicts(videos, LAMBDA, eta))
        guard["steps"] = stopping_steps(videos, LAMBDA, eta)
        rows.append((f"guard, lambda {LAMBDA}, eta {eta}", guard))
        both = either(flags[CLASSIFIER], results, eta)
        rows.append((f"the same, or {CLASSIFIER}", rates_of(*last_step(balanced(both)))))
    return rows


def add_videos(report, part, filters, prompts, results_dir, chosen):
    """The table of one set of videos. chosen: ChosenRule; None: there is none."""
    recording = load_recording(results_dir)
    need_trained_steps(recording)
    rows = rows_of(filters, prompts, recording.results, recording.steps)
    if chosen:
        rows.append(rule_row(rule_for(chosen, recording), recording))
    report.add(
        part,
        f"{len(balanced(recording.results))} videos, balanced; {FROM_TO}; steps: spent on an "
        "unsafe video that is found, on average (a finished one is decoded, too)",
        rows,
    )


def work(args):
    chosen = load_rule(args.rule) if args.rule else None
    settings = read_recordings(args.recordings)
    need_path("--results", args.results, REPRODUCE)
    if args.other:
        need_path("--other", args.other / "results", REWORDED)
    prompts = {
        LABEL_UNSAFE: prompts_of(settings["pred_x0"]),
        LABEL_NORMAL: prompts_of(settings["normal_pred_x0"]),
    }
    filters = train_filters(prompts, load_split(args.eval_dir))
    report = Report("The guard beside simple baselines", results_path(args, RESULT_FILE))
    if chosen:
        report.facts["rule"] = chosen.rule.describe()
    report.facts["words of the word list"] = ", ".join(filters[WORDS].words) or "none"
    add_videos(report, "held-out videos", filters, prompts, args.results, chosen)
    if args.other:
        other = {
            LABEL_UNSAFE: prompts_of(args.other / "unsafe" / "pred_x0.pth"),
            LABEL_NORMAL: prompts_of(args.other / "normal" / "pred_x0.pth"),
        }
        add_videos(report, "other prompts", filters, other, args.other / "results", chosen)
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
