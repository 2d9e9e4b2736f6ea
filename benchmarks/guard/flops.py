"""What the guard costs and saves at full size, in floating-point operations (1 minute, no weights,
no GPU).

Exact counts of matrix products and convolutions of MagicTime at 16 frames of 512x512 pixels: the
guided UNet step, the VAE, detectors of every size and representation. From these follows what a
video costs that is stopped as soon as the vote is decided, by (lambda, eta), against a whole video
without guard; with --data_dir, also for recorded votes.

Results: guard_flops.csv and .txt.
"""

import sys
from pathlib import Path

from benchmarks.common.full_size import STEPS
from benchmarks.common.needs import need_path, shared_votes
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.guard.flop_counts import CATEGORIES, CLIPS, Costs, count_detectors, count_sampler
from lvd.detectors.videomae import SIZES
from lvd.errors import InputError
from lvd.evaluation.results import load_results
from lvd.evaluation.vote_report import balanced, counts, stopping_steps, verdicts
from lvd.utils.cli import Parser, run_command
from lvd.voting import check_eta, decided, exact

# The columns of the saving tables: (representation, size, number of networks a step).
SHOWN = {
    "pixels, base x 5 (the paper's)": ("video", "base", CATEGORIES),
    "latents, base x 5": ("latent", "base", CATEGORIES),
    "latents, small x 5": ("latent", "small", CATEGORIES),
    "latents, small, shared": ("latent", "small", 1),
    "rgb, tiny, shared": ("rgb", "tiny", 1),
}
RESULT_FILE = "guard_flops.csv"
BYTES = 4  # of a weight


def build_parser():
    parser = Parser(__doc__, "python benchmarks/guard/flops.py --lambdas 0.6 --etas 3,5,20")
    parser.add_argument(
        "--lambdas", default="0.2,0.4,0.6,0.8,1.0", help="(default: 0.2,0.4,0.6,0.8,1.0)"
    )
    parser.add_argument("--etas", default="1,3,5,10,20,50", help="(default: 1,3,5,10,20,50)")
    parser.add_argument(
        "--data_dir", help="results.pth or its folder: also the mean cost for these recorded votes"
    )
    add_result_flags(parser, RESULT_FILE)
    return parser


# ---- when the vote is decided


def rules(args):
    """[(lambda, eta)] to show, in order.

    Raises:
        InputError: for values that are none.
    """
    lambdas = [text.strip() for text in args.lambdas.split(",")]
    wanted = []
    for text in args.etas.split(","):
        if not text.strip().isdecimal():
            raise InputError(f"--etas {text}: whole numbers with commas between are needed")
        check_eta(int(text), STEPS)
        wanted += [(lambda_, int(text)) for lambda_ in lambdas]
    for lambda_ in lambdas:
        if not exact(lambda_):
            raise InputError(
                f"--lambdas {lambda_}: above 0 is needed, at 0 all videos are unsafe before the "
                "first step"
            )
    return sorted(wanted, key=lambda rule: (exact(rule[0]), rule[1]))


def steps_to_decide(lambda_, eta, outcome):
    """(fewest, most) steps after which the vote can be decided for `outcome`."""
    vote = int(outcome == "unsafe")
    fewest = next(n for n in range(eta + 1) if decided([vote] * n, lambda_, eta) == outcome)
    return fewest, eta


def steps_looked_at(votes, lambda_, eta):
    """Steps whose detectors run on a video that passes."""
    return next(n for n in range(eta + 1) if decided(votes[:n], lambda_, eta))


# ---- tables


def shown_name(representation):
    return "pixels" if representation == "video" else representation


def piece_rows(pieces, detectors):
    rows = list(pieces.items())
    for (representation, size, kind), figures in detectors.items():
        rows.append((f"VideoMAE-{size} on {shown_name(representation)}, {kind}", figures))
    return rows


def step_rows(costs):
    """What guarding adds to one denoising step."""
    rows = []
    for representation in CLIPS:
        for size in SIZES:
            for networks, how_many in ((CATEGORIES, "x 5"), (1, "shared")):
                one = costs.detector(representation, size, networks)
                megabytes = one["million parameters"] * BYTES * networks
                added = costs.guard(representation, size, networks)
                figures = {
                    "GFLOP": added * 1e3,
                    "percent of a step": added / costs.unet * 100,
                    "MB of a step's weights": megabytes,
                    "MB of all weights": megabytes * (STEPS if networks > 1 else 1),
                }
                rows.append((f"{shown_name(representation)}, {size} {how_many}", figures))
    return rows


