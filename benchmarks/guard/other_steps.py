"""Detectors of 50 DDIM steps, asked about other numbers of steps and other schedulers.

The held-out videos are sampled again from the same prompts and seeds (MagicTime's `scheduler:` and
`steps:`). Each step is judged by the detectors of the trained step whose noise level is nearest,
and rules are carried over as the guard does it. Compared are a shared detector that is told the
step, one that is told the noise level, and the grid: how well they tell unsafe from normal videos
at early steps, and what four rules do. What is finished in --work is not made again.

Needs bash reproduce.sh. Results: other_steps.csv, .txt and .png.
"""

import sys
from functools import partial

import numpy as np

from benchmarks.common.flags import add_eval_dir, add_gpu, add_recordings, add_work, chosen
from benchmarks.common.needs import read_recordings
from benchmarks.common.report import Report
from benchmarks.common.results import OUTPUTS, add_result_flags, results_path
from benchmarks.common.script_runs import claim_work
from benchmarks.common.seeds import mean_and_sd, parse_seeds
from benchmarks.guard.held_out_samplings import HeldOutSamplings, Sampling
from benchmarks.guard.other_steps_figure import draw_figure
from benchmarks.guard.other_steps_runs import CHOSEN, FOLDS, KINDS, RULES, Detectors
from lvd.data.split import split_path
from lvd.errors import InputError, plural
from lvd.utils.cli import Parser, run_command
from lvd.utils.plots import drawn
from lvd.utils.progress import progress
from MagicTime.utils.schedulers import SCHEDULERS

