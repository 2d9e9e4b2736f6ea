"""Damaged detector files are refused in one line that names file and key, at every door."""

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

import embed_model
from lvd import Guard
from lvd.detectors.bank import load_bank
from lvd.detectors.detector import build_detector, load_detector, save_detector
from lvd.detectors.pretrained import FORMAT, load_pretrained
from lvd.detectors.shared import build_shared, load_shared, save_shared
from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch, sha256
from tests.worlds.damaged_detectors import BARE, GRID, PRETRAINED, SAMPLING, SHAPE, SHARED, weight
from tests.worlds.detector_world import CATEGORIES, STEPS, make_detectors, make_world
from tests.worlds.refusals import refused

ABOUT = {
    "eval_sha256": "e" * 64,
    "dataset": {"pred_x0_made_by": "recording", "rgb_matrix": None},
    "sampling": SAMPLING,
    "rows": {"unsafe": [0, 1], "normal": [2]},
    "a key of tomorrow": [{"with": 1.5, "and": None}],
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Good files of every kind: {kind: path}. Read only."""
    root = tmp_path_factory.mktemp("good")
    grid = build_detector("nano", SHAPE, "latent", 1)
    place = {"group": 1, "step": 0, "category": "bright", "categories": ["bright"]}
    grid.about = {**ABOUT, **place}
    paths = {kind: root / f"{kind}.pth" for kind in ("shared", "bare", "pretrained")}
    paths["grid"] = root / "grid" / "1" / "0.pth"
    save_detector(grid, paths["grid"])
    content = load_torch(paths["grid"])
    keys = ("state_dict", "config", "representation", "about")
    encoder = {**{key: content[key] for key in keys}, "format": FORMAT}
    names = [name for name in encoder["state_dict"] if name.startswith("videomae.")]
    encoder["state_dict"] = {name: encoder["state_dict"][name] for name in names}
    save_torch(encoder, paths["pretrained"])
    save_shared(shared_detector(), paths["shared"])
    config = VideoMAEConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        patch_size=56,
    )
    save_torch(VideoMAEForVideoClassification(config).state_dict(), paths["bare"])
    return paths


def shared_detector():
    """Untrained but for the classifier, which starts at zero."""
    found = build_shared("nano", SHAPE, "latent", 1, list(range(STEPS)), list(CATEGORIES))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        found.net.classifier.weight.normal_(generator=draw)
    found.thresholds = [[0.5] * 2 for _ in range(STEPS)]
    found.calibrations = [[None] * 2 for _ in range(STEPS)]
    found.about = dict(ABOUT)
    return found


def write(source, change, path):
    content = load_torch(source)
    change(content)
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)  # as it is: save_torch would store what a view leaves out


def says(words, path, load):
    """`load` refuses in one line that names the file and has these words."""
    with pytest.raises(InputError) as error:
        load()
    message = str(error.value)
    for word in (path.name, *words):
        assert word in message, message
    assert "\n" not in message and len(message.replace(str(path), path.name)) < 250, message


def asked(folder):
    """A bank whose detectors have been read."""
    bank = load_bank(folder)
    bank.preload(bank.steps, 1 << 30)


def guard(folder):
    return Guard(folder, eta=1, device="cpu", decode=lambda latents: latents)


def test_the_good_files_are_read(good):
    asked(good["grid"].parent.parent)
    asked(good["shared"])
    load_detector(good["bare"])
    load_pretrained(good["pretrained"]).into(build_detector("nano", SHAPE, "latent", 2).model)


@pytest.mark.parametrize("change, words", GRID)
def test_grid(good, tmp_path, change, words):
    path = tmp_path / "1" / "0.pth"
    write(good["grid"], change, path)
    says(words, path, lambda: asked(tmp_path))
    says(words, path, lambda: guard(tmp_path))
    if "holds the detector" not in words[0]:  # which its folder tells
        says(words, path, lambda: load_detector(path))


@pytest.mark.parametrize("change, words", SHARED)
def test_shared(good, tmp_path, change, words):
    path = tmp_path / "shared.pth"
    write(good["shared"], change, path)
    for load in (load_shared, load_bank, guard):
        says(words, path, lambda load=load: load(path))


@pytest.mark.parametrize("change, words", BARE)
def test_bare(good, tmp_path, change, words):
    path = tmp_path / "1" / "0.pth"
    write(good["bare"], change, path)
    for load in (asked, guard):
        says(words, path, lambda load=load: load(tmp_path))


@pytest.mark.parametrize("change, words", PRETRAINED)
def test_pretrained(good, tmp_path, change, words):
    path = tmp_path / "pretrained.pth"
    write(good["pretrained"], change, path)
    model = build_detector("nano", SHAPE, "latent", 2).model
    says(words, path, lambda: load_pretrained(path).into(model))


def test_pretrained_that_is_replaced(good, tmp_path):
    path = tmp_path / "pretrained.pth"
    write(good["pretrained"], lambda content: None, path)
    found = load_pretrained(path)
    write(good["pretrained"], weight(lambda w: w + 1), path)
    model = build_detector("nano", SHAPE, "latent", 2).model
    says(["has changed"], path, lambda: found.into(model))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Clips, six detectors of the grid, and a shared one of the same."""
    world = make_world(tmp_path_factory.mktemp("clips"))
    make_detectors(world.save, eval_sha256=sha256(world.eval))
    shared = shared_detector()
    shared.about["eval_sha256"] = sha256(world.eval)
    save_shared(shared, world.root / "shared" / "shared.pth")
    return world


def set_std(content):
    content["std"] = [float("inf")] * 4


def set_mean(content):
    content["mean"] = torch.zeros(STEPS, 1)


@pytest.mark.parametrize(
    "file, change, words",
    [
        ("detectors/2/1.pth", set_std, "std.0: found inf"),
        ("detectors/1/2.pth", weight(torch.zeros_like), "the same score"),
        ("shared/shared.pth", set_mean, "mean of shape [3, 4]"),
    ],
)
def test_a_script_refuses_them_in_one_line(world, tmp_path, capsys, file, change, words):
    path = world.root / file
    before = path.read_bytes()
    model_dir = world.save if "detectors" in file else path
    argv = ["--model_dir", model_dir, "--eval_dir", world.eval, "--data_dir", world.root]
    argv += ["--save_dir", tmp_path, "--gpu_num", "-1"]
    try:
        write(path, change, path)
        status = embed_model.main([str(word) for word in argv])
    finally:
        path.write_bytes(before)
    refused(status, capsys, str(path), words)
