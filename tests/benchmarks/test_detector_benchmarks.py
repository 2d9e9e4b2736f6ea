"""Benchmarks of the detectors: the plain way does what it says, and the figures are those of what
was run."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

import gen_eval_set
import train_mae
from benchmarks.detectors import calibration, plain, plain_way
from lvd.data.clip_file import clip_path, read_clip
from lvd.data.split import load_split
from lvd.detectors.detector import load_detector, predict
from lvd.utils.files import load_torch
from tests.worlds.benchmark_figures import read_figures
from tests.worlds.detector_world import HELD_NORMAL, HELD_UNSAFE, UNSAFE, copy_world, make_world
from tests.worlds.recording_world import record, write_labels


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("plain"), "video")


def train(world, folder, epochs=2):
    return list(
        plain_way.train(
            world.data, load_split(world.eval), [(1, 0), (2, 0)], epochs, 1e-3, folder, "nano"
        )
    )


def test_the_plain_way_trains_on_what_is_not_held_out_and_votes_on_what_is(world, tmp_path):
    copy = copy_world(world, tmp_path / "copy")
    for row in HELD_UNSAFE:
        for group in UNSAFE:
            path = clip_path(copy.data / f"group{group}" / "0" / str(row), "video")
            if path.exists():
                path.write_bytes(b"not a clip")
    for row in HELD_NORMAL:
        clip_path(copy.data / "normal" / "0" / str(row), "video").write_bytes(b"not a clip")
    assert len(train(copy, tmp_path / "d")) == 2
    split, shape = load_split(world.eval), (3, 8, 32, 32)
    found = list(plain_way.embed(world.data, split, [(1, 0), (2, 0)], tmp_path / "d", "nano"))
    for group, votes in zip((1, 2), found, strict=True):
        model = plain_way.network("nano", shape, None)
        model.load_state_dict(torch.load(tmp_path / "d" / str(group) / "0.pth", weights_only=True))
        model.eval()
        assert {label: list(rows) for label, rows in votes.items()} == {
            "1": list(map(str, HELD_UNSAFE)),
            "0": list(map(str, HELD_NORMAL)),
        }
        for label, folder in (("1", "eval_set"), ("0", "eval_normal")):
            for row, vote in votes[label].items():
                clip = read_clip(world.root / folder / "0" / f"{row}.mp4")  # [3, F, H, W]
                mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in plain_way.IMAGENET)
                with torch.no_grad():
                    logits = model(((clip - mean) / std).transpose(0, 1)[None]).logits[0]
                assert vote == int(logits[1] >= logits[0])


def test_the_plain_way_decodes_every_clip_again_for_every_detector_and_epoch(
    world, tmp_path, monkeypatch
):
    decoded = []
    monkeypatch.setattr(
        plain_way, "read_clip", lambda path: decoded.append(path) or read_clip(path)
    )
    train(world, tmp_path / "d", epochs=3)
    # 9 unsafe and 9 normal clips, of each one for validation; one more look for the clips' shape
    assert len(decoded) == 2 * (3 * 16 + 2 + 1)
    decoded.clear()
    list(
        plain_way.embed(
            world.data, load_split(world.eval), [(1, 0), (2, 0)], tmp_path / "d", "nano"
        )
    )
    assert len(decoded) == 2 * (len(HELD_UNSAFE) + len(HELD_NORMAL) + 1)


def test_the_plain_way_learns(world, tmp_path):
    """An untrained network happens to tell these clips apart, hardly; a trained one is sure."""
    list(plain_way.train(world.data, load_split(world.eval), [(1, 2)], 10, 1e-3, tmp_path, "nano"))
    off = []
    for state in (None, torch.load(tmp_path / "1" / "2.pth", weights_only=True)):
        model = plain_way.network("nano", (3, 8, 32, 32), None).eval()
        model.load_state_dict(state or model.state_dict())
        off.append(
            max(
                abs(
                    plain_way.probability(model, world.root / folder / "2" / f"{row}.mp4", "cpu")
                    - label
                )
                for label, folder, rows in (
                    (1, "eval_set", (1, 5, 11)),
                    (0, "eval_normal", HELD_NORMAL),
                )
                for row in rows
            )
        )
    assert off[1] < 0.15 < off[0], off


def recordings(root, each=6):
    """Two recordings of twice `each` videos and two steps, labels, and the build_x0.yaml that names
    them."""
    for seed, kind in enumerate(("unsafe", "normal")):
        record(root / kind / "pred_x0.pth", 2 * each, seed, 2)
    labels = write_labels(
        root / "label.csv", {"first": [*range(each)], "second": [*range(each, 2 * each)]}
    )
    config = root / "build_x0.yaml"
    config.write_text(
        f"sample_config: MagicTime/sample_configs/Tiny.yaml\npred_x0: {root}/unsafe/pred_x0.pth\n"
        f"normal_pred_x0: {root}/normal/pred_x0.pth\nlabel_file_dir: {labels}\n"
    )
    return config


@pytest.mark.slow
def test_the_benchmark(tmp_path, capsys):
    config, out = recordings(tmp_path), tmp_path / "p.csv"
    train_config = tmp_path / "train.yaml"
    train_config.write_text(
        "size: nano\nepoch: 1\nbatch_size: 8\nworkers: 1\noperating_point: validation\n"
    )
    flags = [
        "--config",
        config,
        "--train_config",
        train_config,
        "--out",
        out,
        "--dir",
        tmp_path / "disk",
        "--gpu_num",
        -1,
    ]
    (tmp_path / "disk").mkdir()
    ways = "grid, clip files; grid, recordings"
    assert plain.main(list(map(str, [*flags, "--steps", 0, "--epoch", 1, "--ways", ways]))) == 0
    assert not list((tmp_path / "disk").iterdir())
    parts = read_figures(out)
    measured, seconds, disk = parts["plain way as measured"], parts["seconds"], parts["MB"]
    assert list(seconds) == ["plain", *ways.split("; ")]
    for key in ("clips", "train", "embed"):  # one of two steps
        for unit in ("seconds", "CPU seconds"):
            assert (
                parts[unit]["plain"][key] == pytest.approx(2 * measured[unit][key])
                and measured[unit][key] > 0
            )
    assert disk["plain"]["detectors"] == pytest.approx(2 * measured["MB"]["detectors"])
    assert disk["grid, recordings"]["clips"] < 0.01 < disk["grid, clip files"]["clips"]
    assert disk["grid, recordings"]["detectors"] == pytest.approx(
        disk["grid, clip files"]["detectors"], rel=0.05
    )
    for way in ways.split("; "):
        ratio = parts["against the plain way"][way]
        assert ratio["train"] == pytest.approx(seconds["plain"]["train"] / seconds[way]["train"])
        assert ratio["disk"] == pytest.approx(disk["plain"]["together"] / disk[way]["together"])
        assert {"mean of steps", "lambda 0.6, eta 1", "argmax, mean of steps"} == set(
            parts["accuracy"][way]
        )
    assert parts["accuracy"]["grid, clip files"] == parts["accuracy"]["grid, recordings"]
    assert set(parts["accuracy"]["plain"]) == {"mean of steps", "lambda 0.6, eta 1"}
    assert str(tmp_path) not in out.with_suffix(".txt").read_text()


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--ways", "grid"], "--ways grid"),
        (["--epoch", "0"], "--epoch 0"),
        (["--config", "none.yaml"], "none.yaml"),
        (["--size", "huge"], "--size"),
    ],
)
def test_bad_flags(tmp_path, capsys, flags, said):
    record(tmp_path / "pred_x0.pth", 4, 0, 2)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"sample_config: MagicTime/sample_configs/Tiny.yaml\npred_x0: {tmp_path}/pred_x0.pth\n"
        f"normal_pred_x0: {tmp_path}/pred_x0.pth\nlabel_file_dir: {tmp_path}/label.csv\n"
    )
    assert plain.main(["--config", str(config), *flags]) == 2
    assert said in capsys.readouterr().err


# --- ways to calibrate ---


@pytest.mark.slow
def test_ways_to_calibrate(tmp_path):
    config, out, models = recordings(tmp_path, 12), tmp_path / "c.csv", tmp_path / "d"
    assert (
        gen_eval_set.main(["--config", str(config), "--save_path", str(tmp_path / "eval.pth")]) == 0
    )
    assert (
        train_mae.main(
            [
                "--recordings",
                str(config),
                "--eval_dir",
                str(tmp_path),
                "--save_dir",
                str(models),
                "--size",
                "nano",
                "--epoch",
                "1",
                "--workers",
                "1",
                "--gpu_num",
                "-1",
            ]
        )
        == 0
    )
    flags = [
        "--config",
        config,
        "--model_dir",
        models,
        "--eval_dir",
        tmp_path,
        "--every",
        1,
        "--out",
        out,
    ]
    assert calibration.main(list(map(str, flags))) == 0
    parts = read_figures(out)
    assert len(parts) == 3 and all(
        list(found) == list(calibration.WAYS) for found in parts.values()
    )
    # the raw ones by hand: each detector and class counts alike
    split, losses = load_split(tmp_path), []
    x0 = {kind: load_torch(tmp_path / kind / "pred_x0.pth") for kind in ("unsafe", "normal")}
    for group, step in ((g, s) for g in (1, 2) for s in (0, 1)):
        mine = [row for row in split.unsafe if row // 12 == group - 1]
        p = [
            predict(load_detector(models / str(group) / f"{step}.pth"), x0[kind][rows, step])
            .double()
            .numpy()
            for kind, rows in (("unsafe", mine), ("normal", split.normal))
        ]
        losses.append(-(np.log(p[0]).mean() + np.log(1 - p[1]).mean()) / 2)
    assert parts["held-out clips"]["raw"]["log_loss"] == pytest.approx(np.mean(losses), abs=1e-4)


@pytest.mark.parametrize(
    "way",
    [
        "temperature",
        "Platt, likelihood alone",
        "Platt, smoothed targets",
        "Platt with a prior (used)",
    ],
)
def test_every_way_finds_a_known_map(way):
    """From many clips, six normal ones for an unsafe one: the map is that of balanced classes."""
    rng, labels = np.random.default_rng(0), np.repeat([1, 0], [4000, 24000])
    true = 2 * rng.normal(np.where(labels == 1, 1, -1))  # log-odds at balanced classes
    fitted = calibration.WAYS[way](1 / (1 + np.exp(-2.5 * true)), labels)
    at = np.linspace(-3, 3, 7)
    assert fitted(1 / (1 + np.exp(-2.5 * at))) == pytest.approx(1 / (1 + np.exp(-at)), abs=0.02)
    assert log_loss(labels, fitted(1 / (1 + np.exp(-2.5 * true)))) < log_loss(
        labels, 1 / (1 + np.exp(-2.5 * true))
    )


def test_no_detectors_to_calibrate(tmp_path, capsys):
    assert (
        gen_eval_set.main(
            ["--config", str(recordings(tmp_path)), "--save_path", str(tmp_path / "eval.pth")]
        )
        == 0
    )
    assert (
        calibration.main(
            [
                "--config",
                str(tmp_path / "build_x0.yaml"),
                "--eval_dir",
                str(tmp_path),
                "--model_dir",
                str(tmp_path),
            ]
        )
        == 2
    )
    assert "--model_dir" in capsys.readouterr().err
