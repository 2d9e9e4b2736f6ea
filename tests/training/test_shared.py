"""The shared detector by the real scripts: trained, resumed, refused and used like the grid."""

import csv
import random
import time

import numpy as np
import pytest
import torch

import test_accuracy
import train_mae
from lvd.data.clip_cache import AllClips, statistics
from lvd.data.clip_file import clip_path, read_clip
from lvd.data.sources import FolderClips
from lvd.data.split import load_split
from lvd.data.transforms import normalise
from lvd.detectors.bank import load_bank
from lvd.detectors.shared import build_shared, load_shared, predict_shared
from lvd.errors import InputError
from lvd.evaluation.metrics import choose_threshold
from lvd.training.resumable import epoch_order
from lvd.training.rows import rows_for_all, split_rows
from lvd.training.shared import loss_weights, weighted_loss
from lvd.utils.config import ROOT
from lvd.utils.files import load_torch, save_torch, sha256
from tests.worlds import forked
from tests.worlds.detector_world import (
    CATEGORIES,
    HELD_NORMAL,
    HELD_UNSAFE,
    NORMAL,
    STEPS,
    UNSAFE,
    copy_world,
    make_world,
)
from tests.worlds.refusals import refused
from tests.worlds.scripts import embed
from tests.worlds.shared_runs import FLAGS, start, train


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Latent clips, the shared detector trained, votes recorded."""
    world = make_world(tmp_path_factory.mktemp("shared"))
    assert train(world) == 0
    assert embed(world, "--label_file_dir", str(world.labels)) == 0
    return world


def test_the_file_says_what_it_is(world):
    found = load_torch(world.save / "shared.pth")
    assert (found["representation"], found["steps"], found["categories"]) == (
        "latent",
        [0, 1, 2],
        list(CATEGORIES),
    )
    about = found["about"]
    assert (
        about["eval_sha256"] == sha256(world.eval)
        and about["settings"]["epoch"] == 8
        and about["init"] is None
    )
    unsafe = sorted(set(UNSAFE[1] + UNSAFE[2]) - set(HELD_UNSAFE))
    assert about["rows"] == {
        "unsafe": unsafe,
        "normal": sorted(set(range(NORMAL)) - set(HELD_NORMAL)),
    }
    with open(world.save / "metrics.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(row["group"], row["step"]) for row in rows] == [(g, s) for s in "012" for g in "12"]
    assert {row["category"] for row in rows} == set(CATEGORIES) and all(
        float(row["val_auroc"]) > 0.9 for row in rows
    )
    with open(world.save / "shared_curve.csv", newline="") as f:
        curve = list(csv.DictReader(f))
    assert len(curve) == 8 and float(curve[-1]["val_loss"]) < float(curve[0]["val_loss"])
    assert (world.save / "shared_curve.png").read_bytes()[:4] == b"\x89PNG"
    assert not (world.save / "shared.training.pth").exists()


def test_statistics_are_those_of_each_step(world):
    """From the clip files, over the videos that were trained on."""
    model, source = load_shared(world.save / "shared.pth"), FolderClips(world.data)
    rows = rows_for_all(source, load_split(world.eval), range(STEPS))
    train, _ = split_rows(rows.labels, 0.2, np.random.default_rng(model.about["seed"]))
    for step in range(STEPS):
        clips = torch.stack(
            [
                source.read(kind, [row], step)[0].double()
                for kind, row in (rows.videos[i] for i in train)
            ]
        )
        assert torch.allclose(model.mean[step], clips.mean((0, 2, 3, 4)).float(), atol=1e-5)
        assert torch.allclose(
            model.std[step], clips.var((0, 2, 3, 4), correction=0).sqrt().float(), atol=1e-5
        )
    assert not torch.allclose(model.mean[0], model.mean[2], atol=0.05)
    clips = torch.randn(2, 4, 4, 4, 4)
    for clip, at, found in zip(
        clips, (2, 0), normalise(clips, model.mean, model.std, torch.tensor([2, 0])), strict=True
    ):
        wanted = (clip - model.mean[at][:, None, None, None]) / model.std[at][:, None, None, None]
        assert torch.allclose(found, wanted, atol=1e-6)


def test_votes_follow_from_scores_and_thresholds(world):
    """results.pth and scores.pth against predictions on the clip files themselves."""
    model, scores = load_shared(world.save / "shared.pth"), load_torch(world.results / "scores.pth")
    votes = load_torch(world.results / "results.pth")
    assert scores["categories"] == {"1": "bright", "2": "flicker"}
    for label, folder, rows in (("1", "eval_set", HELD_UNSAFE), ("0", "eval_normal", HELD_NORMAL)):
        for row in rows:
            for step in range(STEPS):
                clip = read_clip(clip_path(world.root / folder / str(step) / str(row), "latent"))[
                    None
                ]
                wanted = predict_shared(model, step, clip)[0]
                found = [scores["scores"][label][str(group)][str(row)][step] for group in (1, 2)]
                assert found == pytest.approx(wanted.tolist(), abs=1e-6)
                over = [
                    score >= threshold
                    for score, threshold in zip(found, model.thresholds[step], strict=True)
                ]
                assert votes[label][str(row)][step] == int(any(over))
    right = [(row, 1) for row in votes["1"].values()] + [(row, 0) for row in votes["0"].values()]
    assert np.mean([vote == truth for row, truth in right for vote in row]) >= 0.9


def test_the_step_matters(world):
    bank = load_bank(world.save)
    clip = torch.randn(4, 4, 4, 4, 4)
    assert (bank.score(0, clip) - bank.score(2, clip)).abs().max() > 1e-3
    assert (bank.groups, bank.steps, bank.categories) == (
        [1, 2],
        [0, 1, 2],
        {1: "bright", 2: "flicker"},
    )
    assert bank.all_calibrated and len(bank.thresholds(0, "calibrated")) == 2
    with pytest.raises(
        InputError, match="step 3: the shared detector was trained for steps 0 to 2"
    ):
        bank.score(3, clip)


def test_evaluation_and_report_as_of_the_grid(world, capsys):
    assert train(world, "--no-train") == 0
    with open(world.save / "evaluation.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(r["group"], r["step"]) for r in rows] == [(g, s) for g in "12" for s in "012"]
    assert all(float(row["auroc"]) > 0.9 for row in rows)
    assert test_accuracy.main(["--data_dir", str(world.results), "--eta", "3", "--table"]) == 0
    with open(world.results / "per_step.csv", newline="") as f:
        assert "auroc flicker" in next(csv.reader(f))


def test_trained_again_it_is_left_alone_or_refused(world, capsys):
    before = (world.save / "shared.pth").read_bytes()
    assert train(world) == 0 and (world.save / "shared.pth").read_bytes() == before
    refused(train(world, "--epoch", "9"), capsys, "train.yaml", "epoch")
    (world.save / "train.yaml").rename(world.save / "aside.yaml")
    refused(train(world, "--epoch", "9"), capsys, "shared.pth", "epoch: 8 there, 9 now")
    (world.save / "aside.yaml").rename(world.save / "train.yaml")
    refused(train(world, "--group_num", "1"), capsys, "--group_num", "group 2 is missing")
    refused(train(world, "--recipe", "scratch"), capsys, "--recipe scratch")
    refused(train(world, "--workers", "2"), capsys, "--workers 2", "one network")
    grid = [
        "--data_dir",
        str(world.data),
        "--eval_dir",
        str(world.eval),
        "--size",
        "nano",
        "--gpu_num",
        "-1",
    ]
    refused(
        train_mae.main([*grid, "--save_dir", str(world.save)]),
        capsys,
        str(world.save),
        "holds a shared detector",
    )
    unfinished = world.root / "unfinished"
    unfinished.mkdir()
    (unfinished / "train.yaml").write_bytes((world.save / "train.yaml").read_bytes())
    refused(
        train_mae.main([*grid, "--save_dir", str(unfinished)]), capsys, "holds a shared detector"
    )
    other = world.root / "grid"
    other.mkdir()
    (other / "train.yaml").write_text("size: nano\n")
    refused(train(world, save=other), capsys, "train.yaml")


@pytest.mark.parametrize("stop", [1, 5, 6, 11])
def test_a_resumed_run_is_that_of_an_unbroken_one_to_the_bit(world, tmp_path, stop):
    """Stopped within an epoch (6 mini-batches), at its end and within the averaging; saved after
    every mini-batch."""
    whole = start(world, tmp_path / "whole")
    assert len(list(whole)) == whole.total == 2 * whole.per_epoch == 12
    broken = start(world, tmp_path / "broken")
    broken.checkpoint.save_every = 0
    steps = iter(broken)
    for _ in range(
        stop + 1
    ):  # the state after mini-batch `stop` is saved when the next one is asked for
        next(steps)
    steps.close()
    again = start(world, tmp_path / "broken")
    assert again.done == stop and len(again) == 12 - stop
    list(again)
    one, two = (load_torch(tmp_path / name / "shared.pth") for name in ("whole", "broken"))
    assert all(
        torch.equal(one["state_dict"][key], two["state_dict"][key]) for key in one["state_dict"]
    )
    assert one["thresholds"] == two["thresholds"] and one["about"]["curve"] == two["about"]["curve"]
    assert (
        one["about"]["metrics"] == two["about"]["metrics"]
        and not (tmp_path / "broken" / "shared.training.pth").exists()
    )


def test_a_checkpoint_of_something_else_is_refused(world, tmp_path):
    run = start(world, tmp_path)
    run.checkpoint.save_every = 0
    steps = iter(run)
    next(steps), next(steps)
    steps.close()
    with pytest.raises(InputError, match="another settings .epoch: 2 there, 3 now"):
        start(world, tmp_path, epoch=3)
    state = load_torch(tmp_path / "shared.training.pth")
    parts = ("format", "identity", "done", "curve", "losses", "seconds", "data_sha256")
    assert set(state) == {*parts, "net", "optimizer", "averaged"}  # as in earlier versions
    save_torch({**state, "data_sha256": "0" * 64}, tmp_path / "shared.training.pth")
    with pytest.raises(InputError, match="the clips have changed"):
        list(start(world, tmp_path))


@pytest.mark.slow
def test_killed_it_goes_on(world, tmp_path):
    """kill -9 of the real script, once it has saved its state."""
    program = (
        "import sys, train_mae; from lvd.training.resumable import ResumableRun; "
        "ResumableRun.__init__.__defaults__ = (0,); "
        "sys.exit(train_mae.main(sys.argv[1:]))  # saves after every mini-batch"
    )
    argv = [
        "--data_dir",
        str(world.data),
        "--eval_dir",
        str(world.eval),
        "--save_dir",
        str(tmp_path / "killed"),
        *FLAGS,
    ]
    process = forked.start_code(program, *argv, folder=ROOT)
    until = time.monotonic() + 60
    while not (tmp_path / "killed" / "shared.training.pth").exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()  # SIGKILL
    assert not (tmp_path / "killed" / "shared.pth").exists()
    assert train(world, save=tmp_path / "killed") == 0
    one, two = (
        load_torch(folder / "shared.pth")["state_dict"]
        for folder in (world.save, tmp_path / "killed")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_clips_beyond_the_memory_are_read_as_needed(world):
    """The same mini-batches as from memory, in any order of videos and steps."""
    source = FolderClips(world.data)
    rows = rows_for_all(source, load_split(world.eval), range(STEPS))
    config = build_shared("nano", (4, 4, 4, 4), "latent", 0, range(STEPS), CATEGORIES).net.config
    held, read = (AllClips(source, rows.videos, [0, 1, 2], config, hold) for hold in (1 << 30, 0))
    for clips in (held, read):
        assert [at for at, _ in clips.scan()] == [0, 1, 2]
    assert held.held is not None and read.held is None and held.sha256 == read.sha256
    draw = random.Random(1)
    wanted = [
        (
            torch.tensor(draw.sample(range(len(rows.videos)), 7)),
            torch.tensor([draw.randrange(3) for _ in range(7)]),
        )
        for _ in range(5)
    ]
    for one, two in zip(held.batches(wanted), read.batches(wanted), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True)) and one[2].shape == (
            7,
            4,
            4,
            4,
            4,
        )
    kind, row = rows.videos[int(wanted[0][0][3])]
    assert torch.equal(
        next(held.batches(wanted))[2][3], source.read(kind, [row], int(wanted[0][1][3]))[0]
    )


def test_a_video_is_trained_on_or_validated_at_all_steps(world):
    run = start(world, world.root / "unused")
    task = run.task
    assert not set(task.train.tolist()) & set(task.validation.tolist())
    assert len(task.train) + len(task.validation) == len(task.rows.videos)
    for column in (0, 1):
        assert task.rows.labels[task.validation, column].sum() >= 1
    orders = [epoch_order(run.job, task.train, epoch) for epoch in (0, 1)]
    seen = torch.cat([videos * STEPS + at for videos, at in orders[0]]).sort()[0]
    assert torch.equal(
        seen, (task.train[:, None] * STEPS + torch.arange(STEPS)).flatten().sort()[0]
    )
    assert not torch.equal(orders[0][0][0], orders[1][0][0])


def test_a_rare_category_is_in_both_parts():
    labels = torch.zeros(60, 3)
    labels[:2, 0], labels[2:20, 1], labels[20:40, 2] = 1, 1, 1
    for seed in range(20):
        train, validation = split_rows(labels, 0.2, np.random.default_rng(seed))
        assert labels[train, 0].sum() == labels[validation, 0].sum() == 1
        assert (
            labels[validation, 1].sum() == 4
            and labels[validation, 2].sum() == 4
            and len(validation) == 13
        )


def test_categories_that_share_videos_are_in_both_parts():
    """With some draws all videos of the third one would be held out, or none of them could be."""
    labels = torch.zeros(8, 3)
    for column, members in enumerate(([0, 2], [1, 3], [0, 1])):
        labels[members, column] = 1
    for seed in range(100):
        train, validation = split_rows(labels, 0.2, np.random.default_rng(seed))
        assert (labels[train].sum(0) >= 1).all() and (labels[validation].sum(0) >= 1).all(), seed
        assert sorted([*train.tolist(), *validation.tolist()]) == list(range(8))
        assert any(video >= 4 for video in train) and any(video >= 4 for video in validation)
    circle = torch.tensor(
        [[1.0, 0, 1], [1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]]
    )  # each pair is a category
    with pytest.raises(InputError, match="share so many"):
        split_rows(circle, 0.2, np.random.default_rng(0))


def test_loss_of_a_category_is_of_its_own_videos_and_normal_ones():
    """By hand: other categories' videos count nothing, its own as much as the normal ones."""
    labels = torch.tensor([[1.0, 0], [1, 1], [0, 1], [0, 1], [0, 0], [0, 0]])
    weights = loss_weights(labels, torch.arange(6))
    assert weights[2, 0] == weights[3, 0] == weights[0, 1] == 0
    assert weights[:2, 0].sum() == pytest.approx(weights[4:, 0].sum()) and weights.mean(
        0
    ).tolist() == pytest.approx([1, 1])
    logits = torch.randn(6, 2)
    by_hand = 0
    for column in (0, 1):
        own = [
            -torch.nn.functional.logsigmoid(logits[i, column])
            for i in range(6)
            if labels[i, column]
        ]
        normal = [-torch.nn.functional.logsigmoid(-logits[i, column]) for i in (4, 5)]
        by_hand += (sum(own) / len(own) + sum(normal) / len(normal)) / 4
    assert weighted_loss(logits, labels, weights).item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_thresholds_are_chosen_for_each_category_and_step(world):
    """From the file's own validation scores, with the rule of the single detectors."""
    run = start(
        world, world.root / "one", epoch=1, lr=1e-4
    )  # so little that normal videos still score over 0.5
    list(run)
    task = run.task
    clips = AllClips(run.job.source, task.rows.videos, run.job.steps, task.detector.net.config)
    assert len(list(clips.scan())) == STEPS
    scores = task.scores(clips)
    normal = task.rows.labels[task.validation].sum(1) == 0
    for at in range(STEPS):
        for column in (0, 1):
            wanted = choose_threshold(scores[normal, at, column].numpy(), 0.05)
            assert task.detector.thresholds[at][column] == wanted
    assert len({tuple(row) for row in task.detector.thresholds}) >= 2
    assert load_shared(world.root / "one" / "shared.pth").thresholds == task.detector.thresholds


