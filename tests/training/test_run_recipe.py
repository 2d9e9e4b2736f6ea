"""Settings of the networks that see all steps: their own sections of train_mae.yaml, apart from the
grid's keys."""

import re
from argparse import Namespace

import pytest

import pretrain_mae
import train_mae
from lvd.errors import InputError
from lvd.training.recipes import BASE_LR, DEFAULT_CONFIG, read_settings
from lvd.utils.files import save_yaml

GRID = {
    "size": "nano",
    "seed": 5,
    "precision": "bf16",
    "epoch": 60,
    "lr": 1e-5,
    "batch_size": 4,
    "mask": 0.0,
    "weight_decay": 0.01,
    "validation": 0.1,
    "workers": 2,
}

RECIPES = {
    "shared": {
        "epoch": 16,
        "batch_size": 256,
        "lr": 6e-3,
        "weight_decay": 0.5,
        "warmup": 0.1,
        "dropout": 0.0,
        "noise": 0.0,
        "flip": True,
        "mask": 0.5,
        "average": 0.3,
        "validation": 0.2,
        "false_positives": 0.05,
    },
    "pretrain": {
        "epoch": 10,
        "batch_size": 256,
        "lr": 3e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "dropout": 0.0,
        "noise": 0.0,
        "flip": True,
        "mask": 0.75,
        "average": 0.0,
    },
}
WRITTEN_BEFORE = {  # by the version before settings were typed: the dicts in its files
    "grid": {
        "size": "nano",
        "recipe": "scratch",
        "base_model": None,
        "seed": 2024,
        "workers": 3,
        "together": None,
        "precision": "float32",
        "operating_point": "argmax",
        "epoch": 60,
        "batch_size": 12,
        "lr": 6e-3,
        "weight_decay": 0.2,
        "warmup": 0.1,
        "dropout": 0.0,
        "noise": 0.0,
        "flip": True,
        "mask": 0.5,
        "smoothing": 0.0,
        "average": 0.3,
        "select": "last",
        "normals": "all",
        "validation": 0.2,
        "false_positives": 0.05,
    },
    "shared": {
        "size": "nano",
        "base_model": None,
        "seed": 2024,
        "precision": "float32",
        **RECIPES["shared"],
    },
    "released": {
        "size": "base",
        "recipe": "released",
        "base_model": "MCG-NJU/videomae-base",
        "seed": 2024,
        "workers": 1,
        "together": None,
        "precision": "float32",
        "operating_point": "argmax",
        "epoch": 10,
        "batch_size": 4,
        "lr": 1e-5,
        "weight_decay": 0.01,
        "warmup": 0.0,
        "dropout": 0.0,
        "noise": 0.0,
        "flip": False,
        "mask": 0.0,
        "smoothing": 0.0,
        "average": 0.0,
        "select": "last",
        "normals": "balanced",
        "validation": 0.1,
        "false_positives": 0.05,
    },
}


def flags(*argv, script=train_mae):
    return script.build_parser().parse_args(list(argv))


@pytest.mark.parametrize("kind", ["shared", "pretrain"])
def test_the_grids_keys_are_the_grids(tmp_path, kind):
    save_yaml(GRID, tmp_path / "c.yaml")
    settings = read_settings(tmp_path / "c.yaml", Namespace(), kind)
    common = {"size": "nano", "base_model": None, "seed": 5, "precision": "bf16"}
    assert settings.as_dict() == {**common, **RECIPES[kind]}
    save_yaml({**GRID, "size": "base"}, tmp_path / "c.yaml")
    assert read_settings(tmp_path / "c.yaml", Namespace(), kind).lr == BASE_LR


def test_each_has_a_section_and_flags_win(tmp_path):
    path = tmp_path / "c.yaml"
    save_yaml(
        {
            **GRID,
            "shared": {"epoch": 3, "lr": "2e-3", "seed": 6, "mask": None},
            "pretrain": {"epoch": 4},
        },
        path,
    )
    shared = read_settings(path, flags("--model", "shared", "--lr", "0.5"), "shared")
    assert (shared.epoch, shared.lr, shared.seed, shared.mask) == (3, 0.5, 6, 0.5)
    pretrain = read_settings(path, flags("--mask", "0.9", script=pretrain_mae), "pretrain")
    assert (pretrain.epoch, pretrain.lr, pretrain.seed, pretrain.mask) == (4, 3e-3, 5, 0.9)
    grid = read_settings(path, flags())
    assert (grid.epoch, grid.lr, grid.seed, grid.mask) == (60, 1e-5, 5, 0.0)
    assert not {"shared", "pretrain"} & set(grid.as_dict())


