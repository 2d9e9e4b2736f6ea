"""What tells unsafe videos apart at the first denoising steps: the shared detector of x0 against
others on the same split (an hour).

The others: a larger network; x0 of this and the step before; the guidance direction beside x0
(guidance.pth, which sampling with save_guidance=true records); both; the mean log-odds of three
detectors; and one that starts from an encoder trained without labels. Figures are AUROC by step on
the held-out videos, mean and standard deviation over seeds, which change the validation videos and
the training. All ways are trained on the same steps, --steps. What is finished in --work is not
trained again, and a stopped training goes on.

Needs recordings with guidance. Results: early.csv and .txt.
"""

import sys

from benchmarks.common.flags import add_eval_dir, add_recordings, add_work, chosen
from benchmarks.common.needs import read_recordings
from benchmarks.common.report import Report
from benchmarks.common.results import OUTPUTS, add_result_flags, results_path
from benchmarks.common.script_runs import claim_work
from benchmarks.common.seeds import mean_and_sd, parse_seeds
from benchmarks.detectors.early_runs import EarlyRuns, Way, aurocs
from lvd.utils.cli import Parser, parse_numbers, run_command
from lvd.x0.file import open_x0_file

WAYS = {
    "x0": Way(),
    "guidance": Way(("x0", "guidance")),
    "two steps": Way(("x0", "x0 before")),
    "tiny": Way(size="tiny"),
    "guidance, two steps": Way(("x0", "guidance", "x0 before", "guidance before")),
    "pre-trained": Way(pretrained=True),
    "three averaged": Way(members=3),
}
KEPT_IN = {"three averaged": "x0"}  # ways that are made of another's detectors
SHOWN = (0, 1, 2, 3, 4, 10)  # steps
NOTES = {
    "mean": "each category against normal videos, mean over the categories",
    "any": "all unsafe videos against normal ones, by the largest calibrated probability",
}
RESULT_FILE = "early.csv"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/detectors/early.py --ways 'x0;two steps'")
    add_recordings(parser)
    add_eval_dir(parser)
    add_work(parser, OUTPUTS / "early", "detectors")
    add_result_flags(parser, RESULT_FILE)
    parser.add_argument("--seeds", default="1,2,3", help="(default: 1,2,3)")
    parser.add_argument(
        "--ways", default="all", help=f"semicolons between them: {'; '.join(WAYS)} (default: all)"
    )
    parser.add_argument(
        "--steps", default="all", help="denoising steps to train and judge: 0-10 (default: all)"
    )
    return parser


def work(args):
    seeds, ways = parse_seeds(args.seeds), chosen(args.ways, WAYS, "--ways", ";")
    settings = read_recordings(
        args.recordings, keys=("pred_x0", "normal_pred_x0", "label_file_dir")
    )
    recorded = open_x0_file(settings["pred_x0"]).tensor.shape[1]
    steps = parse_numbers(args.steps, range(recorded), "--steps")
    claim_work(args.work, settings, args.eval_dir, steps=steps)
    runs = EarlyRuns(settings, args.eval_dir, steps, args.work)
    members = runs.members()
    report = Report("What raises AUROC at the first steps", results_path(args, RESULT_FILE))
    report.facts["trained on"] = f"{len(steps)} of {recorded} steps ({args.steps}), all ways alike"
    report.facts["held out"] = (
        f"{len(runs.split.unsafe)} unsafe and {len(runs.split.normal)} normal videos"
    )
    for name in ways:
        folder = KEPT_IN.get(name, name).replace(", ", "-").replace(" ", "_")
        outcomes = [runs.outcome(folder, WAYS[name], seed) for seed in seeds]
        found = [aurocs(outcome, members) for outcome in outcomes]
        for part in found[0]:
            note = NOTES.get(part, "this category against normal videos")
            note = f"AUROC by step: {note}; mean and standard deviation over seeds {args.seeds}"
            report.add(part, note, [(name, by_step([each[part] for each in found], steps))])
        seconds = mean_and_sd("CPU s", [outcome.seconds for outcome in outcomes])
        report.add("training", "seconds of one thread, with pre-training", [(name, seconds)])
    report.say_where()


def by_step(areas, steps):
    """Return {"step 0": mean, "step 0 sd": deviation, ...} of the steps of SHOWN.

    Args:
        areas: [seeds][S].
        steps: [S] numbers of the steps.
    """
    figures = {}
    for step in SHOWN:
        if step in steps:
            place = steps.index(step)
            figures |= mean_and_sd(f"step {step}", [area[place] for area in areas])
    return figures


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
