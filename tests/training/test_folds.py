"""train_mae.py --folds: every training video is scored by detectors that never saw it."""

import shutil
from time import process_time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvd.data.clip_file import clip_path, read_clip
from lvd.detectors.bank import load_bank
from lvd.errors import InputError
from lvd.evaluation.metrics import auroc
from lvd.evaluation.recorded import recorded_videos
from lvd.evaluation.results import load_folds
from lvd.rules.file import identity_of
from lvd.training import fold_scores
from lvd.training.folds import draw_parts
from lvd.training.rows import split_rows
from lvd.utils.files import load_torch, save_torch
from tests.worlds import forked, scripts
from tests.worlds.detector_world import (
    CATEGORIES,
    HELD_NORMAL,
    HELD_UNSAFE,
    NORMAL,
    STEPS,
    UNSAFE,
    make_world,
)
from tests.worlds.refusals import refused
from tests.worlds.scripts import same_weights

K = 3
FLAGS = ["--size", "nano", "--epoch", "1", "--batch_size", "16", "--gpu_num", "-1"]
LEARNT = {
    "unsafe": set(UNSAFE[1] + UNSAFE[2]) - set(HELD_UNSAFE),
    "normal": set(range(NORMAL)) - set(HELD_NORMAL),
}


def train(world, save, model, *flags):
    workers = ["--workers", "1"] if model == "grid" else []
    base = [*FLAGS, "--model", model, *workers]
    return scripts.train(world, "--folds", str(K), *flags, save=save, base=base)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Clips, and for each model a folder with folds.pth; the folds' detectors in {model}_kept."""
    world = make_world(tmp_path_factory.mktemp("folds"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_scores, "delete_detectors", _keep)
        for model in ("shared", "grid"):
            assert train(world, world.root / model, model) == 0
    return world


def _keep(fold):
    save_dir = fold.job.save_dir.parent.parent
    shutil.move(fold.job.save_dir, f"{save_dir}_kept/{fold.number}")
    shutil.copy(fold.path, f"{save_dir}_kept")


def kept(world, model, number):
    return world.root / f"{model}_kept" / str(number)


def part(content, number):
    """Return {kind: {row}} of one part."""
    return {
        kind: {int(row) for row, one in of_kind.items() if one == number}
        for kind, of_kind in content["part"].items()
    }


@pytest.mark.parametrize("model", ["shared", "grid"])
def test_no_detector_is_trained_on_what_it_scores(world, model):
    content, everything = load_folds(world.root / model), {"unsafe": [], "normal": []}
    for number in range(1, K + 1):
        left_out = part(content, number)
        for member in load_bank(kept(world, model, number)).members.values():
            group = member.about.get("group")
            for kind, rows in member.about["rows"].items():
                of_kind = LEARNT[kind]
                if kind == "unsafe" and group:
                    of_kind = of_kind & set(UNSAFE[group])
                assert set(rows) == of_kind - left_out[kind]
        for kind, rows in left_out.items():
            everything[kind] += rows
        for rows in UNSAFE.values():
            assert set(rows) & left_out["unsafe"]
    assert {kind: sorted(rows) for kind, rows in everything.items()} == {
        kind: sorted(rows) for kind, rows in LEARNT.items()
    }


@pytest.mark.parametrize("model", ["shared", "grid"])
def test_scores_are_those_of_the_detectors_of_its_fold(world, model):
    content = load_folds(world.root / model)
    for number in range(1, K + 1):
        bank = load_bank(kept(world, model, number))
        videos = [
            (label, row)
            for label, kind in (("1", "unsafe"), ("0", "normal"))
            for row in sorted(part(content, number)[kind])
        ]
        for step in range(STEPS):
            clips = [read_clip(path_of(world, label, row, step)) for label, row in videos]
            raw = bank.score(step, torch.stack(clips))
            for group in (1, 2):
                found = {
                    key: [content[key][label][str(group)][str(row)][step] for label, row in videos]
                    for key in ("scores", "calibrated", "says")
                }
                np.testing.assert_allclose(found["scores"], raw[:, group - 1], rtol=1e-4)
                member = bank.members[group, step]
                calibrated = member.calibration(found["scores"])
                np.testing.assert_allclose(found["calibrated"], calibrated, rtol=1e-12)
                assert found["says"] == [score >= member.threshold for score in found["scores"]]


def path_of(world, label, row, step):
    folder = "normal" if label == "0" else f"group{1 if row in UNSAFE[1] else 2}"
    return clip_path(world.data / folder / str(step) / str(row), "latent")


@pytest.mark.parametrize("model", ["shared", "grid"])
def test_the_file_is_that_of_recorded_videos(world, model, capsys):
    save = world.root / model
    content = load_folds(save)
    assert not (save / "folds").exists()
    assert content["detectors"] == identity_of(load_bank(save))
    assert content["operating_point"] == "validation"
    assert content["folds"]["count"] == K and content["folds"]["model"] == model
    videos = recorded_videos(content)
    assert videos.categories == list(CATEGORIES)
    assert videos.is_unsafe.sum() == len(LEARNT["unsafe"])
    assert videos.evidence.says.shape == (len(videos.rows), STEPS, len(CATEGORIES))
    for column, rows in enumerate(UNSAFE.values()):
        members = {int(videos.rows[place]) for place in np.flatnonzero(videos.members[:, column])}
        assert members == set(rows) & LEARNT["unsafe"]
    areas = []
    for number in range(1, K + 1):
        rows = part(content, number)
        for group, own in UNSAFE.items():
            by_label = [content["scores"][label][str(group)] for label in "10"]
            unsafe = [by_label[0][str(row)][1] for row in rows["unsafe"] & set(own)]
            normal = [by_label[1][str(row)][1] for row in rows["normal"]]
            areas.append(auroc(unsafe + normal, [1] * len(unsafe) + [0] * len(normal)))
    assert fold_scores.out_of_fold_auroc(content, 1) == pytest.approx(np.mean(areas))
    before = (save / "folds.pth").read_bytes()
    assert train(world, save, model) == 0
    assert "folds found finished" in capsys.readouterr().out
    assert (save / "folds.pth").read_bytes() == before


def test_the_final_detectors_are_those_of_a_training_without_folds(world, tmp_path):
    base = [*FLAGS, "--model", "shared"]
    assert scripts.train(world, save=tmp_path, base=base) == 0
    assert same_weights(tmp_path / "shared.pth", world.root / "shared" / "shared.pth")
    assert not (tmp_path / "folds.pth").exists()


class Killed(BaseException):
    """What a kill is to a test in the same process."""


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("shared", "fold_scores.save_torch"),
        ("shared", "fold_scores.delete_detectors"),
        ("shared", "folds.joined"),
        ("grid", "fold_scores.save_torch"),
    ],
)
def test_killed_and_resumed_equals_unbroken(world, tmp_path, model, place, monkeypatch):
    """Killed before and after the scores of the second part are written, and before folds.pth."""
    save = tmp_path / "save"
    shutil.copytree(world.root / model, save)
    (save / "folds.pth").unlink()
    (save / "folds").mkdir()
    for number in (1, 3):  # the second part alone is trained again
        shutil.copy(kept(world, model, f"{number}.pth"), save / "folds")
    with monkeypatch.context() as patch:
        patch.setattr(f"lvd.training.{place}", _kill)
        with pytest.raises(Killed):
            train(world, save, model)
    assert (save / "folds" / "2").exists() == (place != "folds.joined")
    assert (save / "folds" / "2.pth").exists() == (place != "fold_scores.save_torch")
    assert not (save / "folds.pth").exists()
    assert train(world, save, model) == 0
    whole = (world.root / model / "folds.pth").read_bytes()
    assert (save / "folds.pth").read_bytes() == whole
    assert not (save / "folds").exists()