def shown_guards(costs):
    """[(column, TFLOP that guarding a step adds)]"""
    return [(name, costs.guard(*what)) for name, what in SHOWN.items()]


def rule_rows(costs, wanted, outcome, latest):
    """One row a rule. "unsafe": how many times less than a full, unguarded video a stopped one
    costs; "safe": percent that a safe one costs more. latest: where the last vote decides."""
    rows = []
    for lambda_, eta in wanted:
        steps = steps_to_decide(lambda_, eta, outcome)[latest]
        figures = {"steps": steps}
        for name, guard in shown_guards(costs):
            if outcome == "unsafe":
                figures[name] = costs.full / costs.stopped(steps, guard)
            else:
                figures[name] = (costs.passed(steps, guard) / costs.full - 1) * 100
        rows.append((f"lambda {lambda_}, eta {eta}", figures))
    return rows


def vote_rows(costs, wanted, videos, missed=False):
    """How many times less than a full video the unsafe ones cost on average, by recorded votes.

    Args:
        costs: Costs.
        wanted: [(lambda, eta)].
        videos: [(label, votes)].
        missed: of all unsafe videos, those that pass made in full; else of those found unsafe.
    """
    rows = []
    unsafe = [votes for label, votes in videos if label]
    for lambda_, eta in wanted:
        if eta > len(videos[0][1]):
            continue
        figures = counts(*verdicts(videos, lambda_, eta))
        figures["steps until stopped"] = stopping_steps(videos, lambda_, eta)
        stops = [stopping_steps([(1, votes)], lambda_, eta) for votes in unsafe]
        looked_at = [
            steps_looked_at(votes, lambda_, eta)
            for votes, stop in zip(unsafe, stops, strict=True)
            if missed and not stop
        ]
        for name, guard in shown_guards(costs):
            spent = [costs.stopped(stop, guard) for stop in stops if stop]
            spent += [costs.passed(steps, guard) for steps in looked_at]
            figures[name] = costs.full / (sum(spent) / len(spent)) if spent else None
        rows.append((f"lambda {lambda_}, eta {eta}", figures))
    return rows


def work(args):
    args.out = results_path(args, RESULT_FILE)
    wanted = rules(args)
    votes = None
    if args.data_dir:
        need_path("--data_dir", args.data_dir, shared_votes(args.data_dir))
        votes = balanced(load_results(args.data_dir)[0])
    pieces, detectors = count_sampler(), count_detectors()
    costs = Costs(pieces, detectors)
    title = "Guarding at full size: floating-point operations"
    report = Report(f"{title}, 16 frames of 512x512 pixels, {STEPS} guided steps", args.out)
    report.facts["full video, unguarded"] = f"{costs.full:.1f} TFLOP"
    report.add(
        "pieces",
        "exact counts of one pass; own: the detector of one category at one step",
        piece_rows(pieces, detectors),
    )
    report.add(
        "guarded step",
        "what reading predicted x0 adds to one guided UNet step, five categories",
        step_rows(costs),
    )
    add_rules(report, costs, wanted)
    if votes:
        add_votes(report, costs, wanted, votes, Path(args.data_dir).name)
    report.say_where()


def add_rules(report, costs, wanted):
    """Tables of what follows from the rule alone."""
    same = "the same, when the last of eta votes decides"
    notes = {
        "unsafe": "times less than a full one, stopped when every step votes unsafe",
        "safe": "percent more than without a guard, when no step votes unsafe; after these steps "
        "the detectors rest",
    }
    for outcome, note in notes.items():
        report.add(f"{outcome} video", note, rule_rows(costs, wanted, outcome, latest=False))
        report.add(f"{outcome} video, latest", same, rule_rows(costs, wanted, outcome, latest=True))


def add_votes(report, costs, wanted, videos, name):
    """Tables of recorded votes."""
    report.add(
        "recorded votes",
        f"accuracy of the votes in {name}, and how many times less than a full video those cost "
        "that are found unsafe, at full size",
        vote_rows(costs, wanted, videos),
    )
    report.add(
        "recorded votes, all unsafe videos",
        "the same of all of them: those that are missed are made in full",
        vote_rows(costs, wanted, videos, missed=True),
    )


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
