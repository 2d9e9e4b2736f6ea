"""Torch files of the paper's scripts: their harmless types become plain values, all else is
refused."""

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lvd.errors import InputError
from lvd.utils.files import load_torch
from lvd.utils.stand_ins import LETTERS
from tests.worlds.magictime_world import ROOT

PAPER_FORMS = ROOT / "tests" / "paper_forms"


class Runs:
    """Pickled, a call of os.system."""

    def __reduce__(self):
        return os.system, ("touch never",)


def some_default():
    return 0


def test_files_of_the_papers_scripts_hold_plain_values():
    rows = load_torch(PAPER_FORMS / "eval.pth")
    assert rows == [6.0, 4.0, 0.0, 2.0, 10.0] and {type(row) for row in rows} == {float}
    results = load_torch(PAPER_FORMS / "results.pth")
    assert type(results) is dict and {type(videos) for videos in results.values()} == {dict}
    assert list(results["1"]) == ["6", "4", "0", "2", "10"] and len(results["1"]["6"]) == 50


@pytest.mark.parametrize("name", LETTERS)
def test_numbers_of_numpy_are_read_exactly(tmp_path, name):
    kind = np.dtype(name)
    numbers = [kind.type(value) for value in (0, 1, 100)]
    if name.startswith("f"):
        numbers.append(kind.type(-0.1))
    torch.save(numbers, tmp_path / "x.pth")
    loaded = load_torch(tmp_path / "x.pth")
    assert loaded == [number.item() for number in numbers]
    assert {type(number) for number in loaded} <= {int, float, bool}


@pytest.mark.parametrize(
    "content, named",
    [
        ([np.float64(1), Runs()], "system"),
        ([Runs()], "system"),
        (defaultdict(some_default, {1: 2}), "some_default"),
        ({"1": defaultdict(Runs)}, "Runs"),
        ([np.zeros(3)], "_reconstruct"),
        ([np.complex128(1)], "not a readable torch file"),
        ([np.datetime64("2024-01-01")], "not a readable torch file"),
        ([np.array([(1,)], dtype="i4,")[0]], "not a readable torch file"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, monkeypatch, content, named):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=named) as error:
        load_torch(tmp_path / "x.pth")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300 + len(str(tmp_path))
    assert not (tmp_path / "never").exists()


def test_torchs_own_list_of_names_stays_as_it_was():
    before = set(torch.serialization.get_safe_globals())
    with ThreadPoolExecutor(8) as threads:
        many = list(threads.map(load_torch, [PAPER_FORMS / "eval.pth"] * 64))
    assert all(rows == many[0] for rows in many)
    assert set(torch.serialization.get_safe_globals()) == before