def test_false_positives_that_no_threshold_avoids_are_said(world):
    run = start(world, world.root / "two", epoch=1)
    list(run)
    assert all(row["val_false_positives_met"] for row in run.about["metrics"])
    rows = run.task.choose(torch.ones(len(run.task.validation), STEPS, 2), 0.5)
    assert run.task.detector.thresholds == [[1.0, 1.0]] * STEPS
    assert not any(row["val_false_positives_met"] for row in rows)


def test_a_run_that_breaks_off_at_its_end_is_finished_by_the_next(world, tmp_path, capsys):
    """The curve and its figure follow from the result: the next run writes what is missing."""
    run = start(world, tmp_path)
    run.checkpoint.save_every = 0
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(OSError):
        list(run)
    assert not (tmp_path / "shared.pth").exists() and (tmp_path / "shared.training.pth").exists()
    (tmp_path / "metrics.csv").rmdir()
    (tmp_path / "shared_curve.png").mkdir()
    again = start(world, tmp_path)
    assert list(again) == [] and again.finished
    assert "shared_curve.png: not drawn (IsADirectoryError" in capsys.readouterr().err
    (tmp_path / "shared_curve.png").rmdir()
    assert list(start(world, tmp_path)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.csv",
        "shared.pth",
        "shared_curve.csv",
        "shared_curve.png",
    ]
    (tmp_path / "shared.training.pth").write_bytes(b"left by a run that was killed between the two")
    (tmp_path / "shared_curve.csv").unlink()
    assert train(world, "--epoch", "2", save=tmp_path) == 0
    out = capsys.readouterr().out
    assert (
        "shared.pth" in out
        and "shared_curve.png" in out
        and "shared_curve.csv" in out
        and "train.yaml" not in out
    )
    assert not (tmp_path / "shared.training.pth").exists()


