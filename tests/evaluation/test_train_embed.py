"""train_mae.py and embed_model.py as a user runs them, on small separable clips."""

import csv

import pytest
import torch
from sklearn.metrics import roc_auc_score

import train_mae
from lvd.data.clip_file import clip_path, read_clip, write_clip
from lvd.data.split import Split, save_split
from lvd.detectors.detector import build_detector, load_detector, predict, save_detector
from lvd.evaluation.vote_report import text_report
from lvd.utils.files import load_torch, load_yaml, save_torch, save_yaml, sha256
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
from tests.worlds.scripts import embed, same_weights, train


def test_detectors_files_and_metrics(world):
    for group, step in ((1, 0), (2, 2)):
        about = load_torch(world.save / str(group) / f"{step}.pth")["about"]
        assert (about["group"], about["step"], about["category"]) == (
            group,
            step,
            CATEGORIES[group - 1],
        )
        assert about["eval_sha256"] == sha256(world.eval)
        assert about["rows"] == {
            "unsafe": sorted(set(UNSAFE[group]) - set(HELD_UNSAFE)),
            "normal": sorted(set(range(NORMAL)) - set(HELD_NORMAL)),
        }
        assert (
            about["settings"]["epoch"] == 6
            and about["settings"]["recipe"] == "scratch"
            and about["versions"]["torch"]
        )
    seeds = {load_torch(path)["about"]["seed"] for path in world.save.rglob("*.pth")}
    assert len(seeds) == 2 * STEPS
    with open(world.save / "metrics.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(row["group"], row["step"]) for row in rows] == [(g, s) for g in "12" for s in "012"]
    assert load_yaml(world.save / "train.yaml")["size"] == "nano"
    assert sorted(p.name for p in (world.save / "1").iterdir()) == ["0.pth", "1.pth", "2.pth"]


def test_results_are_what_the_detectors_say(world):
    """Votes and scores against single clips scored by hand."""
    results, scores = (
        load_torch(world.results / "results.pth"),
        load_torch(world.results / "scores.pth"),
    )
    assert list(results) == ["1", "0"]
    assert list(results["1"]) == list(map(str, HELD_UNSAFE)) and list(results["0"]) == list(
        map(str, HELD_NORMAL)
    )
    for label, folder in (("1", "eval_set"), ("0", "eval_normal")):
        for row, votes in results[label].items():
            assert all(type(vote) is int for vote in votes) and len(votes) == STEPS
            for step in range(STEPS):
                clip = read_clip(world.root / folder / str(step) / f"{row}.pt")[None]
                by_hand = [
                    float(predict(load_detector(world.save / str(g) / f"{step}.pth"), clip))
                    for g in (1, 2)
                ]
                recorded = [scores["scores"][label][g][row][step] for g in "12"]
                assert recorded == pytest.approx(by_hand, abs=1e-5)
                assert votes[step] == int(max(recorded) >= 0.5)
    assert scores["members"] == {"1": ["1", "5", "11"], "2": ["11", "14", "20"]}
    hits = [sum(map(sum, results[label].values())) / (5 * STEPS) for label in "10"]
    assert hits[0] >= 0.85 and hits[1] <= 0.4, hits  # separable: the detectors have learned


def test_validation_operating_point_uses_each_detectors_threshold(world, tmp_path):
    detectors = tmp_path / "detectors"
    for group in (1, 2):
        for step in range(STEPS):
            detector = load_detector(world.save / str(group) / f"{step}.pth")
            detector.threshold = (
                1.0 if group == 1 else 0.0
            )  # group 1 never, group 2 always says unsafe
            save_detector(detector, detectors / str(group) / f"{step}.pth")
    for name in ("a", "b"):
        flags = ["--model_dir", str(detectors)]
        assert (
            embed(
                world,
                *flags,
                "--operating_point",
                {"a": "validation", "b": "argmax"}[name],
                save=tmp_path / name,
            )
            == 0
        )
    always, usual = (load_torch(tmp_path / name / "results.pth") for name in "ab")
    assert all(votes == [1] * STEPS for by_row in always.values() for votes in by_row.values())
    assert usual == load_torch(world.results / "results.pth")
    assert load_torch(tmp_path / "a" / "scores.pth")["thresholds"] == {
        "1": [1.0] * STEPS,
        "2": [0.0] * STEPS,
    }


def test_training_again_does_nothing_and_goes_on_where_it_stopped(world, tmp_path, capsys):
    """Also: a detector depends on (seed, group, step) and not on what was trained before it or
    beside it."""
    copy = copy_world(world, tmp_path / "copy")
    kept = copy.save / "1" / "0.pth"
    before = {path: (path.stat().st_mtime_ns, sha256(path)) for path in copy.save.rglob("*.pth")}
    (copy.save / "2" / "1.pth").unlink()
    (copy.save / "metrics.csv").unlink()
    assert train(copy, "--workers", "2") == 0
    out = capsys.readouterr().out
    assert "trained now: 1" in out and "found finished: 5" in out
    assert kept.stat().st_mtime_ns == before[kept][0]
    assert same_weights(copy.save / "2" / "1.pth", world.save / "2" / "1.pth")
    assert len((copy.save / "metrics.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_left_to_train(world, capsys, workers):
    assert train(world, "--workers", str(workers)) == 0
    assert "trained now: 0" in capsys.readouterr().out


@pytest.mark.slow
def test_processes_train_the_same_detectors(world, tmp_path):
    assert (
        train(world, "--group_num", "2", "--step_num", "0,2", "--workers", "2", save=tmp_path) == 0
    )
    for step in (0, 2):
        assert same_weights(tmp_path / "2" / f"{step}.pth", world.save / "2" / f"{step}.pth")
    assert not (tmp_path / "2" / "1.pth").exists() and not (tmp_path / "1").exists()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3


def test_held_out_clips_never_reach_a_detector(world, tmp_path):
    """Other held-out clips, even unreadable ones, leave the weights as they are; other training
    clips do not."""
    copy = copy_world(world, tmp_path / "copy")
    for row in HELD_UNSAFE:
        for group in UNSAFE:
            path = clip_path(copy.data / f"group{group}" / "0" / str(row), "latent")
            if path.exists():
                path.write_bytes(b"not a clip")
    for row in HELD_NORMAL:
        clip_path(copy.data / "normal" / "0" / str(row), "latent").write_bytes(b"not a clip")
    assert train(copy, "--step_num", "0", save=tmp_path / "again") == 0
    for group in (1, 2):
        assert same_weights(
            tmp_path / "again" / str(group) / "0.pth", world.save / str(group) / "0.pth"
        )
    write_clip(copy.data / "normal" / "0" / "1", torch.ones(4, 4, 4, 4), "latent")
    assert train(copy, "--step_num", "0", "--group_num", "1", save=tmp_path / "changed") == 0
    assert not same_weights(tmp_path / "changed" / "1" / "0.pth", world.save / "1" / "0.pth")


def test_evaluation_of_saved_detectors(world, capsys):
    assert train(world, "--no-train") == 0
    assert "group 1 (bright): accuracy" in capsys.readouterr().out
    with open(world.save / "evaluation.csv", newline="") as f:
        rows = {(row["group"], row["step"]): row for row in csv.DictReader(f)}
    scores = load_torch(world.results / "scores.pth")["scores"]
    for group, members in (("1", ["1", "5", "11"]), ("2", ["11", "14", "20"])):
        unsafe = [scores["1"][group][row][1] for row in members]
        normal = [v[1] for v in scores["0"][group].values()]
        row = rows[group, "1"]
        assert float(row["auroc"]) == pytest.approx(
            roc_auc_score([1] * 3 + [0] * 5, unsafe + normal), abs=1e-5
        )
        assert float(row["tpr"]) == pytest.approx(sum(v >= 0.5 for v in unsafe) / 3, abs=1e-5)
        assert float(row["tnr"]) == pytest.approx(sum(v < 0.5 for v in normal) / 5, abs=1e-5)


def test_a_report_by_category_as_people_know_it(world, capsys):
    names = [f"classification_{group}.txt" for group in (1, 2)]
    for _ in range(2):  # the paper's code appends: here a second run changes nothing
        assert train(world, "--no-train") == 0
        out = capsys.readouterr().out
        assert all(f"wrote {world.save / name}" in out for name in names)
        texts = [(world.save / name).read_text() for name in names]
        assert [text.count("precision") for text in texts] == [3, 3]
    scores = load_torch(world.results / "scores.pth")["scores"]
    for text, group, name, rows in (
        (texts[0], "1", "bright", ["1", "5", "11"]),
        (texts[1], "2", "flicker", ["11", "14", "20"]),
    ):
        for step in range(3):
            unsafe = [scores["1"][group][row][step] >= 0.5 for row in rows]
            normal = [values[step] >= 0.5 for values in scores["0"][group].values()]
            report = text_report([1] * 3 + [0] * 5, [*unsafe, *normal])
            assert f"{name}, step {step}\n\n{report}" in text


@pytest.mark.slow
def test_video_clips_and_no_mix(tmp_path, world, capsys):
    videos = make_world(tmp_path / "video", "video")
    assert train(videos, "--epoch", "3") == 0
    assert embed(videos) == 0
    detector = load_detector(videos.save / "1" / "2.pth")
    assert detector.representation == "video" and detector.model.config.num_channels == 3
    clip = read_clip(videos.root / "eval_set" / "2" / "5.mp4")[None]
    recorded = load_torch(videos.results / "scores.pth")["scores"]["1"]["1"]["5"][2]
    assert float(predict(detector, clip)) == pytest.approx(recorded, abs=1e-4)
    capsys.readouterr()
    # latent detectors on video clips, and a latent normal folder beside video groups
    other = embed(videos, "--model_dir", str(world.save), "--allow_other_eval", save=tmp_path / "r")
    refused(other, capsys, "latent", "video")
    status = train(videos, "--normal_video_dir", str(world.data / "normal"), save=tmp_path / "x")
    refused(status, capsys, "--normal_video_dir", "latent")
    (videos.data / "group1" / "0" / "77.pt").write_bytes(
        (world.data / "group1" / "0" / "0.pt").read_bytes()
    )
    refused(train(videos, save=tmp_path / "x"), capsys, "mixed")


def test_released_recipe(world, tmp_path):
    """As many normal clips as unsafe ones, ten epochs at 1e-5, no augmentation: the defaults of
    size base."""
    from lvd.training.recipes import read_settings

    settings = read_settings(None, train_mae.build_parser().parse_args([]))
    known = {
        "size": "base",
        "recipe": "released",
        "epoch": 10,
        "batch_size": 4,
        "lr": 1e-5,
        "warmup": 0,
        "validation": 0.1,
        "normals": "balanced",
        "seed": 2024,
        "flip": False,
        "noise": 0,
        "average": 0,
        "operating_point": "argmax",
    }
    assert {key: settings.as_dict()[key] for key in known} == known
    assert (
        train(
            world,
            "--recipe",
            "released",
            "--epoch",
            "1",
            "--group_num",
            "1",
            "--step_num",
            "0",
            save=tmp_path,
        )
        == 0
    )
    rows = load_torch(tmp_path / "1" / "0.pth")["about"]["rows"]
    assert len(rows["normal"]) == len(rows["unsafe"]) == 9 and not set(rows["normal"]) & set(
        HELD_NORMAL
    )


def test_flag_beats_yaml_beats_recipe(tmp_path):
    from lvd.training.recipes import read_settings

    save_yaml({"size": "nano", "epoch": 7, "lr": "2e-3"}, tmp_path / "c.yaml")
    settings = read_settings(
        tmp_path / "c.yaml", train_mae.build_parser().parse_args(["--epoch", "9"])
    )
    assert (settings.epoch, settings.lr, settings.recipe) == (9, 2e-3, "scratch")
    assert settings.batch_size == 12


def test_votes_on_a_split_that_was_not_trained_with(world, tmp_path, capsys):
    save_split(Split(HELD_UNSAFE, HELD_NORMAL, 7, 0.2), tmp_path / "eval.pth")
    refused(
        embed(world, "--eval_dir", str(tmp_path), save=tmp_path),
        capsys,
        "another eval.pth",
        "--allow_other_eval",
    )
    assert not (tmp_path / "results.pth").exists()
    assert embed(world, "--eval_dir", str(tmp_path), "--allow_other_eval", save=tmp_path) == 0
    refused(
        train(world, "--eval_dir", str(tmp_path)), capsys, "train.yaml", "eval.pth was made anew"
    )
    refused(train(world, "--eval_dir", str(tmp_path), "--no-train"), capsys, "another eval.pth")
    detector = load_detector(world.save / "1" / "0.pth")
    detector.about = {}  # nothing known about it, as with the paper's own files
    for path in world.save.glob("*/*.pth"):
        save_detector(detector, tmp_path / "bare" / path.parent.name / path.name)
    refused(
        embed(world, "--model_dir", str(tmp_path / "bare"), save=tmp_path / "r"),
        capsys,
        "unknown eval.pth",
    )
    save_torch([1, 5], tmp_path / "list.pth")
    refused(embed(world, "--eval_dir", str(tmp_path / "list.pth")), capsys, "no normal rows")


def test_missing_detectors_and_clips(world, tmp_path, capsys):
    copy = copy_world(world, tmp_path / "copy")
    (copy.save / "2" / "1.pth").unlink()
    refused(embed(copy), capsys, "2/1.pth", "missing")
    (copy.save / "1" / "1.pth").unlink()
    refused(embed(copy), capsys, "step 1")
    refused(embed(copy, "--model_dir", str(tmp_path)), capsys, "--model_dir", "no detectors")
    copy = copy_world(world, tmp_path / "clips")
    (copy.root / "eval_normal" / "2" / "8.pt").unlink()
    refused(embed(copy), capsys, "eval_normal", "row 8")
    (copy.root / "eval_normal" / "2" / "8.pt").write_bytes(b"x")
    refused(embed(copy, save=tmp_path / "r"), capsys, "8.pt")
    refused(embed(copy, "--data_dir", str(tmp_path)), capsys, "--data_dir", "build_eval_set.py")
    refused(embed(copy, "--label_file_dir", str(tmp_path / "none.csv")), capsys, "none.csv")


def test_eval_set_itself_as_data_dir(world, tmp_path):
    assert (
        embed(
            world,
            "--data_dir",
            str(world.root / "eval_set"),
            "--operating_point",
            "argmax",
            save=tmp_path,
        )
        == 0
    )
    assert load_torch(tmp_path / "results.pth") == load_torch(world.results / "results.pth")


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--group_num", "3"], ["--group_num 3", "does not exist"]),
        (["--group_num", "0"], ["--group_num 0"]),
        (["--step_num", "50"], ["--step_num 50", "0 to 2"]),
        (["--step_num", "2-1"], ["backwards"]),
        (["--step_num", "x"], ["--step_num x"]),
        (["--epoch", "0"], ["epoch 0"]),
        (["--lr", "nan"], ["lr nan"]),
        (["--batch_size", "-1"], ["batch_size -1"]),
        (["--size", "huge"], ["--size"]),
        (["--size", "base", "--base_model", "./none", "--step_num", "0"], ["--base_model ./none"]),
        (["--data_dir", "none"], ["none"]),
        (["--normal_video_dir", "none"], ["--normal_video_dir none"]),
        (["--eval_dir", "none.pth"], ["none.pth"]),
        (["--config", "none.yaml"], ["none.yaml"]),
    ],
)
def test_bad_flags_of_train_mae(world, tmp_path, capsys, flags, words):
    refused(train(world, *flags, save=tmp_path / "new"), capsys, *words)


def test_bad_dataset_and_settings_of_train_mae(world, tmp_path, capsys):
    refused(train(world, "--epoch", "7"), capsys, "train.yaml", "epoch")
    save_yaml({"sise": "nano"}, tmp_path / "c.yaml")
    refused(train(world, "--config", str(tmp_path / "c.yaml")), capsys, "unknown key 'sise'")
    copy = copy_world(world, tmp_path / "copy")
    (copy.data / "group1" / "0" / "2.pt").write_bytes(b"x")
    refused(train(copy, "--step_num", "0", save=tmp_path / "a"), capsys, "2.pt")
    write_clip(copy.data / "group1" / "0" / "2", torch.full((4, 4, 4, 4), float("nan")), "latent")
    refused(train(copy, "--step_num", "0", save=tmp_path / "b"), capsys, "2.pt", "not finite")
    write_clip(copy.data / "group1" / "0" / "2", torch.zeros(4, 2, 4, 4), "latent")
    refused(train(copy, "--step_num", "0", save=tmp_path / "c"), capsys, "2.pt", "shape")
    save_split(Split(list(range(22)), HELD_NORMAL), tmp_path / "all.pth")
    refused(
        train(copy, "--eval_dir", str(tmp_path / "all.pth"), save=tmp_path / "d"),
        capsys,
        "group1/0",
        "0 clips not held out",
    )
    refused(train(copy, "--no-train", save=tmp_path / "e"), capsys, "0.pth", "no such file")


def test_a_detector_with_broken_weights_is_not_counted_as_safe(world, tmp_path, capsys):
    copy = copy_world(world, tmp_path / "copy")
    detector = build_detector("nano", (4, 4, 4, 4), "latent", 0)
    with torch.no_grad():
        detector.model.classifier.bias.fill_(float("nan"))
    detector.about = {"eval_sha256": sha256(copy.eval), "category": "bright"}
    save_detector(detector, copy.save / "1" / "2.pth")
    refused(embed(copy, save=tmp_path / "r"), capsys, "not finite")
