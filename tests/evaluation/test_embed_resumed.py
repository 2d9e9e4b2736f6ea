"""embed_model.py goes on with the step at which it was stopped."""

import os
import shutil

import pytest
import torch

import embed_model
from lvd.utils.files import load_torch, save_torch
from tests.worlds.detector_world import copy_world, make_world
from tests.worlds.refusals import refused
from tests.worlds.scripts import embed, train


def test_a_stopped_embedding_goes_on(tmp_path, capsys):
    """Stopped at step 2; scores of the steps before it are taken as they are, unless something else
    made them."""
    world = make_world(tmp_path)
    assert train(world) == 0 and embed(world, "--operating_point", "argmax") == 0
    clip = world.root / "eval_normal" / "2" / "8.pt"
    good, unfinished = clip.read_bytes(), world.root / "new" / "unfinished"
    clip.write_bytes(b"x")
    refused(embed(world, "--operating_point", "argmax", save=world.root / "new"), capsys, "8.pt")
    assert sorted(path.name for path in unfinished.iterdir()) == ["0.pth", "1.pth"]
    assert sorted(path.name for path in unfinished.parent.iterdir()) == ["unfinished"]
    step = load_torch(unfinished / "0.pth")
    step["found"]["scores"]["1"]["2"][0] = 0.125  # to be recognised
    save_torch(step, unfinished / "0.pth")
    clip.write_bytes(good)
    shutil.copytree(unfinished.parent, world.root / "other")
    assert embed(world, "--operating_point", "argmax", save=world.root / "new") == 0
    assert embed(world, "--operating_point", "validation", save=world.root / "other") == 0
    expected, found, other = (
        load_torch(folder / "scores.pth")["scores"]
        for folder in (world.results, world.root / "new", world.root / "other")
    )
    assert other == expected  # scores do not depend on the operating point, votes do
    assert found["1"]["2"]["1"][0] == 0.125
    found["1"]["2"]["1"][0] = expected["1"]["2"]["1"][0]
    assert found == expected and not unfinished.exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("finished"))
    assert train(world) == 0
    return world


def changed(path):
    """Write a clip anew with other values, of the same size."""
    torch.save(torch.load(path, weights_only=True) * 0.5, path)


def test_a_finished_embedding_is_found_so(trained, tmp_path, capsys):
    world = copy_world(trained, tmp_path / "world")
    assert embed(world) == 0 and "votes recorded" in capsys.readouterr().out
    scores, stamp = world.results / "scores.pth", (world.results / "scores.pth").stat().st_mtime_ns
    assert embed(world) == 0 and "votes found finished" in capsys.readouterr().out
    assert scores.stat().st_mtime_ns == stamp
    detector = world.save / "2" / "1.pth"
    for change in (
        lambda: changed(world.root / "eval_normal/2/8.pt"),
        lambda: changed(world.root / "eval_set/0/5.pt"),
        lambda: save_torch(load_torch(detector), detector),
        (world.results / "results.pth").unlink,
        lambda: scores.write_bytes(b"x"),
        lambda: os.utime(detector),
        lambda: (world.results / "inputs.json").write_text("{"),
    ):
        change()
        assert embed(world) == 0 and "votes recorded" in capsys.readouterr().out
        assert embed(world) == 0 and "votes found finished" in capsys.readouterr().out
    assert (
        embed(world, "--label_file_dir", str(world.labels)) == 0
    )  # scores.pth gets to know the categories
    assert load_torch(scores)["members"]
    refused(embed(world, "--operating_point", "argmax"), capsys, "operating_point")
    split = load_torch(world.eval)
    save_torch({**split, "unsafe": split["unsafe"][:-1]}, world.eval)
    refused(embed(world, "--allow_other_eval"), capsys, "eval.pth was made anew")


def test_a_word_that_changes_no_vote_is_refused(capsys):
    assert embed_model.main(["epoch=3"]) == 2
    assert "epoch=...: votes depend on operating_point alone" in capsys.readouterr().err