TRAINED = Sampling("ddim", 50)
SAMPLINGS = "ddim:10,ddim:15,ddim:25,ddim:100,euler:25,euler_a:25,dpm++:25,unipc:25,lcm:25"
EARLY = (0, 1, 2, 4)  # steps
SHARES = {"10%": "(0.6, 5)", "40%": "(0.6, 20)"}  # of the schedule: where the votes end
GOAL = 0.02
RESULT_FILE = "other_steps.csv"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/guard/other_steps.py --samplings ddim:25,unipc:25")
    add_recordings(parser)
    add_eval_dir(parser)
    add_work(parser, OUTPUTS / "other_steps", "recordings, detectors and scores")
    add_result_flags(parser, RESULT_FILE)
    add_gpu(parser, default=-1)
    parser.add_argument("--seeds", default="2024,2025,2026", help="(default: 2024,2025,2026)")
    parser.add_argument(
        "--samplings",
        default=SAMPLINGS,
        metavar="NAME:STEPS,...",
        help=f"schedulers and steps beside ddim:50 (default: {SAMPLINGS})",
    )
    parser.add_argument("--kinds", default="all", help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument(
        "--rules_for",
        default="table,level",
        help=f"kinds that rules are chosen for, by {FOLDS} trainings more of each, or none; a "
        "rule that is there counts in any case (default: table,level)",
    )
    parser.add_argument(
        "--max_false_positive_rate", type=float, default=0.1, help="of the chosen rules (0.1)"
    )
    parser.add_argument("--max_cost", type=float, default=0.2, help="of the chosen rules (0.2)")
    return parser


def work(args):
    seeds, samplings = parse_seeds(args.seeds), parse_samplings(args.samplings)
    kinds = chosen(args.kinds, KINDS, "--kinds")
    with_rule = chosen(args.rules_for, [*KINDS, "none"], "--rules_for")
    settings = read_recordings(
        args.recordings, keys=("pred_x0", "normal_pred_x0", "label_file_dir", "sample_config")
    )
    claim_work(args.work, settings, args.eval_dir)
    held_out = HeldOutSamplings(settings, args.eval_dir, args.work / "sampled", args.gpu_num)
    flags = (
        *("--recordings", args.recordings, "--eval_dir", split_path(args.eval_dir)),
        *("--gpu_num", args.gpu_num),
    )
    report = Report("Detectors of 50 DDIM steps at other steps", results_path(args, RESULT_FILE))
    report.facts |= facts_of(held_out, args)
    rows = []
    for kind in kinds:
        found = []  # a seed: {sampling: {quantity: value}}
        for seed in progress(seeds, KINDS[kind][0], unit="seed"):
            detectors = Detectors(kind, seed, args.work / "detectors" / kind / str(seed), flags)
            detectors.train(FOLDS if kind in with_rule else 0)
            if kind in with_rule:
                detectors.choose_rules(args.max_false_positive_rate, args.max_cost)
            rules = RULES | detectors.rules()
            scores = args.work / "scores" / kind / str(seed)
            found.append(
                {
                    sampling: figures_of(
                        detectors.judge(
                            partial(held_out.clips, sampling),
                            held_out,
                            scores / f"{sampling.name}.pth",
                        ),
                        rules,
                    )
                    for sampling in samplings
                }
            )
        rows += add_tables(report, kind, found, samplings)
    split = held_out.split
    title = f"{len(split.unsafe)} unsafe and {len(split.normal)} normal held-out videos"
    drawn(draw_figure, rows, report.out.with_suffix(".png"), title)
    report.say_where()


def parse_samplings(text):
    """Return [Sampling] of "ddim:25,lcm:25", with that of the training first."""
    found = [TRAINED]
    for word in text.split(","):
        name, _, steps = word.strip().partition(":")
        if name not in SCHEDULERS or not steps.isdecimal() or not 1 <= int(steps) <= 1000:
            raise InputError(
                f"--samplings {word}: a scheduler of {', '.join(SCHEDULERS)}, a colon and a number "
                "of steps are needed, as in ddim:25"
            )
        if Sampling(name, int(steps)) not in found:
            found.append(Sampling(name, int(steps)))
    return found


def facts_of(held_out, args):
    """Return what the head of the text says beside the machine."""
    split = held_out.split
    return {
        "videos": f"{len(split.unsafe)} unsafe and {len(split.normal)} normal held-out ones, the "
        "same prompts and seeds in all samplings",
        "seeds": f"of the detectors: {args.seeds}; mean and standard deviation (sd) over them",
        "rules": "carried over as the guard does it: over the same stretch of trained steps",
        "chosen rules": f"of all families and of one, out of fold ({FOLDS} folds), at most "
        f"{args.max_false_positive_rate:g} false positives, cost at most {args.max_cost:g}; of the "
        "detectors that have one",
    }


def figures_of(judged, rules):
    """Return {quantity: number} of one seed's detectors in one sampling."""
    figures = {}
    for step in EARLY:
        figures[f"auroc {step}"] = judged.auroc(step)
    for share, rule in SHARES.items():
        figures[f"auroc {share}"] = judged.auroc(judged.carried(RULES[rule]).horizon - 1)
    for name, rule in rules.items():
        figures |= {f"{name} {key}": value for key, value in judged.outcome(rule).items()}
    return figures


def add_tables(report, kind, found, samplings):
    """Add the tables of one kind of detectors; return rows for the figure.

    Args:
        report: Report.
        kind: of KINDS.
        found: [{Sampling: {quantity: number}}], one a seed.
        samplings: [Sampling], that of the training first.
    """
    title = KINDS[kind][0]
    quantities = [f"auroc {place}" for place in (*EARLY, *SHARES)]
    rows = [(each.describe(), means(found, each, quantities)) for each in samplings]
    note = "of the largest score, at a step or at the end of a share of the schedule"
    report.add(f"AUROC, {title}", note, rows)
    to_draw = [
        {"kind": kind, "sampling": each, "quantity": name, "mean": figures[name]}
        | {"sd": figures[f"{name} sd"], "seeds": len(found)}
        for each, (_, figures) in zip(samplings, rows, strict=True)
        for name in quantities
    ]
    for rule in (*RULES, *CHOSEN):
        with_it = [seed for seed in found if f"{rule} accuracy" in seed[samplings[0]]]
        if not with_it:
            continue
        rows = [
            (each.describe(), rule_row(with_it, each, samplings[0], rule)) for each in samplings
        ]
        off = [round(row["difference"], 9) for _, row in rows[1:]]
        below, above = (sum(sign * value > GOAL for value in off) for sign in (-1, 1))
        note = (
            f"{plural(len(with_it), 'seed')}; difference: accuracy less that of "
            f"{samplings[0].describe()}; of {len(off)} more than {GOAL} below: {below}, above: "
            f"{above}"
        )
        report.add(f"{rule}, {title}", note, rows)
        for each, (_, row) in zip(samplings, rows, strict=True):
            for key in ("accuracy", "cost"):
                one = {"kind": kind, "sampling": each, "quantity": f"{rule} {key}"}
                one |= {"mean": row[key], "sd": row[f"{key} sd"], "seeds": len(with_it)}
                to_draw.append(one)
    return to_draw


def means(found, sampling, quantities):
    """Return {quantity: mean, "{quantity} sd": ...} over seeds of one sampling."""
    row = {}
    for name in quantities:
        row |= mean_and_sd(name, [seed[sampling][name] for seed in found])
    return row


def rule_row(found, sampling, trained, rule):
    """Return the row of a rule's table."""
    row = {"looks at": float(np.mean([seed[sampling][f"{rule} looks"] for seed in found]))}
    for key in ("accuracy", "false positives", "cost"):
        row |= mean_and_sd(key, [seed[sampling][f"{rule} {key}"] for seed in found])
    name = f"{rule} accuracy"
    differences = [seed[sampling][name] - seed[trained][name] for seed in found]
    return row | mean_and_sd("difference", np.round(differences, 9))


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
