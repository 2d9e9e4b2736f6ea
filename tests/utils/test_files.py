"""Files and settings: unreadable ones are refused in one line, replaced ones are noticed."""

import hashlib
import random
from argparse import Namespace

import pytest
import torch

from lvd.data.config import read_data_config
from lvd.errors import InputError
from lvd.utils import files
from lvd.utils.config import claim_output
from MagicTime.utils.weights.tensors import read_tensors


def test_bytes_of_a_tensor_are_not_copied():
    import tracemalloc

    tensor = torch.randn(64, 4, 1024).half()
    wanted = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    tracemalloc.start()
    found = hashlib.sha256(files.raw_bytes(tensor)).hexdigest()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == wanted and peak < tensor.nbytes / 10
    turned = hashlib.sha256(files.raw_bytes(tensor.mT)).hexdigest()
    assert turned == hashlib.sha256(tensor.mT.numpy().tobytes()).hexdigest() != wanted


def test_garbage_is_no_torch_file(tmp_path):
    path, draw = tmp_path / "x.pth", random.Random(0)
    torch.save({"a": torch.zeros(3)}, path)
    whole = path.read_bytes()
    garbage = [
        b"",
        b".",
        b"K",
        b"G",
        b"J",
        b"M",
        b"R.",
        b"].",
        b"\x80\x02.",
        b"a",
        b"(",
        *(bytes([i]) for i in range(256)),
    ]
    garbage += [draw.randbytes(n) for n in range(1, 150)] + [
        whole[:n] for n in range(0, len(whole), 97)
    ]
    for content in garbage:
        path.write_bytes(content)
        with pytest.raises(InputError, match="x.pth: not a readable torch file"):
            files.load_torch(path)
    path.write_bytes(whole)
    assert torch.equal(files.load_torch(path)["a"], torch.zeros(3))


def test_fingerprint_of_a_small_file_is_its_sha256(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    assert files.fingerprint(tmp_path / "w.bin") == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("place", [0, 5_000, 99_999])
def test_fingerprint_of_a_large_file_sees_its_ends_and_its_size(tmp_path, monkeypatch, place):
    monkeypatch.setattr(files, "SMALL", 1_000)
    monkeypatch.setattr(files, "BLOCK", 100)
    path, content = tmp_path / "w.bin", bytearray(random.Random(1).randbytes(100_000))
    path.write_bytes(content)
    before = files.fingerprint(path)
    assert files.fingerprint(path) == before != files.sha256(path)
    path.write_bytes(content + b"\0")
    assert files.fingerprint(path) != before
    place = (
        place if place in (0, 99_999) else (100_000 - 100) * 30 // 63
    )  # the first, the last, one of the blocks between
    content[place] ^= 1
    path.write_bytes(content)
    assert files.fingerprint(path) != before


def test_fingerprint_of_a_folder(tmp_path):
    folder = tmp_path / "base"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "a").write_bytes(b"1")
    before = files.fingerprint(folder)
    (folder / ".cache").write_bytes(b"hidden")
    assert files.fingerprint(folder) == before
    (folder / "unet" / "a").write_bytes(b"2")  # the same size
    changed = files.fingerprint(folder)
    (folder / "unet" / "a").rename(folder / "unet" / "b")
    assert len({before, changed, files.fingerprint(folder)}) == 3


@pytest.mark.parametrize("text", ["- 1\n", "word\n", "[]\n", "", "5: 6\n"])
def test_a_config_that_is_no_config_is_not_taken_over(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match="config.yaml"):
        claim_output(tmp_path, {"seed": 1})
    assert (tmp_path / "config.yaml").read_text() == text


@pytest.mark.parametrize("entry", ["{5: x}", "{5: x, y: 1}", "{null: x}"])
def test_keys_that_are_no_names(tmp_path, entry):
    (tmp_path / "b.yaml").write_text(f"- {{pretrained_model_path: a}}\n- {entry}\n")
    with pytest.raises(InputError, match="b.yaml: key .* keys must be names"):
        read_data_config(tmp_path / "b.yaml", Namespace())
    torch.save({5: torch.zeros(1), "a": torch.zeros(1)}, tmp_path / "w.ckpt")
    with pytest.raises(InputError, match="w.ckpt: .*5"):
        read_tensors(tmp_path / "w.ckpt")


def test_tables_have_rounded_floats_and_empty_cells(tmp_path):
    files.save_csv([{"b": 1 / 3, "a": 2}, {"b": "x,y", "a": None}], tmp_path / "1.csv")
    assert (tmp_path / "1.csv").read_bytes() == b'b,a\r\n0.333333,2\r\n"x,y",\r\n'
    files.save_csv([{"b": 1e-9}], tmp_path / "2.csv", columns=("a", "b"))
    assert (tmp_path / "2.csv").read_bytes() == b"a,b\r\n,0.0\r\n"
