"""Choose the rule by which the guard stops a video: the best one within limits on false positives
and on cost. It is written as rule.yaml beside the detectors, where the guard finds it.

The scores must be out of fold: of the training videos, each by detectors that never saw it, as
train_mae.py --folds writes them. Held-out videos are left to test the rule. With the confidence
that is given, the written rule stops at most the given share of normal videos like those it was
chosen on. Where so few videos cannot promise this, nothing is written, and the error says how many
are needed (docs/rules.md).
"""

import sys
from pathlib import Path

from lvd.errors import InputError, typed
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT

SMALLEST = 1e-6  # false positive rate, and how often the promise may be broken


def build_parser():
    parser = Parser(
        __doc__,
        "python choose_rule.py --scores MagicTime/detectors/folds.pth --model_dir "
        "MagicTime/detectors --max_false_positive_rate 0.05 --max_cost 0.0625 --confidence 0.95",
    )
    parser.add_argument(
        "--scores", type=Path, help="folds.pth of train_mae.py --folds (default: --model_dir's)"
    )
    parser.add_argument(
        "--model_dir",
        type=Path,
        default=ROOT / "MagicTime" / "detectors",
        help="detectors that the rule is for, a folder or shared.pth",
    )
    parser.add_argument(
        "--max_false_positive_rate",
        type=float,
        default=0.05,
        help="share of normal videos that may be stopped (0.05)",
    )
    parser.add_argument(
        "--max_cost",
        type=float,
        default=0.0625,
        help="share of the steps that an unsafe video may take, on average over all of them, those "
        "that are missed counted in full (0.0625)",
    )
    parser.add_argument(
        "--confidence", type=float, default=0.95, help="of the false positive rate (0.95)"
    )
    parser.add_argument(
        "--best",
        choices=("accuracy", "recall"),
        default="accuracy",
        help="what the written rule has the most of, among those within the limits (accuracy)",
    )
    parser.add_argument(
        "--families",
        help="kinds of rules that are tried: fewer of them leave more room for false positives "
        "(default: confidence,vote,likelihood_ratio; vote alone without calibration)",
    )
    parser.add_argument(
        "--not_out_of_fold",
        action="store_true",
        help="take scores.pth of videos that no detector was trained on; they can't test the rule "
        "any more",
    )
    parser.add_argument(
        "--save_path", type=Path, help="of the rule (default: rule.yaml beside the detectors)"
    )
    return parser


def work(args):
    from lvd.evaluation.choosing import text
    from lvd.evaluation.choosing.candidates import sequences_of
    from lvd.evaluation.choosing.output import save_choice
    from lvd.evaluation.choosing.select import Limits, select
    from lvd.evaluation.choosing.source import load_source
    from lvd.evaluation.choosing.stops import measure
    from lvd.evaluation.results import FOLDS
    from lvd.rules.choice import rule_beside
    from lvd.utils.progress import progress

    _check_shares(args)
    limits = Limits(args.max_false_positive_rate, args.max_cost, args.confidence, args.best)
    beside = rule_beside(args.model_dir)
    path = args.scores or beside.with_name(FOLDS)
    save_path = args.save_path or beside
    if save_path.is_dir():
        raise InputError(
            f"--save_path {save_path}: is a folder; a file such as rule.yaml is needed"
        )
    asked = _families(args.families)
    source = load_source(path, args.model_dir, args.not_out_of_fold)
    families = _possible(asked, source, args)
    sequences = sequences_of(source.videos, source.categories, families)
    measured = [
        measure(sequence, source.videos) for sequence in progress(sequences, "rules", "sequence")
    ]
    choice = select(measured, limits)
    if choice.chosen is None:
        raise InputError(text.nothing_text(measured, choice, limits))
    print(text.table_text(choice, limits))
    print("\n" + text.why_text(choice, limits))
    print("\n" + text.promise_text(choice, limits, source.about))
    settings = {
        "scores": str(path),
        "model_dir": str(args.model_dir),
        "families": list(families),
        "not_out_of_fold": args.not_out_of_fold,
    }
    written = save_choice(choice, limits, source, settings, save_path)
    about = source.about
    facts = {
        "videos": f"{about['unsafe']} unsafe and {about['normal']} normal, of {path}",
        "rule": choice.chosen.rule.describe(),
    }
    summary("rule chosen", facts, written)


def _check_shares(args):
    for flag in ("max_false_positive_rate", "confidence", "max_cost"):
        value = getattr(args, flag)
        above = value == 1 and flag == "max_cost"
        if not (0 < value < 1 or above):
            raise InputError(f"--{flag} {value:g}: a number between 0 and 1 is needed")
    for flag, value, needed in (
        ("max_false_positive_rate", args.max_false_positive_rate, f"at least {SMALLEST:g}"),
        ("confidence", 1 - args.confidence, f"at most {1 - SMALLEST:.9g}"),
    ):
        if value < SMALLEST * (1 - 1e-6):  # no number of videos promises so much
            raise InputError(f"--{flag} {getattr(args, flag)!r}: {needed} is needed")


def _families(words):
    """Read --families; None: not given."""
    from lvd.evaluation.choosing.candidates import FAMILIES

    if words is None:
        return None
    families = [word.strip() for word in words.split(",")]
    for family in families:
        if family not in FAMILIES:
            raise InputError(
                f"--families {typed(words)}: {typed(family) if family else 'an empty name'}: no "
                f"family of rules; a list of {', '.join(FAMILIES)} is needed"
            )
    return families


def _possible(families, source, args):
    """The families that are tried: without calibration only votes can be."""
    from lvd.evaluation.choosing.candidates import FAMILIES

    if source.calibrated:
        return families or FAMILIES
    if families is None:
        print("detectors or scores without calibration: only votes are tried")
        return ("vote",)
    if set(families) != {"vote"}:
        raise InputError(
            f"--families {typed(args.families)}: the detectors or the scores are not calibrated; "
            "without calibration only vote is possible"
        )
    return families


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
