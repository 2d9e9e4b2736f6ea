"""What the guard costs and saves at full size, in floating-point operations (1 minute, no weights,
no GPU).

Exact counts of matrix products and convolutions of MagicTime at 16 frames of 512x512 pixels: the
guided UNet step, the VAE, detectors of every size and representation. From these follows what a
video costs that is stopped as soon as the vote is decided, by (lambda, eta), against a whole video
without guard; with --data_dir, also for recorded votes. With --rule the rule of a rule.yaml stands
beside the votes.

Results: guard_flops.csv and .txt.
"""

import sys
from pathlib import Path

from benchmarks.common.full_size import STEPS
from benchmarks.common.needs import need_path, shared_votes
from benchmarks.common.rates import FROM_TO
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.guard.flop_counts import CATEGORIES, CLIPS, Costs, count_detectors, count_sampler
from benchmarks.guard.recorded_costs import recorded_rows
from lvd.detectors.videomae import SIZES
from lvd.errors import InputError
from lvd.evaluation.rule_of_scores import (
    load_recording,
    need_trained_steps,
    rule_for,
    videos_of_votes,
)
from lvd.evaluation.vote_report import balanced_rows
from lvd.rules.file import load_rule
from lvd.rules.vote import VoteRule
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
    parser.add_argument("--rule", type=Path, metavar="YAML", help="also the rule of a rule.yaml")
    add_result_flags(parser, RESULT_FILE)
    return parser


# ---- when the vote is decided


def votes_of(args):
    """[VoteRule] to show, in order.

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
    wanted.sort(key=lambda rule: (exact(rule[0]), rule[1]))
    return [VoteRule(lambda_, eta) for lambda_, eta in wanted]


def steps_to_decide(rule, outcome):
    """(fewest, most) steps after which a rule can be certain of `outcome`."""
    if not isinstance(rule, VoteRule):
        return (1 if outcome == "unsafe" else rule.horizon), rule.horizon
    vote, eta = int(outcome == "unsafe"), rule.eta
    fewest = next(n for n in range(eta + 1) if decided([vote] * n, rule.lambda_, eta) == outcome)
    return fewest, eta


def name_of(rule):
    """What the tables call a rule: one with many bounds would take the whole line."""
    is_vote = isinstance(rule, VoteRule)
    return rule.describe() if is_vote else f"{rule.family}, horizon {rule.horizon}"


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
    costs; "safe": percent that a safe one costs more. latest: where the last step decides."""
    rows = []
    for rule in wanted:
        steps = steps_to_decide(rule, outcome)[latest]
        figures = {"steps": steps}
        for name, guard in shown_guards(costs):
            if outcome == "unsafe":
                figures[name] = costs.full / costs.stopped(steps, guard)
            else:
                figures[name] = (costs.passed(steps, guard) / costs.full - 1) * 100
        rows.append((name_of(rule), figures))
    return rows


def work(args):
    args.out = results_path(args, RESULT_FILE)
    wanted = votes_of(args)
    chosen = load_rule(args.rule) if args.rule else None
    recording = None
    if args.data_dir:
        need_path("--data_dir", args.data_dir, shared_votes(args.data_dir))
        recording = load_recording(args.data_dir)
        need_trained_steps(recording)
    rule = chosen and (rule_for(chosen, recording) if recording else chosen.rule)
    pieces, detectors = count_sampler(), count_detectors()
    costs = Costs(pieces, detectors)
    title = "Guarding at full size: floating-point operations"
    report = Report(f"{title}, 16 frames of 512x512 pixels, {STEPS} guided steps", args.out)
    report.facts["full video, unguarded"] = f"{costs.full:.1f} TFLOP"
    if rule:
        report.facts["rule"] = rule.describe()
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
    add_rules(report, costs, [*wanted, rule] if rule else wanted)
    if recording:
        add_votes(report, costs, wanted, recording)
    if recording and rule:
        add_recorded_rule(report, costs, rule, recording)
    report.say_where()


def add_rules(report, costs, wanted):
    """Tables of what follows from the rule alone."""
    same = "the same, when the last of eta votes, or of the horizon's steps, decides"
    notes = {
        "unsafe": "times less than a full one, stopped when every step says unsafe",
        "safe": "percent more than without a guard, when no step says unsafe; after these steps "
        "the detectors rest",
    }
    for outcome, note in notes.items():
        report.add(f"{outcome} video", note, rule_rows(costs, wanted, outcome, latest=False))
        report.add(f"{outcome} video, latest", same, rule_rows(costs, wanted, outcome, latest=True))


def add_votes(report, costs, wanted, recording):
    """Tables of recorded votes, classes balanced."""
    name = recording.path.parent.name
    videos = videos_of_votes(recording.results, balanced_rows(recording.results))
    named = [(name_of(rule), rule) for rule in wanted if rule.eta <= recording.steps]
    report.add(
        "recorded votes",
        f"accuracy of the votes in {name} ({FROM_TO}), and how many times less than a full video "
        "those cost that are found unsafe, at full size",
        recorded_rows(costs, shown_guards(costs), named, videos),
    )
    report.add(
        "recorded votes, all unsafe videos",
        "the same of all of them: those that are missed are made in full",
        recorded_rows(costs, shown_guards(costs), named, videos, missed=True),
    )


def add_recorded_rule(report, costs, rule, recording):
    """The table of the rule of a rule.yaml, on all recorded videos."""
    rows = []
    for missed, which in ((False, "found unsafe"), (True, "all unsafe")):
        named = [(f"{name_of(rule)}: {which}", rule)]
        rows += recorded_rows(costs, shown_guards(costs), named, recording.videos, missed)
    videos = recording.videos.is_unsafe
    report.add(
        "recorded scores, by the rule",
        f"all {videos.sum()} unsafe and {(~videos).sum()} normal videos, classes not balanced; how "
        "many times less than a full video the unsafe ones cost, those that are missed in full",
        rows,
    )


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