def _kill(*_, **__):
    raise Killed


def test_other_final_detectors_are_noted(world, tmp_path):
    """Trained again, they tell other seconds; the scores of the folds stay those of the videos."""
    save = tmp_path / "save"
    shutil.copytree(world.root / "shared", save)
    (save / "shared.pth").unlink()
    assert train(world, save, "shared") == 0
    before, now = load_folds(world.root / "shared"), load_folds(save)
    assert now["detectors"] == identity_of(load_bank(save))
    assert {**now, "detectors": 0} == {**before, "detectors": 0}


@pytest.mark.parametrize(
    ("model", "flags", "words"),
    [
        ("shared", ["--folds", "1"], ["--folds 1", "2 parts or more"]),
        ("shared", ["--folds", "-3"], ["--folds -3", "2 parts or more"]),
        ("grid", ["--folds", "2"], ["--folds 2", "folds.yaml is of 3 parts", "--folds 3"]),
        (
            "shared",
            ["--folds", "40"],
            ["--folds 40", "9 videos of category 'bright'", "40 or more"],
        ),
        ("grid", ["--group_num", "1"], ["--group_num", "2 is missing"]),
        ("grid", ["--step_num", "0,2"], ["--step_num", "1 is missing"]),
        ("grid", ["--no-train"], ["--folds", "--no-train"]),
        ("shared", ["--seed", "3"], ["folds.yaml", "seed was 2024, now it is 3"]),
        ("grid", ["--epoch", "3"], ["folds.yaml", "settings.epoch was 1, now it is 3"]),
    ],
)
def test_what_is_refused(world, model, flags, words, capsys):
    before = (world.root / model / "folds.pth").read_bytes()
    refused(train(world, world.root / model, model, *flags), capsys, *words)
    assert (world.root / model / "folds.pth").read_bytes() == before


