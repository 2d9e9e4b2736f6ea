"""Table g, and the labels of which a share is made wrong."""

import csv
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from lvd.data.config import read_data_config
from lvd.data.labels import read_labels
from lvd.data.split import load_split
from lvd.utils.files import load_torch
from lvd.x0.file import open_x0_file
from lvd_study import wrong_labels
from lvd_study.settings import StudySettings
from lvd_study.tables import label_quality
from tests.worlds.recording_world import LABELS, RecordedWorld, write_labels
from tests.worlds.refusals import refused
from tests.worlds.study_world import SEEDS


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Recordings of 22 unsafe and 24 normal videos. Read only."""
    return RecordedWorld(tmp_path_factory.mktemp("recorded"), torch.float32)


def make(world, out, kind, share=0.5, seed=7, *flags):
    """Run the module and return its exit status."""
    words = ["--config", world.config, "--eval_dir", world.eval, "--kind", kind]
    words += ["--share", share, "--seed", seed, "--out", out, "--gpu_num", -1, *flags]
    return wrong_labels.main(list(map(str, words)))


def groups(labels):
    """{row: the categories that it stands in}"""
    found = {}
    for category, rows in zip(labels.categories, labels.columns, strict=True):
        for row in rows:
            found.setdefault(row, set()).add(category)
    return found


def recordings(folder):
    """{kind: X0File} that a folder's recordings.yaml names."""
    config = read_data_config(folder / "recordings.yaml", Namespace())
    return {"unsafe": open_x0_file(config.pred_x0), "normal": open_x0_file(config.normal_pred_x0)}


def exchanged(world, out):
    """{kind: rows that do not hold their own video}, by what is in the files."""
    return {
        kind: [row for row in file.rows if not torch.equal(file.tensor[row], world.x0[kind][row])]
        for kind, file in recordings(out).items()
    }


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_so_many_training_videos_are_of_another_category(recorded, tmp_path, share):
    assert make(recorded, tmp_path, "category", share) == 0
    right, wrong = groups(read_labels(recorded.labels)), groups(read_labels(tmp_path / "label.csv"))
    held_out = set(recorded.split.unsafe)
    assert right.keys() == wrong.keys()
    changed = {row for row in right if right[row] != wrong[row]}
    assert changed.isdisjoint(held_out)
    able = [row for row in right if row not in held_out and len(right[row]) < len(LABELS)]
    assert len(changed) == max(1, round(share * len(able)))
    for row in changed:  # all that it is labelled with is wrong
        assert len(wrong[row]) == 1 and wrong[row].isdisjoint(right[row])
    told = list(csv.DictReader(open(tmp_path / "wrong.csv")))
    assert {int(line["unsafe row"]) for line in told} == changed
    assert all(wrong[int(line["unsafe row"])] == {line["labelled"]} for line in told)


def test_so_many_training_videos_change_places(recorded, tmp_path):
    assert make(recorded, tmp_path, "class", 0.25) == 0
    found = exchanged(recorded, tmp_path)
    split = recorded.split
    trained = 22 - len(split.unsafe)
    assert len(found["unsafe"]) == len(found["normal"]) == int(0.25 * trained + 0.5)
    assert set(found["unsafe"]).isdisjoint(split.unsafe)
    assert set(found["normal"]).isdisjoint(split.normal)
    files = recordings(tmp_path)
    for line in csv.DictReader(open(tmp_path / "wrong.csv")):
        unsafe, normal = int(line["unsafe row"]), int(line["normal row"])
        assert torch.equal(files["unsafe"].tensor[unsafe], recorded.x0["normal"][normal])
        assert torch.equal(files["normal"].tensor[normal], recorded.x0["unsafe"][unsafe])
        assert files["unsafe"].info[unsafe]["prompt"] == f"p{normal}"  # it goes with the video
        assert files["normal"].info[normal]["prompt"] == f"p{unsafe}"


@pytest.mark.parametrize("kind", ["category", "class"])
def test_the_held_out_videos_stay_the_same(recorded, tmp_path, kind):
    assert make(recorded, tmp_path, kind, 0.5) == 0
    before, now = load_split(recorded.eval), load_split(tmp_path / "eval.pth")
    assert (before.unsafe, before.normal) == (now.unsafe, now.normal)


