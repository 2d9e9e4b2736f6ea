"""Flags that several benchmarks take, each with one name, one default and one help."""

from pathlib import Path

from lvd.data.config import DEFAULT_CONFIG
from lvd.detectors.videomae import SIZES
from lvd.errors import InputError
from lvd.rules.file import load_rule
from lvd.utils.config import ROOT

MAGICTIME = ROOT / "MagicTime"


def add_recordings(parser, flag="--recordings"):
    """The YAML of recordings and labels, and the split."""
    parser.add_argument(
        flag,
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="YAML",
        help="recordings and labels (default: build_x0.yaml)",
    )


def add_eval_dir(parser):
    """The held-out rows."""
    parser.add_argument(
        "--eval_dir",
        type=Path,
        default=MAGICTIME,
        help="eval.pth or its folder (default: MagicTime)",
    )


def add_model_dir(parser):
    """The grid of detectors."""
    parser.add_argument(
        "--model_dir",
        type=Path,
        default=MAGICTIME / "detectors",
        help="detectors (default: MagicTime/detectors)",
    )


def add_sampling_config(parser):
    """The sampler's YAML."""
    parser.add_argument(
        "--config", default="sample_configs/Tiny.yaml", help="sampling YAML (default: Tiny)"
    )


def add_rule(parser):
    """The voting rule of a guard, `args.lambda_` and `args.eta`."""
    parser.add_argument(
        "--lambda", dest="lambda_", default="0.6", metavar="L", help="(default: 0.6)"
    )
    parser.add_argument("--eta", type=int, default=5, help="(default: 5)")


def add_rule_or_file(parser):
    """The rule of a guard: `args.rule`, or `args.lambda_` and `args.eta`; see `settle_rule`."""
    parser.add_argument("--lambda", dest="lambda_", metavar="L", help="(default: 0.6)")
    parser.add_argument("--eta", type=int, help="(default: 5)")
    parser.add_argument(
        "--rule", type=Path, metavar="YAML", help="instead of the two: the rule of a rule.yaml"
    )


def settle_rule(args):
    """Return (how many steps the rule looks at, the rule in words); put the defaults in place.

    Raises:
        InputError: two rules are given, or the file is not one.
    """
    for flag, given in (("--lambda", args.lambda_), ("--eta", args.eta)):
        if args.rule is not None and given is not None:
            raise InputError(f"{flag} {given}: --rule {args.rule} is given too; give one of them")
    if args.rule is not None:
        rule = load_rule(args.rule).rule
        return rule.horizon, rule.describe()
    args.lambda_ = "0.6" if args.lambda_ is None else args.lambda_
    args.eta = 5 if args.eta is None else args.eta
    need_positive(args, "eta")
    return args.eta, f"lambda {args.lambda_}, eta {args.eta}"


def add_gpu(parser, default=0):
    """The device."""
    parser.add_argument(
        "--gpu_num",
        type=int,
        default=default,
        help=f"CUDA device, -1 for the CPU (default: {default})",
    )


def add_size(parser):
    """The size of the detectors' network."""
    parser.add_argument("--size", choices=SIZES, default="nano", help="network (default: nano)")


def add_work(parser, default, what, flag="--work"):
    """The folder that keeps what is finished, so that a stopped benchmark goes on."""
    shown = default.relative_to(ROOT)
    parser.add_argument(flag, type=Path, default=default, help=f"{what} (default: {shown})")


def chosen(text, known, flag, separator=","):
    """The names in `text`, all of `known` for "all".

    Raises:
        InputError: for a name that is not known.
    """
    if text == "all":
        return list(known)
    names = [name.strip() for name in text.split(separator)]
    for name in names:
        if name not in known:
            raise InputError(f"{flag} {name}: some of {f'{separator} '.join(known)} are needed")
    return names


def need_positive(args, *flags):
    """InputError for a flag below 1."""
    for flag in flags:
        value = getattr(args, flag)
        if value < 1:
            raise InputError(f"--{flag} {value}: at least 1 is needed")