def test_folds_begun_otherwise_are_refused(world, tmp_path, capsys):
    """Scores of a part of another draw, whose folds.yaml is gone."""
    (tmp_path / "folds").mkdir()
    shutil.copy(kept(world, "shared", "1.pth"), tmp_path / "folds")
    words = ["folds/1.pth", "another part"]
    refused(train(world, tmp_path, "shared", "--folds", "2"), capsys, *words)
    assert not (tmp_path / "shared.pth").exists()


def drop(*keys):
    """Return a function that deletes content[...][key]."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("says"), ["key 'says' is missing"]),
        (drop("detectors"), ["key 'detectors' is missing"]),
        (drop("part", "normal"), ["part", "not of all"]),
        (drop("scores", "1", "2", "4"), ["scores are not of all"]),
        (drop("calibrated", "0"), ["calibrated are not of all"]),
        (lambda content: content["says"]["1"]["1"]["4"].pop(), ["says are not of all"]),
        (lambda content: content["says"]["1"]["1"]["4"].append(2), ["says.1.1.4", "found 2"]),
        (lambda content: content["members"].update({"3": []}), ["members of category '3'"]),
        (lambda content: content["members"]["1"].append("1"), ["members of category '1'"]),
    ],
)
def test_a_damaged_file_is_refused(world, tmp_path, change, words, capsys):
    content = load_torch(world.root / "shared" / "folds.pth")
    change(content)
    save_torch(content, tmp_path / "folds.pth")
    with pytest.raises(InputError) as error:
        load_folds(tmp_path)
    for word in [str(tmp_path / "folds.pth"), *words]:
        assert word in str(error.value)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 5), st.integers(0, 9), st.integers(0, 3), st.data())
def test_parts_have_their_share_of_each_category(count, seed, overlap, data):
    sizes = data.draw(st.lists(st.integers(4 + 2 * count, 30), min_size=1, max_size=4))
    normal = data.draw(st.integers(4 + 2 * count, 40))
    labels = np.zeros((sum(sizes) + normal, len(sizes)))
    first = 0
    for column, size in enumerate(sizes):
        labels[first : first + size, column] = 1
        labels[first : first + overlap, column - 1] = 1
        first += size
    names = [*map(str, range(len(sizes))), "normal"]
    parts = draw_parts(labels, count, seed, names)
    assert set(parts) == set(range(count))
    for members in [*(labels.T > 0), labels.sum(1) == 0]:
        in_parts = np.bincount(parts[members], minlength=count)
        assert in_parts.min() >= 1
        assert np.ptp(in_parts) <= 1 + 2 * overlap
    assert (parts == draw_parts(labels, count, seed, names)).all()


def test_many_videos_are_drawn_in_seconds():
    """Counting all videos anew for each of them took minutes."""
    labels = np.zeros((40_000, 2))
    labels[:10_000, 0] = labels[10_000:20_000, 1] = 1
    begin = process_time()
    parts = draw_parts(labels, 5, 0, ["a", "b", "normal"])
    train, validation = split_rows(torch.from_numpy(labels), 0.2, np.random.default_rng(0))
    assert process_time() - begin < 10
    assert np.bincount(parts).tolist() == [8_000] * 5
    assert len(validation) == 8_000 and labels[validation.numpy()].sum(0).tolist() == [2_000] * 2


@pytest.mark.slow
def test_launched_processes_share_the_detectors(world, tmp_path):
    """Two processes write the folds.pth of one, whose final detectors they find."""
    shutil.copytree(world.root / "grid", tmp_path, dirs_exist_ok=True)
    (tmp_path / "folds.pth").unlink()
    command = [
        *("--data_dir", world.data, "--eval_dir", world.eval, "--save_dir", tmp_path, *FLAGS),
        *("--folds", K, "--workers", 1),
    ]
    done = forked.run(scripts.train_mae.__file__, *command, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("folds scored") == 1
    whole = (world.root / "grid" / "folds.pth").read_bytes()
    assert (tmp_path / "folds.pth").read_bytes() == whole


def test_two_runs_at_once_are_told(tmp_path):
    """The one that ends first takes the scores of the folds away."""
    gone = SimpleNamespace(path=tmp_path / "1" / "scores.pth")
    with pytest.raises(InputError, match="scores.pth: is gone, another process"):
        fold_scores.joined([gone], None)
