"""Make the guard that comes with the repository: detectors, names and a rule in one folder.

It takes what `bash reproduce.sh --scale full` made: shared.pth, names.pth and rule.yaml of one
folder, which must belong together, and the votes of these detectors on the held-out videos. Paths
of this machine are left out of the rule, and README.md says what the files are, on what they were
made, and how right they are. The same files always give the same folder.
"""

import re
import shutil
import sys
from datetime import date
from pathlib import Path

from benchmarks.common.machine import commit
from lvd.data.kinds import KIND_NORMAL, KIND_UNSAFE
from lvd.detectors.bank import SHARED, load_bank
from lvd.errors import InputError, shorten
from lvd.evaluation.intervals import nothing_seen, rate_text
from lvd.evaluation.rule_of_scores import load_recording, need_trained_steps, rule_for
from lvd.evaluation.rule_report import report_of
from lvd.rules.file import RULE, load_rule
from lvd.rules.vote import VoteRule
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT
from lvd.utils.files import load_yaml, need_file, save_text, save_yaml, sha256
from lvd.utils.partials import atomic

NAMES = "names.pth"
README = "README.md"
FULL = ROOT / "MagicTime" / "outputs" / "TinyFull"
PAPERS = (("0.6", 20), ("0.6", 5))
OF_A_MACHINE = re.compile(
    r"^([~/\\]|[A-Za-z]:\\)"
)  # how a path begins that means nothing elsewhere
TEXT = """# The guard that comes with the tiny world

`--guard ckpts/Tiny/guard` needs no λ and no η: one network for all {steps} denoising steps and
{categories} categories (`shared.pth`), one that names the categories of an unsafe video
(`names.pth`), and the rule by which a video is stopped (`rule.yaml`).
[docs/guard.md](../../../../docs/guard.md#from-the-command-line) shows it at work.

| | |
|---|---|
| made by | `{command}` after `bash reproduce.sh --scale full` |
| at | commit {commit}, {date} |
| with | {versions} |
| learned from | x0 of {unsafe} unsafe and {normal} normal videos; {held_out} others are held out |
| rule | {rule}; chosen on scores out of fold, no held-out video was looked at |
{hashes}

On the held-out videos (in brackets: exact 95% intervals; cost: share of the {steps} steps, mean
over all unsafe videos, one that is missed counts in full; {nothing}):

| rule | accuracy | unsafe videos found | normal videos stopped | cost |
|---|---|---|---|---|
{rates}

The files themselves say what they learned from and which sampling they belong to; with any other
the guard refuses them, and it refuses a rule that was chosen for other detectors.
"""


def build_parser():
    parser = Parser(__doc__, "python tools/ship_guard.py")
    parser.add_argument(
        "--model_dir",
        type=Path,
        default=FULL / "shared",
        help="folder of shared.pth, names.pth, rule.yaml (default: outputs/TinyFull/shared)",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=FULL / "results_shared",
        help="their votes, of embed_model.py (default: outputs/TinyFull/results_shared)",
    )
    parser.add_argument(
        "--save_dir",
        type=Path,
        default=ROOT / "MagicTime" / "ckpts" / "Tiny" / "guard",
        help="folder to write (default: MagicTime/ckpts/Tiny/guard)",
    )
    return parser


def work(args):
    if args.save_dir.resolve() == args.model_dir.resolve():
        raise InputError(f"--save_dir {args.save_dir}: is --model_dir; another folder is needed")
    for name, made_by in (
        (SHARED, "train_mae.py --model shared"),
        (NAMES, "train_mae.py --model shared --names"),
        (RULE, "choose_rule.py"),
    ):
        if not (args.model_dir / name).is_file():
            raise InputError(f"--model_dir {args.model_dir}: {name} is missing, {made_by} makes it")
    bank = load_bank(args.model_dir)
    chosen = load_rule(args.model_dir / RULE).bound_to(bank)
    if not chosen.detectors:
        raise InputError(
            f"{args.model_dir / RULE}: key 'detectors' is missing: a rule of choose_rule.py is "
            "needed"
        )
    recording = load_recording(args.data_dir)
    need_trained_steps(recording)
    rule_for(chosen, recording)
    rule = without_folders(load_yaml(args.model_dir / RULE))
    need_no_folder(bank.about, args.model_dir / SHARED)
    need_no_folder(bank.naming.model.about, args.model_dir / NAMES)
    paths = [args.save_dir / name for name in (SHARED, NAMES, RULE, README)]
    for path in paths[:2]:
        copy(args.model_dir / path.name, path)
    save_yaml(rule, paths[2])  # last: without it the guard would take the paper's rule
    save_text(readme(paths[:3], bank, chosen, recording), paths[3])
    load_rule(paths[2]).bound_to(load_bank(args.save_dir))
    facts = {"detectors": bank.sha256()[:12], "rule": chosen.rule.describe()}
    summary("guard made", facts, paths)


def copy(source, target):
    """Copy a file, atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    need_file(source)
    with atomic(target) as partial:
        shutil.copyfile(source, partial)


def without_folders(value):
    """Return nested dicts and lists; of a path of this machine the part in the repository is left,
    or its name."""
    if isinstance(value, dict):
        return {key: without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_folders(one) for one in value]
    if not isinstance(value, str) or not OF_A_MACHINE.match(value):
        return value
    path = Path(value)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def need_no_folder(value, where):
    """InputError where a text within nested dicts and lists is a path of this machine."""
    if isinstance(value, dict):
        for pair in value.items():
            for one in pair:
                need_no_folder(one, where)
    elif isinstance(value, (list, tuple)):
        for one in value:
            need_no_folder(one, where)
    elif isinstance(value, str) and OF_A_MACHINE.match(value):
        raise InputError(
            f"{where}: names {shorten(value)}, a path of this machine; train it with relative paths"
        )


def readme(files, bank, chosen, recording):
    """Return the text of README.md.

    Args:
        files: paths of the three written files.
        bank: Bank of the detectors.
        chosen: ChosenRule of the guard.
        recording: Recording of the held-out videos.
    """
    about, rows = bank.about, bank.about["rows"]
    report = report_of(rule_for(chosen, recording), recording.videos)
    rules = {"chosen": report}
    for lambda_, eta in PAPERS:
        rule = VoteRule(lambda_, min(eta, recording.steps))
        rules[f"(λ {rule.lambda_}, η {rule.eta})"] = report_of(rule, recording.videos)
    return TEXT.format(
        steps=len(bank.steps),
        categories=len(bank.groups),
        command=f"python {Path(__file__).relative_to(ROOT)}",
        commit=commit(ROOT),
        date=date.today().isoformat(),
        versions=", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        unsafe=len(rows[KIND_UNSAFE]),
        normal=len(rows[KIND_NORMAL]),
        held_out=f"{report.unsafe} and {report.normal}",
        rule=chosen.rule.describe(),
        hashes="\n".join(f"| sha256 of {path.name} | `{sha256(path)}` |" for path in files),
        nothing=nothing_seen(report.normal),
        rates="\n".join(rates_line(name, one) for name, one in rules.items()),
    )


def rates_line(name, report):
    """A line of the table of rates."""
    cells = [rate_text(*report.rates()[rate]) for rate in ("accuracy", "recall")]
    cells += [rate_text(report.false, report.normal), f"{report.cost():.3f}"]
    return f"| {name} | {' | '.join(cells)} |"


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
