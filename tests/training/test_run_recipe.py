"""Settings of the networks that see all steps: their own sections of train_mae.yaml, apart from the
grid's keys."""

from argparse import Namespace

import pytest

import pretrain_mae
import train_mae
from lvd.errors import InputError
from lvd.training.recipes import BASE_LR, DEFAULT_CONFIG, RUN_RECIPES, read_settings, run_settings
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


def flags(*argv, script=train_mae):
    return script.build_parser().parse_args(list(argv))


@pytest.mark.parametrize("kind", ["shared", "pretrain"])
def test_the_grids_keys_are_the_grids(tmp_path, kind):
    save_yaml(GRID, tmp_path / "c.yaml")
    found = run_settings(kind, tmp_path / "c.yaml", Namespace())
    assert {key: found[key] for key in RUN_RECIPES[kind]} == RUN_RECIPES[kind]
    assert (found["size"], found["seed"], found["precision"], found["base_model"]) == (
        "nano",
        5,
        "bf16",
        None,
    )
    save_yaml({**GRID, "size": "base"}, tmp_path / "c.yaml")
    assert run_settings(kind, tmp_path / "c.yaml", Namespace())["lr"] == BASE_LR


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
    shared = run_settings("shared", path, flags("--model", "shared", "--lr", "0.5"))
    assert (shared["epoch"], shared["lr"], shared["seed"], shared["mask"]) == (3, 0.5, 6, 0.5)
    pretrain = run_settings("pretrain", path, flags("--mask", "0.9", script=pretrain_mae))
    assert (pretrain["epoch"], pretrain["lr"], pretrain["seed"], pretrain["mask"]) == (
        4,
        3e-3,
        5,
        0.9,
    )
    grid = read_settings(path, flags())
    assert (grid["epoch"], grid["lr"], grid["seed"], grid["mask"]) == (60, 1e-5, 5, 0.0)
    assert not {"shared", "pretrain"} & set(grid)


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
        run_settings("shared", tmp_path / "c.yaml", Namespace())


def test_a_typo_is_found_whatever_is_trained(tmp_path):
    save_yaml({"size": "nano", "pretrain": {"epok": 3}}, tmp_path / "c.yaml")
    for read in (
        lambda: read_settings(tmp_path / "c.yaml", flags()),
        lambda: run_settings("shared", tmp_path / "c.yaml", flags()),
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
        found = run_settings(kind, tmp_path / "c.yaml", Namespace())
        assert found == run_settings(kind, None, Namespace(size="nano"))