def test_mixed_precision_learns_alike(world, tmp_path):
    full, mixed = (start(world, tmp_path / name, precision=name) for name in ("float32", "bf16"))
    one, two = list(full), list(mixed)
    assert one != two and one == pytest.approx(two, abs=0.02)
    assert all(weight.dtype == torch.float32 for weight in mixed.task.detector.net.parameters())


def test_statistics_of_many_clips_are_those_of_one_pass():
    clips = torch.randn(150, 3, 2, 4, 4) * 5 + 100
    mean, std = statistics(clips)
    assert torch.allclose(mean, clips.double().mean((0, 2, 3, 4)).float())
    assert torch.allclose(std, clips.double().var((0, 2, 3, 4), correction=0).sqrt().float())


def test_weights_of_half_precision_are_computed_in_float32(world, tmp_path):
    content = load_torch(world.save / "shared.pth")
    rounded = {key: weight.half() for key, weight in content["state_dict"].items()}
    save_torch({**content, "state_dict": rounded}, tmp_path / "half.pth")
    rounded = {key: weight.float() for key, weight in rounded.items()}
    save_torch({**content, "state_dict": rounded}, tmp_path / "single.pth")
    single = load_shared(tmp_path / "single.pth")
    clips = torch.randn(3, *single.mean.shape[1:], 2, 8, 8)
    scores = predict_shared(load_shared(tmp_path / "half.pth"), single.steps[0], clips)
    assert scores.equal(predict_shared(single, single.steps[0], clips))


