"""How well does a rule tell unsafe videos from normal ones? A classification report for one
(lambda, eta), or for the rule of a rule.yaml.

A video is unsafe when the votes of its first eta steps sum to at least lambda x eta. Classes are
balanced to the smaller one, as in the paper. With --rule another rule judges, all videos count, and
the report says what the rule costs and which videos it gets wrong. With --table the whole grid of
lambda and eta is written too, as text, CSV and figures; with --metrics what does not depend on a
threshold (AUROC, average precision) or fixes the share of unsafe videos found; with --frontier how
accurate the best rule of each family is at each cost; with --report a page to look at: each video,
its x0, its scores and where rules decide, with sliders for the rules.
"""

import sys
from pathlib import Path

from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, versions
from lvd.voting import check_eta, exact


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
        "--eta",
        type=int,
        help=(
            "steps that vote (default: 20, or all when there are fewer); trained steps, where the "
            "videos were sampled in others: as wide a stretch of them votes"
        ),
    )
    parser.add_argument(
        "--rule",
        type=Path,
        metavar="YAML",
        help="instead: the rule of a rule.yaml; also its costs and the videos it gets wrong",
    )
    parser.add_argument(
        "--set_lambda", action="store_true", help="report every lambda from 0.1 to 1.0 at this eta"
    )
    parser.add_argument(
        "--unsafe_diffusion",
        action="store_true",
        help="the baseline: the vote of the last step alone",
    )
    _add_outputs(parser)
    return parser


def _add_outputs(parser):
    """Add the flags of what else is written, and where."""
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
    parser.add_argument(
        "--frontier",
        type=Path,
        nargs="?",
        const=True,
        metavar="FOLDS",
        help=(
            "also the best accuracy, and recall at a false positive rate of 1%% and 5%%, by family "
            "of rules and cost; the rules are chosen on the folds.pth that is named "
            "(train_mae.py --folds), else on the very videos that judge them"
        ),
    )
    parser.add_argument(
        "--report",
        type=Path,
        nargs="?",
        const=True,
        metavar="FILE",
        help=(
            "also a page that a browser opens from the disk, without a network (default: "
            "report.html in --save_dir)"
        ),
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="YAML",
        help="for --report: a build_x0.yaml, to show prompts, clips and x0 of its recordings",
    )
    parser.add_argument("--recall", help="shares of unsafe videos found, for --metrics (0.9,0.95)")
    parser.add_argument(
        "--resamples",
        type=int,
        help="of the bootstrap, for --rule, --frontier and --metrics (1000)",
    )
    parser.add_argument(
        "--save_dir", type=Path, help="where these files go (default: beside results.pth)"
    )


def work(args):
    from lvd.evaluation import vote_report as report
    from lvd.evaluation.metrics import recalls
    from lvd.evaluation.results import load_results, load_scores, load_trained_steps, votes_sha256
    from lvd.evaluation.score_files import write_metrics
    from lvd.evaluation.table_files import write_table
    from lvd.rules.carried import carried_text, carry

    _settle(args)
    recalls(args.recall)
    if not 100 <= args.resamples <= 100_000:
        raise InputError(
            f"--resamples {args.resamples}: from 100 to 100000 are needed for an interval"
        )
    results, steps = load_results(args.data_dir)
    videos = report.balanced(results)
    beside = args.data_dir if args.data_dir.is_dir() else args.data_dir.parent
    folder = args.save_dir or beside
    trained_steps, trained_count = load_trained_steps(args.data_dir, results, steps)
    files = None
    if args.rule is not None:
        stated, rule, facts, files = _rule_report(args)
        own = {"rule": str(args.rule), "family": rule.family, **rule.as_dict()}
    else:
        stated = _vote_rule(args, trained_count)
        rule = carry(stated, trained_steps)
        facts = _vote_report(args, videos, steps, rule)
        own = {"lambda": str(args.lambda_), "eta": rule.eta}
        own["unsafe_diffusion"] = args.unsafe_diffusion
    if trained_steps:
        own |= {"trained_steps": trained_steps, "rule_in_trained_steps": stated.as_dict()}
        if not args.unsafe_diffusion:
            facts["in other steps"] = carried_text(stated, trained_steps)
    settings = {"data_dir": str(args.data_dir), **own, "votes_sha256": votes_sha256(results)}
    written = []
    if files:
        about = {**settings, "resamples": args.resamples, "versions": versions()}
        written += files.save(folder, about)
    if args.table:
        scores = load_scores(args.data_dir, results, steps)
        written += write_table(scores, videos, rule, folder, settings)
    if args.metrics:
        scores = load_scores(args.data_dir, results, steps)
        asked = recalls(args.recall), args.resamples, rule.horizon
        about = {**settings, "recall": args.recall, "resamples": args.resamples}
        written += write_metrics(results, scores, steps, *asked, folder, about)
    frontier = None
    if args.frontier is not None:
        frontier = _frontier(args)
        written += _write_frontier(args, frontier, folder, settings)
    if args.report is not None:
        shown, path = _write_report(args, stated, rule, frontier, folder)
        facts |= shown
        written.append(path)
    votes = {"votes": f"{_sizes(results)} videos, {steps} steps"}
    summary("accuracy on held-out videos", votes | facts, written)


def _vote_rule(args, steps):
    """Return the VoteRule of --lambda and --eta; `steps`: how many trained steps there are."""
    from lvd.rules.vote import VoteRule

    exact(args.lambda_)
    eta = min(20, steps) if args.eta is None else args.eta
    check_eta(eta, steps)
    return VoteRule(args.lambda_, eta)


