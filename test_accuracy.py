"""How well do the votes tell unsafe videos from normal ones? A classification report for one
(lambda, eta).

A video is unsafe when the votes of its first eta steps sum to at least lambda x eta. Classes are
balanced to the smaller one. With --table the whole grid of lambda and eta is written too, as text,
CSV and figures; with --metrics what does not depend on a threshold (AUROC, average precision) or
fixes the share of unsafe videos found.
"""

import sys
from pathlib import Path

from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, versions
from lvd.utils.files import save_yaml
from lvd.utils.partials import atomic
from lvd.voting import check_eta, exact, votes_needed

ETAS = (1, 3, 5, 10, 20)  # those printed; score_metrics.csv holds all


def build_parser():
    parser = Parser(
        __doc__,
        "python test_accuracy.py --data_dir MagicTime/results --lambda 0.6 --eta 20 --table",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=ROOT / "MagicTime" / "results",
        help="results.pth or its folder",
    )
    parser.add_argument(
        "--lambda", dest="lambda_", metavar="LAMBDA", help="votes needed, as a share (0.6)"
    )
    parser.add_argument(
        "--eta", type=int, help="steps that vote (default: 20, or all when there are fewer)"
    )
    parser.add_argument(
        "--set_lambda", action="store_true", help="report every lambda from 0.1 to 1.0 at this eta"
    )
    parser.add_argument(
        "--unsafe_diffusion",
        action="store_true",
        help="the baseline: the vote of the last step alone",
    )
    parser.add_argument(
        "--table", action="store_true", help="also the whole (lambda, eta) grid and every step"
    )
    parser.add_argument(
        "--metrics",
        action="store_true",
        help=(
            "also AUROC, average precision and false positive rate at fixed recall of votes and "
            "scores, by step, category and whole video, with bootstrap intervals"
        ),
    )
    parser.add_argument("--recall", help="shares of unsafe videos found, for --metrics (0.9,0.95)")
    parser.add_argument("--resamples", type=int, help="of the bootstrap, for --metrics (1000)")
    parser.add_argument(
        "--save_dir", type=Path, help="where these files go (default: beside results.pth)"
    )
    return parser


def work(args):
    from lvd.evaluation import vote_report as report
    from lvd.evaluation.metrics import recalls
    from lvd.evaluation.results import load_results, votes_sha256

    _settle(args)
    exact(args.lambda_)
    recalls(args.recall)
    if not 100 <= args.resamples <= 100_000:
        raise InputError(
            f"--resamples {args.resamples}: from 100 to 100000 are needed for an interval"
        )
    results, steps = load_results(args.data_dir)
    eta = min(20, steps) if args.eta is None else args.eta
    check_eta(eta, steps)
    videos = report.balanced(results)
    if args.unsafe_diffusion:
        verdicts = report.last_step(videos)
        rule = f"Unsafe Diffusion: the vote of step {steps - 1} alone"
        stopped = None
    else:
        verdicts = report.verdicts(videos, args.lambda_, eta)
        needed = votes_needed(args.lambda_, eta)
        rule = f"lambda {args.lambda_}, eta {eta}: {needed} of the first {eta} votes needed"
        stopped = report.stopping_steps(videos, args.lambda_, eta)
    print(report.text_report(*verdicts))
    if args.set_lambda:
        _print_lambdas(report.grid(videos, [eta]))
    beside = args.data_dir if args.data_dir.is_dir() else args.data_dir.parent
    folder = args.save_dir or beside
    settings = {
        "data_dir": str(args.data_dir),
        "lambda": str(args.lambda_),
        "eta": eta,
        "unsafe_diffusion": args.unsafe_diffusion,
        "votes_sha256": votes_sha256(results),
    }
    written = []
    if args.table:
        written += _write_table(args.data_dir, results, videos, steps, folder, settings)
    if args.metrics:
        written += _write_metrics(args, results, steps, folder, settings)
    facts = {
        "votes": f"{_sizes(results)} videos, {steps} steps",
        "balanced": f"{len(videos) // 2} of each",
        "rule": rule,
    }
    for name, rate in report.counts(*verdicts).items():
        facts[name] = f"{rate:.4f}"
    if stopped is not None:
        facts["unsafe ones found are decided after"] = f"{stopped:.1f} of {steps} steps on average"
    summary("accuracy on held-out videos", facts, written)


def _settle(args):
    """Refuse flags that would change nothing, then put the defaults where none is given."""
    for flag, given in (("--lambda", args.lambda_), ("--eta", args.eta)):
        if args.unsafe_diffusion and given is not None:
            raise InputError(
                f"{flag} {given}: --unsafe_diffusion is the vote of the last step alone; give one "
                "of the two"
            )
    for flag, given in (("--recall", args.recall), ("--resamples", args.resamples)):
        if not args.metrics and given is not None:
            raise InputError(f"{flag} {given}: belongs to --metrics, which is not given")
    if args.save_dir is not None and not (args.table or args.metrics):
        raise InputError(
            f"--save_dir {args.save_dir}: for the files of --table or --metrics; give one of them"
        )
    args.lambda_ = "0.6" if args.lambda_ is None else args.lambda_
    args.recall = "0.9,0.95" if args.recall is None else args.recall
    args.resamples = 1000 if args.resamples is None else args.resamples


