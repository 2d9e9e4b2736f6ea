"""The scripts on recordings in shards: what they make of the same recordings in one file."""

import pytest

import fit_rgb
from lvd.utils.files import load_torch
from lvd.x0 import shards
from lvd.x0.file import open_x0_file
from tests.worlds.recording_world import SHAPE, STEPS, RecordedWorld, all_same, magictime  # noqa: F401 (a fixture)
from tests.worlds.report_pages import content_of, report, write_recordings, write_votes

ROW_BYTES = STEPS * SHAPE[0] * SHAPE[1] * SHAPE[2] * SHAPE[3] * 2


@pytest.fixture
def five_rows(monkeypatch):
    """Shards of five rows."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * ROW_BYTES)


@pytest.fixture(scope="module")
def one_file(tmp_path_factory):
    return RecordedWorld(tmp_path_factory.mktemp("one"))


@pytest.fixture
def sharded(five_rows, tmp_path):
    world = RecordedWorld(tmp_path / "sharded")
    assert len(open_x0_file(world.root / "unsafe/pred_x0.pth").files) == 5
    return world


def clips_of(world):
    files = [
        file
        for part in ("data", "eval_set", "eval_normal")
        for file in (world.root / part).rglob("*")
    ]
    clips = [file for file in files if file.stem.isdecimal() and file.is_file()]
    return {file.relative_to(world.root): file.read_bytes() for file in clips}


def test_clips_split_detectors_and_votes(one_file, sharded):
    assert one_file.eval.read_bytes() == sharded.eval.read_bytes()
    for world in (one_file, sharded):
        world.build()
        flags = ["--recordings", world.config]
        assert world.train(world.root / "grid", *flags, "--workers", 1, "--epoch", 1) == 0
        assert world.embed(world.root / "grid", world.root / "results", *flags) == 0
    assert clips_of(one_file) == clips_of(sharded) and len(clips_of(sharded)) > 100
    all_same(one_file.root / "grid", sharded.root / "grid")
    votes = [load_torch(world.root / "results/results.pth") for world in (one_file, sharded)]
    assert votes[0] == votes[1]


def test_the_rgb_matrix(one_file, sharded, magictime, tmp_path):  # noqa: F811
    found = []
    for world in (one_file, sharded):
        world.write_config(sample_config=str(magictime[0]))
        path = tmp_path / f"{len(found)}.json"
        flags = ["--recordings", str(world.config), "--eval_dir", str(world.eval)]
        assert fit_rgb.main([*flags, "--save_path", str(path), "--gpu_num", "-1"]) == 0
        found.append(path.read_bytes())
    assert found[0] == found[1]


def test_the_report_page(tmp_path, monkeypatch):
    results, _ = write_votes(tmp_path)
    pages = []
    for name, size in (("one", shards.SHARD_BYTES), ("sharded", 30 * 6 * 4**2 * 8**2 * 2)):
        monkeypatch.setattr(shards, "SHARD_BYTES", size)
        config = write_recordings(tmp_path / name)
        page = tmp_path / name / "report.html"
        assert report(results, page, "--recordings", config) == 0
        pages.append(content_of(page))
    assert len(open_x0_file(tmp_path / "sharded/unsafe/pred_x0.pth").files) == 3
    assert pages[0] == pages[1]
