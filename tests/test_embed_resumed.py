"""embed_model.py goes on with the step at which it was stopped."""

import shutil

from detector_world import make_world
from lvd.files import load_torch, save_torch
from test_train_embed_accuracy import embed, refused, train


def test_a_stopped_embedding_goes_on(tmp_path, capsys):
    """Stopped at step 2; scores of the steps before it are taken as they are, unless something else made them."""
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
    expected, found, other = (load_torch(folder / "scores.pth")["scores"] for folder in
                              (world.results, world.root / "new", world.root / "other"))
    assert other == expected  # scores do not depend on the operating point, votes do
    assert found["1"]["2"]["1"][0] == 0.125
    found["1"]["2"]["1"][0] = expected["1"]["2"]["1"][0]
    assert found == expected and not unfinished.exists()
