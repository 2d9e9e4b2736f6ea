"""Damaged files of ratings, exports and recordings that are labelled, and odd flags."""

import os
import random
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import label_videos
from lvd.data.labels import read_labels
from tests.fuzz import shapes as s
from tests.fuzz.campaign import JSON, LINES, Kind, campaign
from tests.fuzz.oracle import TIMES, Faults, fault, run_script
from tests.fuzz.test_fuzz_flags import ODD, number, only, some, whole
from tests.worlds.labelled_videos import CATEGORIES, EXPORT, RATED, make_recording, write_lines


class LabelCases:
    """Worlds with a recording of which videos are labelled, and files of ratings."""

    def __init__(self, folder):
        self.origin, self.here = folder / "origin", folder / "world"
        make_recording(self.origin / "unsafe", list(RATED))
        shutil.copy(EXPORT, self.origin / "export.json")
        write_lines(self.origin / "ratings.jsonl", [("0000", "x", ["warped"]), ("0001", "y", [])])
        table = "video,rater,categories\n0000,x,warped\n0001,y,striped;warped\n"
        (self.origin / "ratings.csv").write_text(table)

    @contextmanager
    def world(self, *_):
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(self.origin, self.here)
        os.chdir(self.here)  # relative paths lead here
        yield SimpleNamespace(root=self.here)


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    monkeypatch.setattr("lvd_labels.agreement.RESAMPLES", 3)
    monkeypatch.chdir(tmp_path)  # and back at the end
    return LabelCases(tmp_path)


def words(world, command, name="export.json"):
    root = Path(world.root)
    usual = ["--recording", f"{root}/unsafe", "--categories", CATEGORIES]
    if command == "export":
        return ["export", *usual, "--out", f"{root}/new", "--raters", "3"]
    return ["import", f"{root}/{name}", *usual, "--out", f"{root}/label.csv"]


def import_(name):
    return lambda world: run_script(label_videos, words(world, "import", name))


def right(world, content, outcome, sound):
    """What is wrong with the label file: rows are the recording's, whatever was accepted."""
    try:
        read_labels(Path(world.root) / "label.csv", rows=len(RATED))
    except ValueError as error:
        return f"wrote a label file that is refused: {error}"
    return None


NAMED = ("task", "entry", "none of", "key", "label file would be empty", "no ratings", "raters saw")
TASKS = s.list_of(s.mapping(rest=s.anything), 1)
RATING = s.mapping(
    {"video": s.name, "categories": s.list_of(s.text)},
    {"rater": s.maybe(s.either(s.name, s.whole()))},
)
KINDS = {
    "export.json": Kind(
        "Label Studio's exports",
        "export.json",
        JSON,
        (),
        import_("export.json"),
        TASKS,
        named=("export.json", "--recording: video", "--out"),
        whole=NAMED,
        right=right,
    ),
    "ratings.jsonl": Kind(
        "ratings, JSON lines",
        "ratings.jsonl",
        LINES,
        (),
        import_("ratings.jsonl"),
        s.list_of(RATING, 1),
        named=("ratings.jsonl", "--out"),
        whole=(*NAMED, "is none of"),
        right=right,
    ),
    "pred_x0.json": Kind(
        "sidecars of labelled recordings",
        "unsafe/pred_x0.json",
        JSON,
        (),
        lambda world: run_script(label_videos, words(world, "export")),
        s.mapping(rest=s.anything),
        named=("pred_x0.json", "unsafe", "--recording", "--raters"),
        whole=("videos of the recording", "finished yet", "too few", "outside", "steps"),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files(labelled, name):
    campaign(KINDS[name], labelled, 45)


FINE = {
    "raters": whole(1, 10),
    "ratings_per_video": whole(1, 3),
    "seconds": number(0, 3600, above=True),
    "seed": whole(0, 2**31 - 1),
    "out": some,
    "categories": lambda text: all(part.strip() for part in text.split(",")),
    "minimum_raters": whole(1, 1000),
    **dict.fromkeys(("recording", "only", "twice"), only("unsafe/pred_x0.pth")),
}


@pytest.mark.parametrize("command", ["export", "import"])
def test_odd_flags(labelled, command):
    commands = label_videos.build_parser()._actions[-1].choices
    flags = [one for one in commands[command]._actions if one.option_strings and one.dest != "help"]
    draw = random.Random(command)
    drawn = [(flag, value) for flag in flags if flag.nargs != 0 for value in ODD]
    drawn = draw.sample(drawn, min(50 * TIMES, len(drawn)))
    faults = Faults(f"flags of label_videos.py {command}")
    for flag, value in drawn:
        name = flag.option_strings[0]
        with labelled.world() as world:
            outcome = run_script(label_videos, [*words(world, command), f"{name}={value}"])
            outcome.err = outcome.err.replace(str(world.root), "~")
            shown = " ".join(value.split())[:12] or "''"
            # A rater's category that is not in an odd --categories is told by its task.
            told = (name, shown, "is none of") if flag.dest == "categories" else (name, shown)
            what = fault(outcome, [told])
            if what is None and outcome.status == 0:
                try:
                    fine = FINE[flag.dest](value)
                except ValueError:
                    fine = False
                what = None if fine else f"{name} accepted {value[:40]!r}"
        faults.add(f"{name} {value[:40]!r}", what)
    faults.check(len(drawn))