@pytest.mark.parametrize(
    "section, words",
    [
        ({"epoch": 0}, "epoch 0"),
        ({"epok": 3}, "shared: unknown key 'epok'"),
        ({"workers": 2}, "shared: unknown key 'workers'"),
        ([1], "shared: a mapping"),
    ],
)
def test_a_bad_section_is_named(tmp_path, section, words):
    save_yaml({"size": "nano", "shared": section}, tmp_path / "c.yaml")
    with pytest.raises(InputError, match=words):
        read_settings(tmp_path / "c.yaml", Namespace(), "shared")


def test_a_typo_is_found_whatever_is_trained(tmp_path):
    save_yaml({"size": "nano", "pretrain": {"epok": 3}}, tmp_path / "c.yaml")
    for read in (
        lambda: read_settings(tmp_path / "c.yaml", flags()),
        lambda: read_settings(tmp_path / "c.yaml", flags(), "shared"),
    ):
        with pytest.raises(InputError, match="c.yaml: pretrain: unknown key 'epok'"):
            read()


def test_the_shipped_comments_name_the_real_defaults(tmp_path):
    """What train_mae.yaml shows, its marks of comments taken away, changes nothing."""
    shown = DEFAULT_CONFIG.read_text().split("which wins:\n")[1]
    text = "".join(line.removeprefix("# ") for line in shown.splitlines(keepends=True))
    (tmp_path / "c.yaml").write_text("size: nano\n" + text)
    for kind in ("shared", "pretrain"):
        assert f"{kind}:" in text
        settings = read_settings(tmp_path / "c.yaml", Namespace(), kind)
        assert settings == read_settings(None, Namespace(size="nano"), kind)


@pytest.mark.parametrize("kind", ["grid", "shared", "pretrain"])
def test_words_after_the_flags_win(tmp_path, kind):
    """Over YAML and flags; those of its section over those without one."""
    path = tmp_path / "c.yaml"
    save_yaml({**GRID, "shared": {"epoch": 3}, "pretrain": {"epoch": 4}}, path)
    argv = ["--lr", "0.5", "--config", str(path), "lr=1e-3", "epoch=20", "size=tiny", "noise=0.1"]
    settings = read_settings(path, flags(*argv), kind)
    assert (settings.lr, settings.epoch, settings.size) == (1e-3, 20, "tiny")
    assert settings.noise == 0.1
    for section in ("shared", "pretrain"):
        args = flags(*argv, f"{section}.lr=2e-3")
        if section == kind:
            assert read_settings(path, args, kind).lr == 2e-3
        else:
            with pytest.raises(InputError, match=rf"{section}\.lr=0.002: for a {section} run"):
                read_settings(path, args, kind)


@pytest.mark.parametrize(
    "words, message",
    [
        (["epok=3"], "key=value: unknown key 'epok'"),
        (["shared.workers=3"], "key=value: shared: unknown key 'workers'"),
        (["epoch=many"], "epoch='many': a whole number is needed"),
        (["flip=1"], "flip 1: true or false"),
        (["base_model=5"], "base_model 5: a folder or hub name"),
        (["lr=2"], "lr 2.0: a number from 1e-09 to 1"),
        (["workers=3"], "workers=3: for the grid of detectors"),
        (["recipe=released"], "recipe=released: for the grid of detectors"),
        (["smoothing=0.1"], "unknown key 'smoothing'"),
        (["size=${oc.env:HOME}"], "only"),
    ],
)
def test_bad_words_are_named(words, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_settings(None, flags("--size", "nano", *words), "shared")


def test_detectors_of_earlier_versions_say_the_same_settings():
    """The dicts in their files, key by key and in order: their folders are resumed."""
    grid = read_settings(None, flags("--size", "nano", "--workers", "3"))
    shared = read_settings(None, flags("--size", "nano"), "shared")
    released = read_settings(None, flags())
    assert list(grid.as_dict().items()) == list(WRITTEN_BEFORE["grid"].items())
    assert list(shared.as_dict().items()) == list(WRITTEN_BEFORE["shared"].items())
    assert released.as_dict() == WRITTEN_BEFORE["released"]
    unlike = {"workers", "together", "operating_point"}
    identity = {key: value for key, value in grid.as_dict().items() if key not in unlike}
    assert grid.identity() == identity and shared.identity() == shared.as_dict()
