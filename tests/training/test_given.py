"""No flag and no word changes nothing in silence: every one is used, checked or refused."""

import pytest

import pretrain_mae
import train_mae
from lvd.utils.files import load_torch, save_torch
from tests.worlds.detector_world import copy_world, make_world
from tests.worlds.refusals import refused
from tests.worlds.scripts import train

SHORT = ["--epoch", "1", "--batch_size", "8"]
SHARED = ["--model", "shared"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world with a grid in `save` and a shared detector in `save`_shared, both of SHORT."""
    world = make_world(tmp_path_factory.mktemp("given"))
    assert train(world, "--step_num", "0", base=[*SHORT, "--workers", "1"]) == 0
    assert train(world, *SHARED, base=SHORT, save=shared(world)) == 0
    return world


def shared(world):
    return world.root / "shared"


@pytest.mark.parametrize("mode", [[], SHARED, ["pretrain"]], ids=["grid", "shared", "pretrain"])
@pytest.mark.parametrize(
    "words, told",
    [
        (["--lr", "0"], ["lr 0.0", "from 1e-09 to 1"]),
        (["--lr", "1e-9999999"], ["lr 0.0"]),
        (["lr=0"], ["lr 0.0"]),
        (["--lr", "1e-30"], ["lr 1e-30"]),
        (["--lr", "1e308"], ["lr 1e+308"]),
        (["--seed", "9" * 20], ["seed 99999999999999999999", "4294967295"]),
        (["--epoch", "9" * 20], ["epoch 9999", "100000"]),
        (["--base_model", "somewhere"], ["--base_model somewhere", "nano", "--size base"]),
        (["base_model=somewhere"], ["base_model=somewhere", "nano", "--size base"]),
        (["--base_model", "x" * 5000], ["--base_model xxx", "--size base"]),
        (["--gpu_num", "-2"], ["--gpu_num -2", "-1 for the CPU"]),
    ],
)
def test_in_every_training(world, tmp_path, capsys, mode, words, told):
    save = tmp_path / "new"
    if mode == ["pretrain"]:
        flags = ["--data_dir", world.data, "--eval_dir", world.eval, "--save_dir", save, *words]
        status = pretrain_mae.main(list(map(str, flags)))
    else:
        status = train(world, *mode, *words, base=[], save=save)
    refused(status, capsys, *told, alone=True)
    assert not save.exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["operating_point=calibrated"], ["operating_point=calibrated", "embed_model.py"]),
        (["--together", "4", "dropout=0.1"], ["--together 4", "one by one"]),
        (["--together", "4", "--size", "base"], ["--together 4", "one by one"]),
        (["select=best", "average=0.2"], ["average=0.2", "select best"]),
        ([*SHARED, "--workers", "2"], ["--workers 2", "one network"]),
        ([*SHARED, "--recipe", "scratch"], ["--recipe scratch"]),
        ([*SHARED, "operating_point=argmax"], ["operating_point"]),
        ([*SHARED, "pretrain.mask=0.5"], ["pretrain.mask=0.5"]),
    ],
)
def test_in_one_training(world, tmp_path, capsys, words, told):
    refused(train(world, *words, base=[], save=tmp_path / "new"), capsys, *told)


@pytest.mark.parametrize("kind", ["grid", "shared"])
@pytest.mark.parametrize(
    "words, told",
    [
        (["--epoch", "7"], ["--epoch 7", "was trained with epoch 1"]),
        (["epoch=7"], ["epoch=7", "was trained with epoch 1"]),
        (["--size", "tiny"], ["--size tiny", "was trained with size 'nano'"]),
        (["--seed", "5"], ["--seed 5", "seed 2024"]),
        (["--batch_size", "9"], ["--batch_size 9", "batch_size 8"]),
        (["--lr", "0.1"], ["--lr 0.1", "was trained with lr"]),
        (["--precision", "bf16"], ["--precision bf16", "'float32'"]),
        (["--base_model", "x"], ["--base_model x", "nano"]),
        (["--workers", "3"], ["--workers 3"]),
        (["--together", "3"], ["--together 3"]),
    ],
)
def test_without_training(world, capsys, kind, words, told):
    save = world.save if kind == "grid" else shared(world)
    status = train(world, "--no-train", "--step_num", "0", *words, base=[], save=save)
    refused(status, capsys, *told)
    assert not (save / "evaluation.csv").exists()


def test_the_settings_of_the_saved_detectors_may_be_said(world, tmp_path, capsys):
    copy = copy_world(world, tmp_path / "copy")
    evaluate = ["--no-train", "--step_num", "0"]
    assert train(copy, *evaluate, "--workers", "1", base=SHORT) == 0
    assert train(copy, *evaluate, "epoch=1", "--recipe", "scratch", base=[]) == 0
    (tmp_path / "c.yaml").write_text("epoch: 1\nbatch_size: 8\nsize: nano\n")
    assert train(copy, *evaluate, "--config", str(tmp_path / "c.yaml"), base=[]) == 0
    (tmp_path / "c.yaml").write_text("epoch: 1\nbatch_size: 8\nsize: nano\nflip: false\n")
    status = train(copy, *evaluate, "--config", str(tmp_path / "c.yaml"), base=[])
    refused(status, capsys, "--config", "c.yaml", "flip False", "1/0.pth", "flip True")
    assert train(copy, *evaluate, base=SHORT, save=copy.root / "shared") == 0
    status = train(copy, *evaluate, "--model", "grid", base=[], save=copy.root / "shared")
    refused(status, capsys, "--model grid", "shared.pth")
    for path in copy.save.glob("*/*.pth"):  # as detectors of the paper: they do not say how
        content = load_torch(path)
        del content["about"]["settings"]
        save_torch(content, path)
    assert train(copy, *evaluate, "--epoch", "9", base=[]) == 0


@pytest.mark.parametrize("script", [train_mae, pretrain_mae])
def test_every_setting_that_is_a_flag_is_known(script):
    from lvd.training.given import given_settings

    args = script.build_parser().parse_args(["--lr", "0.5", "flip=true"])
    assert given_settings(args, "grid") == {"lr": "--lr 0.5", "flip": "flip=True"}
