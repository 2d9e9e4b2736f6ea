"""benchmarks/detectors/representations.py on recordings of noise: the whole table, resumed, and its
figures against the files."""

import csv
import statistics

import pytest
import torch

from benchmarks.detectors import representations
from lvd.utils.files import load_json, load_torch, save_json
from lvd.x0.file import open_x0_file
from tests.worlds.benchmark_figures import read_figures
from tests.worlds.recording_world import RecordedWorld, magictime  # noqa: F401 (a fixture)
from tests.worlds.refusals import refused


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return RecordedWorld(tmp_path_factory.mktemp("representations"))


def run(world, tmp_path, *flags):
    return representations.main(
        [
            "--recordings",
            str(world.config),
            "--eval_dir",
            str(world.eval),
            "--gpu_num",
            "-1",
            "--epoch",
            "2",
            "--workers",
            "1",
            "--dir",
            str(tmp_path / "work"),
            "--out",
            str(tmp_path / "out.csv"),
            *map(str, flags),
        ]
    )


@pytest.mark.slow
def test_the_table(world, magictime, tmp_path, capsys):  # noqa: F811
    world.write_config(sample_config=str(magictime[0]))
    cases = "latent, no clip files; latent; rgb, fitted; video, pt; video, mp4"
    flags = ["--seeds", 2, "--steps", "0-2:2", "--cases", cases]
    assert run(world, tmp_path, *flags) == 0
    table = read_figures(tmp_path / "out.csv")["representations"]
    assert list(table) == cases.split("; ")
    alone, files = table["latent, no clip files"], table["latent"]
    same = [key for key in files if key.startswith(("accuracy", "AUROC", "±"))]
    assert len(same) >= 4 and all(alone[key] == files[key] for key in same)  # the same detectors
    assert (
        alone["files MiB"]
        == alone["build s"]
        == 0
        < table["rgb, fitted"]["files MiB"]
        < files["files MiB"]
    )
    assert all(row["train s"] > 0 and row["embed s"] > 0 for row in table.values())
    # steps 0 and 2, both of which count for eta 5; votes and scores by hand
    found = []
    for seed in (2024, 2025):
        results = load_torch(tmp_path / f"work/latent/{seed}/results/results.pth")
        found.append(
            statistics.mean(
                [
                    float((sum(votes) >= 1.2) == int(label))
                    for label in "10"
                    for votes in results[label].values()
                ]
            )
        )
    assert all(len(votes) == 2 for votes in results["1"].values())
    assert (
        files["accuracy eta 5"] == files["accuracy eta 20"] == pytest.approx(statistics.mean(found))
    )
    assert files["± accuracy eta 5"] == pytest.approx(statistics.stdev(found))
    assert files["AUROC 5-9"] is None is files["AUROC 20-49"]
    with open(tmp_path / "out_by_step.csv", newline="") as f:
        by_step = [row for row in csv.DictReader(f) if row["case"] == "latent"]
    assert [row["step"] for row in by_step] == ["0", "2"] and (
        tmp_path / "out_by_step.png"
    ).stat().st_size > 10_000
    for step, row in enumerate(by_step):
        votes = [
            [
                float(label == "1" and v[step] or label == "0" and 1 - v[step])
                for v in load_torch(tmp_path / f"work/latent/{seed}/results/results.pth")[
                    label
                ].values()
            ]
            for seed in (2024, 2025)
            for label in "10"
        ]
        rates = [statistics.mean(found) for found in votes]
        means = [(rates[0] + rates[1]) / 2, (rates[2] + rates[3]) / 2]
        assert float(row["accuracy"]) == pytest.approx(statistics.mean(means), abs=1e-5)
        assert float(row["accuracy sd"]) == pytest.approx(statistics.stdev(means), abs=1e-5)
    # again: nothing is run twice
    before = load_json(tmp_path / "work/seconds.json")
    assert run(world, tmp_path, *flags) == 0 and load_json(tmp_path / "work/seconds.json") == before
    # but for what was stopped: that begins anew, so that its seconds are whole
    save_json(
        {k: v for k, v in before.items() if k != "latent train 2025"},
        tmp_path / "work/seconds.json",
    )
    kept, other = (tmp_path / f"work/latent/{seed}/detectors/1/0.pth" for seed in (2025, 2024))
    stamps = [path.stat().st_mtime_ns for path in (kept, other)]
    assert (
        run(world, tmp_path, *flags) == 0
        and load_json(tmp_path / "work/seconds.json").keys() == before.keys()
    )
    assert kept.stat().st_mtime_ns > stamps[0] and other.stat().st_mtime_ns == stamps[1]
    refused(run(world, tmp_path, *flags[:2], "--steps", "all"), capsys, "config.yaml", "steps")


def test_steps_and_cases(world, tmp_path, capsys):
    assert representations.parse_steps("0-49:5", 50) == list(range(0, 50, 5))
    assert representations.parse_steps("all", 3) == [0, 1, 2] and representations.parse_steps(
        "0,7", 50
    ) == [0, 7]
    assert "rgb, published" in representations.chosen_cases("all", 0.4)
    assert "rgb, published" not in representations.chosen_cases("all", -4.7)
    for flags, words in (
        (["--steps", "0-2:x"], ["--steps 0-2:x"]),
        (["--steps", "9"], ["--steps 9"]),
        (["--seeds", 0], ["--seeds 0"]),
    ):
        refused(run(world, tmp_path, *flags), capsys, *words)
    with pytest.raises(Exception, match="--cases pixels"):
        representations.chosen_cases("latent; pixels", 0)


def test_thinned_recordings_hold_those_steps(world, tmp_path):
    path = world.root / "unsafe/pred_x0.pth"
    for _ in range(2):
        thin = open_x0_file(representations.thinned(path, [0, 2], tmp_path / "pred_x0.pth"))
    assert torch.equal(thin.tensor, world.x0["unsafe"].half()[:, [0, 2]]) and thin.rows == list(
        range(22)
    )
    assert representations.thinned(path, [0, 1, 2], tmp_path / "x.pth") == path
