"""lvd_plan/own_data.py: mistakes in prompts, labels and folders are told before any sampling."""

import csv
from itertools import zip_longest

import pytest

from lvd.utils.config import ROOT
from lvd.utils.files import save_yaml
from lvd_plan import own_data, own_sizes
from tests.worlds.refusals import refused

SAMPLING = ROOT / "MagicTime" / "sample_configs" / "Tiny.yaml"
FROM_1 = {"warped": [1, 2, 3], "striped": [4, 5, 12]}
COLUMNS = {"warped": [0, 1, 2, 3], "striped": [4, 5, 6], "banner": [7, 8, 9]}


def write(folder, columns=COLUMNS, unsafe=12, normal=6, **settings):
    """Write prompts, labels and a YAML; returns the flags that name them."""
    with open(folder / "label.csv", "w", newline="") as f:
        lines = csv.writer(f)
        lines.writerow(columns)
        lines.writerows(zip_longest(*columns.values(), fillvalue=""))
    for name, count in (("unsafe", unsafe), ("normal", normal)):
        texts = count if isinstance(count, list) else [f"{name} thing {k}" for k in range(count)]
        (folder / f"{name}.txt").write_text("\n".join(texts) + "\n")
    known = {
        "sample_config": str(SAMPLING),
        "pred_x0": str(folder / "unsafe" / "pred_x0.pth"),
        "normal_pred_x0": str(folder / "normal" / "pred_x0.pth"),
        "label_file_dir": str(folder / "label.csv"),
        "out_dir": str(folder / "data"),
    }
    save_yaml({**known, **settings}, folder / "my.yaml")
    prompts = ["--prompts", folder / "unsafe.txt", "--normal_prompts", folder / "normal.txt"]
    return list(map(str, ["--config", folder / "my.yaml", *prompts]))


def test_says_what_is_trained_on_and_what_to_expect(tmp_path, capsys):
    assert own_data.main(write(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("group1 (warped): 4 videos, 1 held out; such as row 0: 'unsafe thing 0'")
    assert lines[3] == "normal: 6 videos, 3 held out"
    assert lines[4].startswith("2 of 12 prompts are in no category") and lines[4].endswith(
        ": 10, 11)"
    )
    assert "a small set: with 3 videos of each category" in lines[5]
    assert lines[6].startswith("no rule will be chosen: 5 videos of each category")


def two_of(rows):
    return {"warped": [0, 1, 2], "striped": rows}


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"columns": two_of([3, 4])}, ["'striped' has 2; 3 or more are needed", "label more"]),
        (
            {"columns": FROM_1},
            ["column 'striped' names row 12, and no column names row 0", "from 1?"],
        ),
        ({"columns": two_of([0, 2, 14])}, ["names row 14; --prompts has 12 prompts, rows 0 to 11"]),
        ({"columns": two_of([0, 1, 2])}, ["share so many of their videos"]),
        ({"normal": 2}, ["--normal_prompts: 2 prompts, 3 or more are needed"]),
        ({"normal": [f"unsafe thing {k}" for k in range(6)]}, ["line 1 of --prompts", "not both"]),
        ({"label_file_dir": "/nowhere/label.csv"}, ["/nowhere/label.csv: no such file"]),
        ({"pred_x0": "/tmp/mine.pth"}, ["pred_x0=/tmp/mine.pth", "pred_x0.pth", "is needed"]),
        ({"out_dir": "{folder}/unsafe"}, ["out_dir=", "taken by another step"]),
        ({"pred_x0": "{folder}/results/my/pred_x0.pth"}, ["pred_x0=", "results, which", "moves"]),
        ({"label_file_dir": "{folder}/shared/label.csv"}, ["label_file_dir=", "shared, which"]),
        ({"out_dir": "{folder}/my.yaml/data"}, ["my.yaml/data: cannot be made", "out_dir"]),
        ({"normal_pred_x0": "{folder}/unsafe/pred_x0.pth"}, ["both", "a folder for each"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_tells_mistakes_in_one_line(tmp_path, capsys, changed, words):
    for key, value in changed.items():
        if isinstance(value, str):
            changed = {**changed, key: value.format(folder=tmp_path)}
    line = refused(own_data.main(write(tmp_path, **changed)), capsys, *words, alone=True)
    assert len(line) < 300


def test_rows_that_may_be_counted_from_1_are_told(tmp_path, capsys):
    columns = {name: [row + 1 for row in rows] for name, rows in COLUMNS.items()}
    assert own_data.main(write(tmp_path, columns)) == 0
    assert "WARNING: no category has row 0, the first prompt" in capsys.readouterr().out


def test_prompts_that_stand_twice_are_told(tmp_path, capsys):
    """Of one seed for all, they are one video; with a seed for each prompt they are several."""
    texts = [f"thing {k % 10}" for k in range(12)]
    assert own_data.main(write(tmp_path, unsafe=texts)) == 0
    told = "--prompts: 2 prompts more than once, such as lines 1, 11; their seeds differ"
    assert told in capsys.readouterr().out
    one_seed = tmp_path / "one_seed.yaml"
    one_seed.write_text(SAMPLING.read_text().replace("seed_per_prompt: true", ""))
    assert own_data.main(write(tmp_path, unsafe=texts, sample_config=str(one_seed))) == 0
    assert "WARNING: --prompts: 2 prompts more than once" in capsys.readouterr().out


@pytest.mark.parametrize("size", [2, 3, 5, 6, 8])
@pytest.mark.parametrize("categories", [1, 2, 5])
def test_what_is_accepted_can_be_trained(tmp_path, capsys, size, categories):
    """The smallest set is 3 videos of each category; folds need 6, names another category."""
    rows = range(size * categories)
    columns = {f"c{k}": list(rows[k * size : (k + 1) * size]) for k in range(categories)}
    flags = write(tmp_path, columns, len(rows), 4 * len(rows))
    status = own_data.main([*flags, "--shell"])
    if size < own_sizes.LEAST:
        refused(status, capsys, f"has {size}")
        return
    names = "--names" if categories > 1 else ""
    assert status == 0
    assert capsys.readouterr().out == f"FOLDS={5 if size >= 6 else 0} NAMES={names}\n"