@pytest.mark.parametrize("kind", ["category", "class"])
def test_the_draw_follows_from_the_seed(recorded, tmp_path, kind):
    drawn = {}
    for name, share, seed in (
        ("one", 0.3, 7),
        ("same", 0.3, 7),
        ("other", 0.3, 8),
        ("more", 0.6, 7),
    ):
        assert make(recorded, tmp_path / name, kind, share, seed) == 0
        drawn[name] = (tmp_path / name / "wrong.csv").read_text().splitlines()
    assert drawn["one"] == drawn["same"] != drawn["other"]
    if kind == "category":
        same = [(tmp_path / name / "label.csv").read_bytes() for name in ("one", "same")]
        assert same[0] == same[1]
    assert set(drawn["one"]) < set(drawn["more"])  # of a larger share, too


def test_detectors_are_trained_on_them_and_exchanged_recordings_deleted(recorded, tmp_path, capsys):
    settings = tmp_path / "train.yaml"
    settings.write_text("{size: nano, shared: {epoch: 1, batch_size: 64}}")
    out = tmp_path / "out"
    assert make(recorded, out, "class", 0.2, 7, "--train", settings) == 0
    detector = load_torch(out / "shared" / "shared.pth")
    base = open_x0_file(recorded.root / "unsafe" / "pred_x0.pth")
    assert detector["about"]["dataset"]["pred_x0_made_by"] != base.fingerprint
    assert not list(out.glob("recordings*/"))
    (out / "recordings.partial").mkdir()  # of a run that was killed
    before = (out / "shared" / "shared.pth").read_bytes()
    assert make(recorded, out, "class", 0.2, 7, "--train", settings) == 0
    assert (out / "shared" / "shared.pth").read_bytes() == before
    assert not list(out.glob("recordings*/"))


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"share": 1.0}, ["--share 1.0", "below 1"]),
        ({"share": float("nan")}, ["--share nan"]),
        ({"seed": -1}, ["--seed -1"]),
        ({"kind": "colour"}, ["--kind", "colour"]),
    ],
)
def test_flags_that_make_no_sense_are_refused(recorded, tmp_path, capsys, flags, words):
    assert refused(make(recorded, tmp_path, **{"kind": "class", **flags}), capsys, *words)


def test_one_category_has_no_wrong_one(recorded, tmp_path, capsys):
    labels = write_labels(tmp_path / "label.csv", {"only": [*range(22)]})
    config = tmp_path / "build_x0.yaml"
    config.write_text(recorded.config.read_text().replace(str(recorded.labels), str(labels)))
    words = ["--config", config, "--eval_dir", recorded.eval, "--share", 0.2]
    words += ["--kind", "category", "--out", tmp_path / "out"]
    status = wrong_labels.main(list(map(str, words)))
    assert refused(status, capsys, "label.csv", "one category")


def test_a_folder_of_other_labels_is_refused(recorded, tmp_path, capsys):
    assert make(recorded, tmp_path, "category", 0.5) == 0
    assert refused(make(recorded, tmp_path, "category", 0.4), capsys, "share=0.5", "0.4")


def right(folder):
    """Share of the held-out videos that (0.6, 4) judges as what they are."""
    results = load_torch(folder / "results.pth")
    stopped = {label: [sum(votes) >= 3 for votes in results[label].values()] for label in "10"}
    return np.mean([*stopped["1"], *(not each for each in stopped["0"])])


def test_table_g(study_world, tmp_path):
    assert study_world.reproduce("--tables", "g", "--out", str(tmp_path)) == 0
    rules = pd.read_csv(tmp_path / "g_rules.csv")
    votes = study_world.work / "votes"
    with_right = [right(votes / f"shared_{seed}" / "held_out") for seed in SEEDS]
    for kind in ("category", "class"):
        wrong = [right(votes / f"shared_{seed}_wrong_{kind}_0.2" / "held_out") for seed in SEEDS]
        of_kind = rules[rules["labels"] == label_quality.NAMES[kind]]
        chosen = of_kind[of_kind["rule"] == "(0.6, 4)"]
        assert chosen["accuracy"].item() == pytest.approx(np.mean(wrong))
        change = np.mean(wrong) - np.mean(with_right)
        assert chosen["difference"].item() == pytest.approx(change)
        assert chosen["wrong"].item() == "20%" and chosen["seeds"].item() == len(SEEDS)
    assert "With 20% wrong (wrong category)" in (tmp_path / "g.md").read_text()
    assert (tmp_path / "g_label_quality.png").is_file()
    assert not list(study_world.work.glob("wrong_labels/*/recordings*/"))


def test_without_shares_the_table_says_so():
    study = SimpleNamespace(settings=StudySettings())
    plan = label_quality.plan(study)
    assert not plan.tasks
    assert "no shares of wrong labels" in label_quality.section(study, plan).answer
