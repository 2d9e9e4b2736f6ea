"""The last lines of reproduce.sh: how good the detectors are, what they cost, what to open.

Reads what the steps before it have written, and counts anew what each rule does to the held-out
videos.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lvd.errors import InputError
from lvd.evaluation.frontier_files import FrontierFiles
from lvd.evaluation.intervals import nothing_seen, rate_text
from lvd.evaluation.page.numbers import RESAMPLES, chosen_rule, shown_detectors
from lvd.evaluation.page.recordings import PageRecordings
from lvd.evaluation.page.write import NAME, write_page
from lvd.evaluation.results import FOLDS
from lvd.evaluation.rule_of_scores import Recording, load_recording, need_trained_steps, rule_for
from lvd.evaluation.rule_report import report_of
from lvd.rules.file import RULE, load_rule
from lvd.rules.vote import VoteRule
from lvd.utils.cli import Parser, run_command

LAMBDA = "0.6"
ETAS = (20, 5)
GRID, SHARED = "a detector for each category and step", "one shared detector"
# Beside the data's out_dir: the folders of detectors, and those of their votes.
FOLDERS = {GRID: ("detectors", "results"), SHARED: ("shared", "results_shared")}


@dataclass(frozen=True)
class Judged:
    """What a rule does to the held-out videos that some detectors have looked at."""

    name: str
    report: object  # RuleReport

    def line(self):
        """Return its line of the table."""
        report = self.report
        right, total = report.rates()["accuracy"]
        return (
            f"    {self.name:<18}{right / total:8.3f}  {report.found / report.unsafe:12.3f}  "
            f"{rate_text(report.false, report.normal):<36}{report.cost():8.3f}"
        )


def build_parser():
    parser = Parser(__doc__, "python tools/closing_report.py --home_dir MagicTime")
    parser.add_argument(
        "--home_dir", type=Path, required=True, help="folder of results/, results_shared/, ..."
    )
    parser.add_argument("--filmstrips", type=Path, required=True, help="of the unsafe videos")
    parser.add_argument("--steps_csv", type=Path, required=True, help="seconds of each step")
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="YAML",
        help="a build_x0.yaml: also write report.html, a page with its recordings, into --home_dir",
    )
    return parser


def work(args):
    home = args.home_dir
    recordings = {
        name: load_recording(home / results)
        for name, (_, results) in FOLDERS.items()
        if (home / results / "results.pth").is_file()
    }
    if not recordings:
        raise InputError(f"--home_dir {args.home_dir}: no votes here; bash reproduce.sh makes them")
    for recording in recordings.values():
        need_trained_steps(recording)
    videos = next(iter(recordings.values())).videos
    unsafe = int(videos.is_unsafe.sum())
    normal = len(videos.rows) - unsafe
    print(f"{unsafe} unsafe and {normal} normal videos that no detector had seen:")
    print(
        "                      accuracy  unsafe found  normal ones stopped                     cost"
    )
    for name, recording in recordings.items():
        print(f"  {name}")
        for judged in judge(recording, home / FOLDERS[name][0] / RULE):
            print(judged.line())
    print("In brackets: exact 95% intervals. " + first_up(nothing_seen(normal)) + ".")
    print(
        f"Cost: share of the {videos.steps} steps, the mean over all unsafe videos; one that is "
        "missed counts in full."
    )
    print(
        "lambda, eta: unsafe when at least lambda x eta of the votes of the first eta steps say so."
    )
    tell_recommended(home)
    page = args.recordings and write_report(home, recordings, args.recordings)
    results = home / FOLDERS[next(iter(recordings))][1]
    tell_what_to_open(args, page, results)


def judge(recording: Recording, rule_path):
    """Return [Judged]: of the paper's rule at both points, and of a chosen rule if there is one."""
    etas = dict.fromkeys(min(eta, recording.steps) for eta in ETAS)
    rules = {f"lambda {LAMBDA}, eta {eta}": VoteRule(LAMBDA, eta) for eta in etas}
    if rule_path.is_file():
        rules["chosen rule"] = rule_for(load_rule(rule_path), recording)
    return [Judged(name, report_of(rule, recording.videos)) for name, rule in rules.items()]


def tell_recommended(home):
    """Say which detectors and which rule are the ones to use, and how the guard is given them."""
    folder = home / FOLDERS[SHARED][0]
    if (folder / RULE).is_file():
        rule = load_rule(folder / RULE).rule
        print(f"Recommended: the shared detector and its chosen rule ({rule.describe()}).")
        print(
            f"  --guard {shown(folder)} takes both; {shown(folder / RULE)} says how it was chosen"
        )


def write_report(home, recordings, yaml):
    """Write the page of all detectors that looked at the same videos.

    Args:
        home: the folder of results/, results_shared/, ...
        recordings: {name of the detectors: Recording}.
        yaml: path of the build_x0.yaml that names the recordings of x0.

    Returns:
        (path, where its clips are).
    """
    names = [name for name in (SHARED, GRID) if name in recordings]
    first = recordings[names[0]]
    shown = []
    for name in names:
        videos = recordings[name].videos
        if videos.names() == first.videos.names() and videos.steps == first.videos.steps:
            shown.append(_shown(name, recordings[name], home / FOLDERS[name][0]))
    facts = write_page(home / NAME, shown, PageRecordings(yaml, first))
    return home / NAME, facts["clips"]


def _shown(name, recording, folder):
    """Return the ShownDetectors of a folder, with its chosen rule if there is one."""
    rules, frontier = [], None
    if (folder / RULE).is_file():
        chosen = load_rule(folder / RULE)
        rules = [chosen_rule(chosen.rule, rule_for(chosen, recording), None)]
    if (folder / FOLDS).is_file():
        frontier = FrontierFiles(recording, folder / FOLDS, RESAMPLES)
    return shown_detectors(name, recording, rules, frontier)


def tell_what_to_open(args, page, results):
    """Say which files to look at first; results: folder of the votes that were made first."""
    if page:
        path, clips = page
        print(f"Open this first: {shown(path)}")
        print("  every video, its scores, where rules decide, sliders for the rules")
        print(f"  clips: {clips}")
    print("Then these three:" if page else "Open these three:")
    print(f"  {shown(first_picture(args.filmstrips))}: what the detectors see, step by step")
    print(f"  {shown(results / 'grid.png')}: accuracy for every lambda and eta")
    print(f"  {shown(results / 'per_step.png')}: how early a single step's vote is right")
    print(
        f"Everything else is beside them; seconds and memory of each step: {shown(args.steps_csv)}"
    )


def first_up(text):
    """Return the text with a capital first letter."""
    return text[0].upper() + text[1:]


def first_picture(folder):
    """The first filmstrip of the folder, or the folder itself where there is none."""
    return min(folder.glob("*.png"), default=folder)


def shown(path):
    """The path as one would type it here: relative where it lies below the current folder."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
