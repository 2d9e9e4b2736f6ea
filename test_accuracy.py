"""How well do the votes tell unsafe videos from normal ones? A classification report for one
(lambda, eta).

A video is unsafe when the votes of its first eta steps sum to at least lambda x eta. Classes are
balanced to the smaller one. With --table the whole grid of lambda and eta is written too, as text,
CSV and figures; with --metrics what does not depend on a threshold (AUROC, average precision) or
fixes the share of unsafe videos found.
"""

import sys
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, versions
from lvd.utils.files import atomic, save_csv, save_yaml
from lvd.voting import check_eta, exact, votes_needed

FILES = ("grid.txt", "grid.csv", "grid.png", "per_step.csv", "per_step.png", "table.yaml")
METRIC_FILES = (
    "score_metrics.txt",
    "score_metrics.csv",
    "score_metrics.png",
    "calibration.csv",
    "reliability.png",
    "score_metrics.yaml",
)
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
        help="also AUROC, average precision and false positive rate at "
        "fixed recall of votes and scores, by step, category and whole video, with bootstrap intervals",
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

    _settle(args)
    exact(args.lambda_)
    recalls(args.recall)
    if args.resamples < 100:
        raise InputError(f"--resamples {args.resamples}: at least 100 are needed for an interval")
    results, steps = report.load_results(args.data_dir)
    eta = min(20, steps) if args.eta is None else args.eta
    check_eta(eta, steps)
    videos = report.balanced(results)
    if args.unsafe_diffusion:
        found, how = (
            report.last_step(videos),
            f"Unsafe Diffusion: the vote of step {steps - 1} alone",
        )
    else:
        found = report.verdicts(videos, args.lambda_, eta)
        how = (
            f"lambda {args.lambda_}, eta {eta}: {votes_needed(args.lambda_, eta)} of the first "
            f"{eta} votes needed"
        )
    print(report.text_report(*found))
    if args.set_lambda:
        rows = [
            {"lambda": lam, "eta": eta, **report.counts(*report.verdicts(videos, lam, eta))}
            for lam in report.LAMBDAS
        ]
        for row in rows:
            print(
                "lambda {lambda:<4} eta {eta:<3} accuracy {accuracy:.4f}  TPR {tpr:.4f}  TNR "
                "{tnr:.4f}".format(**row)
            )
    folder = args.save_dir or (args.data_dir if args.data_dir.is_dir() else args.data_dir.parent)
    settings = {
        "data_dir": str(args.data_dir),
        "lambda": str(args.lambda_),
        "eta": eta,
        "unsafe_diffusion": args.unsafe_diffusion,
    }
    paths = (
        _table(report, args.data_dir, results, videos, steps, folder, settings)
        if args.table
        else []
    )
    paths += _metrics(report, args, results, steps, folder, settings) if args.metrics else []
    facts = {
        "votes": f"{len(results['1'])} unsafe and {len(results['0'])} normal videos, {steps} steps",
        "balanced": f"{len(videos) // 2} of each",
        "rule": how,
        **{name: f"{value:.4f}" for name, value in report.counts(*found).items()},
    }
    stopped = None if args.unsafe_diffusion else report.stopping_steps(videos, args.lambda_, eta)
    if stopped is not None:
        facts["unsafe ones found are decided after"] = f"{stopped:.1f} of {steps} steps on average"
    summary("accuracy on held-out videos", facts, paths)


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
    args.lambda_ = "0.6" if args.lambda_ is None else args.lambda_
    args.recall = "0.9,0.95" if args.recall is None else args.recall
    args.resamples = 1000 if args.resamples is None else args.resamples


def _table(report, data_dir, results, videos, steps, folder, settings):
    """Print and write the grid, the per-step rows and the settings; returns the paths."""
    from lvd.evaluation.figures import save_grid_figure, save_step_figure

    rows = report.grid(videos, steps)
    alone = report.per_step(videos, steps, report.load_scores(data_dir, results, steps))
    text = "\n\n".join(
        report.grid_text(rows, key, report.some_etas(steps)) for key in ("accuracy", "tpr", "tnr")
    )
    print(text)
    title = f"{len(videos) // 2} unsafe and {len(videos) // 2} normal held-out videos"
    paths = [folder / name for name in FILES]
    with atomic(paths[0]) as partial:
        partial.write_text(text + "\n")
    save_csv(rows, paths[1])
    save_grid_figure(rows, paths[2], title)
    save_csv(alone, paths[3])
    save_step_figure(alone, paths[4], title)
    save_yaml(
        {
            **settings,
            "votes_sha256": report.votes_sha256(results),
            "balance_seed": report.BALANCE_SEED,
            "lambdas": list(report.LAMBDAS),
            "etas": list(range(1, steps + 1)),
            "versions": versions(),
        },
        paths[5],
    )
    return paths


def _metrics(report, args, results, steps, folder, settings):
    """Print and write metrics of votes and scores with their intervals; returns the paths."""
    from lvd.evaluation.figures import save_metrics_figure, save_reliability_figure
    from lvd.evaluation.metrics import LEVEL, SEED, recalls
    from lvd.evaluation.score_report import report_text, score_report

    scores = report.load_scores(args.data_dir, results, steps)
    found = score_report(results, scores, steps, recalls(args.recall), args.resamples)
    text = report_text(
        found, {*ETAS, settings["eta"], steps}, {*(eta - 1 for eta in ETAS), steps - 1}
    )
    print("\n" + text)
    title = f"{len(results['1'])} unsafe and {len(results['0'])} normal held-out videos"
    paths = {name: folder / name for name in METRIC_FILES}
    with atomic(paths["score_metrics.txt"]) as partial:
        partial.write_text(text + "\n")
    save_csv(found.rows, paths["score_metrics.csv"])
    save_metrics_figure(found, paths["score_metrics.png"], title)
    save_yaml(
        {
            **settings,
            "votes_sha256": report.votes_sha256(results),
            "recall": args.recall,
            "resamples": args.resamples,
            "interval": LEVEL,
            "seed": SEED,
            "versions": versions(),
        },
        paths["score_metrics.yaml"],
    )
    if found.calibration:
        save_csv(found.calibration, paths["calibration.csv"])
        save_reliability_figure(found, paths["reliability.png"], title)
    else:
        del paths["calibration.csv"], paths["reliability.png"]
    return list(paths.values())


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
