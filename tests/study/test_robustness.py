"""Table e: what changes, and a category never trained on."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

import reproduce_tables
from lvd.data.labels import read_labels
from lvd.data.split import Split, load_split, save_split
from lvd.evaluation.rule_of_scores import load_recording
from lvd.rules.confidence import ConfidenceRule
from lvd.utils.files import load_yaml, save_yaml, sha256
from lvd_study import changes, left_out, other_labels
from lvd_study.changes import Change
from lvd_study.differences import area_difference, difference, paired_difference
from lvd_study.intervals import share
from lvd_study.tables import robustness
from lvd_study.tasks import Done, Ledger, Task
from tests.worlds.recorded_scores import made_up_scores, write_recording
from tests.worlds.recording_world import write_labels
from tests.worlds.refusals import refused
from tests.worlds.study_world import LABELS, InProcess

HELD_OUT = [0, 9, 10, 20]  # of LABELS; 8 and 9 are of two categories


@pytest.fixture
def recordings(tmp_path):
    """The words of other_labels for recordings that need not be there."""
    labels = write_labels(tmp_path / "label.csv", LABELS)
    save_split(Split(HELD_OUT, [1, 5], label_sha256=sha256(labels)), tmp_path / "eval.pth")
    settings = {"pred_x0": "unsafe.pth", "normal_pred_x0": "normal.pth"}
    save_yaml({**settings, "label_file_dir": str(labels)}, tmp_path / "config.yaml")
    known = ["--config", tmp_path / "config.yaml", "--eval_dir", tmp_path]
    return [str(word) for word in [*known, "--out", tmp_path / "out"]]


@pytest.mark.parametrize("group", [1, 2, 3])
def test_a_category_that_is_left_out_is_nowhere(recordings, tmp_path, group):
    assert other_labels.main([*recordings, "--without", str(group)]) == 0
    written = load_yaml(tmp_path / "out" / "recordings.yaml")
    labels = read_labels(written["label_file_dir"])
    names = list(LABELS)
    gone = set(LABELS[names.pop(group - 1)])
    assert labels.categories == names
    for name, rows in zip(names, labels.columns, strict=True):
        assert rows == [row for row in LABELS[name] if row not in gone]
    split = load_split(tmp_path / "out")
    assert (split.unsafe, split.normal) == (HELD_OUT, [1, 5])
    assert split.label_sha256 == sha256(labels.path)
    assert written["pred_x0"] == "unsafe.pth" and written["normal_pred_x0"] == "normal.pth"


@pytest.mark.parametrize(
    "columns, group, words",
    [
        (LABELS, 0, ["--without 0", "1 to 3"]),
        (LABELS, 4, ["--without 4", "1 to 3"]),
        ({"warped": [0, 1, 2]}, 1, ["--without 1", "one category"]),
        ({"warped": [0, 1, 2], "banner": [1, 2]}, 1, ["banner", "0 videos", "2 or more"]),
        ({"warped": [0, 1], "banner": [1, 9, 3]}, 1, ["banner", "1 video ", "2 or more"]),
    ],
)
def test_labels_that_leave_nothing_are_refused(recordings, tmp_path, capsys, columns, group, words):
    write_labels(tmp_path / "label.csv", columns)
    status = other_labels.main([*recordings, "--without", str(group)])
    refused(status, capsys, *words)
    assert not (tmp_path / "out").exists()


def exact(hits, count):
    interval = binomtest(hits, count).proportion_ci(method="exact")
    return hits / count, interval.low, interval.high


def newcombe(more, less):
    """The interval of a difference, from (share, low, high) of both."""
    mean = more[0] - less[0]
    low = mean - ((more[0] - more[1]) ** 2 + (less[2] - less[0]) ** 2) ** 0.5
    return mean, low, mean + ((more[2] - more[0]) ** 2 + (less[0] - less[1]) ** 2) ** 0.5


def test_differences_of_shares():
    before, after = np.zeros((2, 1, 40), bool)
    before[0, :30] = True
    after[0, 4:31] = True
    found = paired_difference((before, after))
    wanted = newcombe(exact(1, 40), exact(4, 40))  # became right, became wrong
    # Korn and Graubard's variance is that of a sample: 39 videos count
    assert (found.mean, found.low, found.high) == pytest.approx(wanted, abs=3e-3)
    found = difference(share(after), share(before))
    assert (found.mean, found.low, found.high) == pytest.approx(
        newcombe(exact(27, 40), exact(30, 40)), abs=3e-3
    )
    same = paired_difference((before, before))
    assert same.low < same.mean == 0 < same.high


@pytest.mark.parametrize("is_paired", [True, False])
def test_difference_of_aurocs(is_paired):
    draw = np.random.default_rng(1)
    before = draw.normal(1, 1, (3, 30)), draw.normal(0, 1, (3, 25))
    after = tuple(scores + draw.normal(0, 0.6, scores.shape) for scores in before)
    found = area_difference(before, after, is_paired)

    def auroc(scores, seeds, places):
        unsafe, normal = (part[seeds][:, at] for part, at in zip(scores, places, strict=True))
        return (unsafe[:, :, None] > normal[:, None]).mean()

    def places():
        return draw.integers(0, 30, 30), draw.integers(0, 25, 25)

    drawn = []
    for _ in range(300):
        seeds, at = draw.integers(0, 3, 3), places()
        drawn.append(auroc(after, seeds, at) - auroc(before, seeds, at if is_paired else places()))
    everything = [0, 1, 2], (np.arange(30), np.arange(25))
    assert found.mean == pytest.approx(auroc(after, *everything) - auroc(before, *everything))
    assert [found.low, found.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.03)


def votes_of(folder, **settings):
    """Votes that are there."""
    write_recording(folder, **settings)
    task = Task(f"votes {folder.name}", ("embed_model.py", folder))
    return SimpleNamespace(recording=lambda: load_recording(folder), task=task)


def renumbered(numbers, **settings):
    """made_up_scores whose unsafe rows have other numbers, in the order of these."""
    scores = made_up_scores(**settings)
    for by_row in scores["scores"]["1"].values():
        values = list(by_row.values())
        by_row.clear()
        by_row.update({str(number): values[place] for place, number in numbers})
    return scores


def test_videos_are_paired_by_their_rows(tmp_path):
    """The held-out rows may stand in any order; sampled again they are numbered in theirs."""
    size = {"unsafe": 5, "normal": 6, "steps": 6, "seed": 3}
    shuffled = renumbered([(2, 31), (0, 4), (4, 99), (1, 12), (3, 50)], **size)
    again = made_up_scores(**size)
    before = Change(
        "as trained",
        [
            votes_of(
                tmp_path / "a", scores=shuffled["scores"], members=None, calibrated=None, **size
            )
        ],
    )
    after = Change(
        "again",
        [votes_of(tmp_path / "b", scores=again["scores"], members=None, calibrated=None, **size)],
    )
    seen = [changes.see(each, {}) for each in (before, after)]
    for eta in (5, 6):
        for part, same in zip(seen[0].scores(eta), seen[1].scores(eta), strict=True):
            assert (part == same).all()
        gap = changes.accuracy_difference(*seen, f"(0.6, {eta})")
        assert gap.mean == 0


def study_of(tmp_path):
    sampling = "ddim, 6 steps, guidance scale 4"
    work = tmp_path / "work"
    study = SimpleNamespace(work=work, home=tmp_path, is_tiny=False, sampling=sampling)
    study.ledger = partial(Ledger, work / "done")
    return study


def test_section_of_what_is_there(tmp_path):
    """Two seeds, another sampling, one that is refused, and categories left out."""
    study = study_of(tmp_path)
    votes = {
        name: [votes_of(tmp_path / f"{name}{seed}", seed=seed) for seed in (6, 7)]
        for name in ("trained", "words", "bad")
    }
    study.ledger().note(votes["bad"][0].task, Done(1.0, f"{tmp_path}/x: too far away"))
    made = [
        Change("as trained", votes["trained"]),
        Change("other words", votes["words"], is_paired=False),
        Change("ddim, 3 steps", votes["bad"]),
    ]
    rule = SimpleNamespace(task=None, rule=lambda recording: ConfidenceRule(0.6, 6))
    none = SimpleNamespace(task=None, rule=lambda recording: None)
    chosen = {"chosen": [rule, none], "confidence": [none, none]}
    without = [
        left_out.LeftOut(name, column, [votes_of(tmp_path / f"without{column}", seed=8 + column)])
        for column, name in enumerate(("warped", "banner"))
    ]
    section = robustness.section(study, robustness.Plan(made, chosen, without))
    tables = {table.name: table.frame() for table in section.tables}
    assert list(tables) == [
        "e_auroc",
        "e_0_6_5",
        "e_0_6_6",
        "e_chosen_rule",
        "e_left_out",
        "e_left_out_normal",
    ]
    assert list(tables["e_auroc"]["videos"]) == ["as trained", "other words"]
    assert list(tables["e_chosen_rule"]["seeds"]) == [1, 1]
    assert "Not served: ddim, 3 steps (x: too far away)" in section.how
    assert [figure.name for figure in section.figures] == ["e_changes.png", "e_left_out.png"]
    assert "never saw" in section.answer
    assert section.caveat == ""
    shares = tables["e_left_out"]
    warped = load_recording(tmp_path / "without0").scores["scores"]["1"]
    rows = [str(10 * row) for row in range(0, 9, 2)]  # of the first category alone
    counts = [
        sum(max(warped[group][row][step] for group in "12") >= 0.7 for step in range(6))
        for row in rows
    ]
    assert shares.loc[0, ["category", "detectors", "videos"]].tolist() == [
        "warped",
        "never saw it",
        5,
    ]
    assert shares["(0.6, 6)"][0] == np.mean([count >= 4 for count in counts])
    whole = shares[shares["category"] == left_out.ALL].set_index("detectors")["(0.6, 6)"]
    assert whole["difference"] == pytest.approx(whole["never saw it"] - whole["saw it"])


def test_section_where_nothing_changes(tmp_path):
    made = [Change("as trained", [votes_of(tmp_path / "a", steps=4)])]
    section = robustness.section(study_of(tmp_path), robustness.Plan(made, {}, []))
    assert [table.name for table in section.tables] == ["e_auroc", "e_0_6_4"]
    assert section.figures == [] and "change" not in section.answer


EMPTY = {"other_seeds": 0, "guidance_scales": [], "samplings": [], "rules_for": []}


def open_study(world, tmp_path, **settings):
    study = world.write_study(tmp_path / "study.yaml", **{**EMPTY, **settings})
    return reproduce_tables._open(
        reproduce_tables.build_parser().parse_args(world.words(study=study))
    )


def test_a_refusal_is_read_as_it_was_noted(study_world, tmp_path):
    """The note of a real command has the content of train.yaml, which the command names."""
    study = open_study(study_world, tmp_path, samplings=["ddim:3"], leave_one_out=0)
    change = robustness.plan(study).changes[-1]
    assert change.name.startswith("ddim") and change.refused(study) == ""
    study.ledger().note(change.votes[0].task, Done(1.0, "has noise level 999"))
    assert change.refused(study) == "has noise level 999"


def test_plan_of_empty_settings(study_world, tmp_path):
    plan = robustness.plan(open_study(study_world, tmp_path, leave_one_out=0))
    assert [change.name for change in plan.changes] == ["as trained"]
    assert plan.left_out == [] and len(plan.tasks) == 2  # votes of two seeds


def test_one_category_is_not_left_out(study_world, tmp_path):
    study = open_study(study_world, tmp_path, leave_one_out=2)
    assert len(left_out.left_out_of(study)) == len(LABELS)
    study.data.label_file_dir = write_labels(tmp_path / "label.csv", {"warped": [0, 1, 2]})
    assert left_out.left_out_of(study) == []


def test_detectors_that_never_saw_a_category(study_world, tmp_path):
    """The scripts take the labels as they are written, and categories keep their own videos."""
    study = open_study(study_world, tmp_path, leave_one_out=1)
    without = left_out.left_out_of(study)[1]
    study.write_configs()
    InProcess(study.ledger(), study.work / "logs").run([without.votes[0].task])
    videos = without.votes[0].recording().videos
    assert without.category == "banner" and videos.categories == ["warped", "strobe"]
    for name, members in zip(videos.categories, videos.members.T, strict=True):
        rows = [int(row) for row, own in zip(videos.rows, members, strict=True) if own]
        held_out = load_split(study.eval_path).unsafe
        assert rows == [row for row in held_out if row in LABELS[name]]