def _print_lambdas(table):
    """Print one line for each lambda of a `grid`."""
    for line in table.to_dict("records"):
        print(
            "lambda {lambda:<4} eta {eta:<3} accuracy {accuracy:.4f}  TPR {tpr:.4f}  TNR "
            "{tnr:.4f}".format(**line)
        )


def _write_table(data_dir, results, videos, steps, folder, settings):
    """Print and write the grid, the per-step table and the settings; return the paths."""
    from lvd.evaluation import vote_report as report
    from lvd.evaluation.figures import save_grid_figure, save_step_figure
    from lvd.evaluation.results import load_scores
    from lvd.evaluation.tables import save_table
    from lvd.utils.plots import drawn

    etas = list(range(1, steps + 1))
    grid = report.grid(videos, etas)
    scores = load_scores(data_dir, results, steps)
    per_step = report.per_step(videos, steps, scores)
    shown = report.some_etas(steps)
    text = "\n\n".join(report.grid_text(grid, name, shown) for name in ("accuracy", "tpr", "tnr"))
    print(text)
    title = f"{len(videos) // 2} unsafe and {len(videos) // 2} normal held-out videos"
    _write_text(text, folder / "grid.txt")
    save_table(grid, folder / "grid.csv")
    save_table(per_step, folder / "per_step.csv")
    about = {
        **settings,
        "balance_seed": report.BALANCE_SEED,
        "lambdas": list(report.LAMBDAS),
        "etas": etas,
        "versions": versions(),
    }
    save_yaml(about, folder / "table.yaml")
    names = ("grid.txt", "grid.csv", "per_step.csv", "table.yaml")
    return [
        *_write_naming(scores, settings, folder),
        *(folder / name for name in names),
        *drawn(save_grid_figure, grid, folder / "grid.png", title),
        *drawn(save_step_figure, per_step, folder / "per_step.png", title),
    ]


def _write_naming(scores, settings, folder):
    """Print and write how the unsafe videos are named that the rule finds; return the paths."""
    from lvd.evaluation.naming import naming_tables
    from lvd.evaluation.tables import save_table
    from lvd.rules.vote import VoteRule

    if not scores or settings["unsafe_diffusion"]:
        return []
    naming = naming_tables(scores, VoteRule(settings["lambda"], settings["eta"]))
    if naming is None:
        return []
    print("\n" + naming.text)
    _write_text(naming.text, folder / "naming.txt")
    save_table(naming.table, folder / "naming.csv")
    return [folder / "naming.txt", folder / "naming.csv"]


def _write_metrics(args, results, steps, folder, settings):
    """Print and write metrics of votes and scores with their intervals; return the paths."""
    from lvd.evaluation.figures import save_metrics_figure, save_reliability_figure
    from lvd.evaluation.metrics import LEVEL, SEED, recalls
    from lvd.evaluation.results import load_scores
    from lvd.evaluation.score_report import score_report
    from lvd.evaluation.score_text import report_text
    from lvd.evaluation.tables import save_table
    from lvd.utils.plots import drawn

    scores = load_scores(args.data_dir, results, steps)
    report = score_report(results, scores, steps, recalls(args.recall), args.resamples)
    shown_etas = {*ETAS, settings["eta"], steps}
    shown_steps = {*(eta - 1 for eta in ETAS), steps - 1}
    text = report_text(report, shown_etas, shown_steps)
    print("\n" + text)
    title = f"{_sizes(results)} held-out videos"
    _write_text(text, folder / "score_metrics.txt")
    save_table(report.metrics, folder / "score_metrics.csv")
    names = ["score_metrics.txt", "score_metrics.csv"]
    if len(report.calibration):
        save_table(report.calibration, folder / "calibration.csv")
        names.append("calibration.csv")
    about = {
        **settings,
        "recall": args.recall,
        "resamples": args.resamples,
        "interval": LEVEL,
        "seed": SEED,
        "versions": versions(),
    }
    save_yaml(about, folder / "score_metrics.yaml")
    written = [folder / name for name in (*names, "score_metrics.yaml")]
    written += drawn(save_metrics_figure, report, folder / "score_metrics.png", title)
    if len(report.calibration):
        written += drawn(save_reliability_figure, report, folder / "reliability.png", title)
    return written


def _sizes(results):
    return f"{len(results[LABEL_UNSAFE])} unsafe and {len(results[LABEL_NORMAL])} normal"


def _write_text(text, path):
    with atomic(path) as partial:
        partial.write_text(text + "\n")


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