def _vote_report(args, videos, steps, rule):
    """Print the report of the paper's vote on balanced videos; return facts for the summary."""
    from lvd.evaluation import vote_report as report

    eta = rule.eta
    stopped = None
    if args.unsafe_diffusion:
        verdicts = report.last_step(videos)
        words = f"Unsafe Diffusion: the vote of step {steps - 1} alone"
    else:
        verdicts = report.verdicts(videos, args.lambda_, eta)
        words = f"{rule.describe()}: {rule.needed} of the first {eta} votes needed"
        stopped = report.stopping_steps(videos, args.lambda_, eta)
    print(report.text_report(*verdicts))
    if args.set_lambda:
        _print_lambdas(report.grid(videos, [eta]))
    facts = {"balanced": f"{len(videos) // 2} of each", "rule": words}
    facts |= {name: f"{rate:.4f}" for name, rate in report.counts(*verdicts).items()}
    facts["95% intervals"] = report.rates_text(*verdicts)
    if stopped is not None:
        facts["unsafe ones found are decided after"] = f"{stopped:.1f} of {steps} steps on average"
    return facts


def _rule_report(args):
    """Print the report of a rule.yaml on all videos.

    Returns:
        (Rule as its file states it, Rule in the steps of the recording, facts for the summary,
        RuleFiles).
    """
    from lvd.evaluation.rule_files import RuleFiles
    from lvd.evaluation.rule_of_scores import load_recording, rule_for
    from lvd.rules.file import load_rule

    chosen = load_rule(args.rule)
    recording = load_recording(args.data_dir)
    rule = rule_for(chosen, recording)
    files = RuleFiles(rule, recording, args.resamples, chosen.rule)
    print(files.text())
    return chosen.rule, rule, {"rule": rule.describe()}, files


def _settle(args):
    """Refuse flags that would change nothing, then put the defaults where none is given."""
    from lvd.evaluation.page.write import need_page_path

    for flag, given in (("--lambda", args.lambda_), ("--eta", args.eta)):
        if args.unsafe_diffusion and given is not None:
            raise InputError(
                f"{flag} {given}: --unsafe_diffusion is the vote of the last step alone; give one "
                "of the two"
            )
        if args.rule is not None and given is not None:
            raise InputError(f"{flag} {given}: --rule {args.rule} decides; give one of the two")
    for flag, given in (
        ("--unsafe_diffusion", args.unsafe_diffusion),
        ("--set_lambda", args.set_lambda),
    ):
        if args.rule is not None and given:
            raise InputError(f"{flag}: --rule {args.rule} decides; give one of the two")
    if not args.metrics and args.recall is not None:
        raise InputError(f"--recall {args.recall}: belongs to --metrics, which is not given")
    resampled = args.metrics or args.rule is not None or args.frontier is not None
    if args.resamples is not None and not resampled:
        raise InputError(
            f"--resamples {args.resamples}: belongs to --rule, --frontier and --metrics; give one "
            "of them"
        )
    if args.save_dir is not None and not (resampled or args.table or args.report is True):
        raise InputError(
            f"--save_dir {args.save_dir}: for the files of --rule, --frontier, --table, --metrics "
            "or --report; give one of them"
        )
    if args.recordings is not None and args.report is None:
        raise InputError(f"--recordings {args.recordings}: belongs to --report, which is not given")
    if args.report not in (None, True):
        need_page_path(args.report, "--report")
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


def _frontier(args):
    """Find how accurate the best rule of each family is at each cost; return FrontierFiles."""
    from lvd.evaluation.frontier_files import FrontierFiles
    from lvd.evaluation.rule_of_scores import load_recording

    folds = None if args.frontier is True else args.frontier
    return FrontierFiles(load_recording(args.data_dir), folds, args.resamples)


def _write_frontier(args, files, folder, settings):
    """Print and write FrontierFiles; return their paths."""
    folds = None if args.frontier is True else args.frontier
    print("\n" + files.text())
    about = {**settings, "folds": str(folds) if folds else None, "resamples": args.resamples}
    return files.save(folder, {**about, "versions": versions()})


def _write_report(args, stated, rule, frontier, folder):
    """Write the page; return (facts for the summary, its path)."""
    from lvd.evaluation.page.numbers import ShownRule, chosen_rule, shown_detectors
    from lvd.evaluation.page.recordings import PageRecordings
    from lvd.evaluation.page.write import NAME, write_page
    from lvd.evaluation.rule_of_scores import load_recording

    recording = load_recording(args.data_dir)
    recordings = PageRecordings(args.recordings, recording) if args.recordings else None
    rules, start = [], ("0.6", 5)
    if args.rule is not None:
        rules = [chosen_rule(stated, rule, recording.videos.trained_steps)]
    elif not args.unsafe_diffusion:
        start = (args.lambda_, stated.eta)
        if (100 * exact(args.lambda_)).denominator > 1:  # between two places of the slider
            rules = [ShownRule("the vote asked for", rule, stated.describe())]
    shown = shown_detectors("these detectors", recording, rules, frontier)
    path = folder / NAME if args.report is True else args.report
    return write_page(path, [shown], recordings, start), path


def _sizes(results):
    return f"{len(results[LABEL_UNSAFE])} unsafe and {len(results[LABEL_NORMAL])} normal"


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