def test_bad_files_are_named(world, tmp_path, capsys):
    bad = copy_world(world, tmp_path / "world")
    good = load_torch(bad.save / "shared.pth")
    for content, words in (
        ({"a": 1}, ["not a shared detector"]),
        ({k: v for k, v in good.items() if k != "mean"}, ["key 'mean' is missing"]),
        ({**good, "thresholds": good["thresholds"][:2]}, ["thresholds do not fit"]),
        (
            {
                **good,
                "thresholds": [good["thresholds"][0], [0.5, float("nan")], good["thresholds"][2]],
            },
            ["step 1, flicker: threshold nan"],
        ),
        ({**good, "state_dict": {}}, ["weights do not fit"]),
        ({**good, "about": {**good["about"], "eval_sha256": "0" * 64}}, ["another eval.pth"]),
    ):
        save_torch(content, bad.save / "shared.pth")
        refused(embed(bad, save=tmp_path / "results"), capsys, "shared.pth", *words)
    (bad.save / "shared.pth").write_bytes(b"x")
    refused(
        embed(bad, save=tmp_path / "results"), capsys, "shared.pth", "not a readable torch file"
    )
    save_torch(good, bad.save / "shared.pth")
    (bad.data / "group1" / "2" / "3.pt").unlink()
    refused(train(bad, save=tmp_path / "new"), capsys, "group1/2", "11 of 12 clips are left")
