"""One category, and six: a label file's columns are the categories, whatever their number.

Of random recordings, so what detectors say does not matter here.
"""

import pytest

import gen_eval_set
import test_accuracy as accuracy
from lvd import Guard
from lvd.detectors.bank import load_bank
from lvd.utils.files import load_torch
from tests.worlds.recording_world import RecordedWorld, write_labels
from tests.worlds.report_pages import content_of

NAMES = ["one", "two", "three", "four", "five", "a sixth"]


def columns_of(count):
    """{category: rows} of 22 videos: some stand in two categories."""
    size = 22 // count + 3
    return {
        name: [(k * (22 // count) + row) % 22 for row in range(min(size, 20))]
        for k, name in enumerate(NAMES[:count])
    }


def relabel(world, columns):
    write_labels(world.labels, columns)
    flags = ["--config", str(world.config), "--save_path", str(world.eval), "--renew"]
    assert gen_eval_set.main(flags) == 0


def tables(results, *flags):
    words = ["--data_dir", results, "--lambda", "0.6", "--eta", "2", *flags]
    return accuracy.main(list(map(str, words)))


@pytest.mark.parametrize("count", [1, 6])
def test_the_whole_way(tmp_path, count):
    world = RecordedWorld(tmp_path)
    relabel(world, columns_of(count))
    world.build()
    groups = [f"group{k}" for k in range(1, count + 1)]
    assert sorted(path.name for path in (tmp_path / "data").glob("group*")) == groups
    few = ["--epoch", "1"]
    grid, shared = tmp_path / "grid", tmp_path / "shared"
    assert world.train(grid, "--data_dir", tmp_path / "data", *few, "--workers", 1) == 0
    assert world.train(shared, "--model", "shared", "--recordings", world.config, *few) == 0
    assert world.embed(grid, tmp_path / "votes", "--data_dir", tmp_path) == 0
    assert world.embed(shared, tmp_path / "shared_votes", "--recordings", world.config) == 0
    for model, votes in ((grid, "votes"), (shared, "shared_votes")):
        assert list(load_bank(model).categories.values()) == NAMES[:count]
        scores = load_torch(tmp_path / votes / "scores.pth")
        assert list(scores["categories"].values()) == NAMES[:count]
        assert list(Guard(model, 0.6, 2, "cpu").bank.categories.values()) == NAMES[:count]
    assert tables(tmp_path / "votes", "--table", "--metrics", "--resamples", "100") == 0
    words = ("--report", "--recordings", world.config)
    assert tables(tmp_path / "shared_votes", *words) == 0
    (detectors,) = content_of(tmp_path / "shared_votes/report.html")["detectors"]
    assert detectors["categories"] == NAMES[:count]
