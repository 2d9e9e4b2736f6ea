"""The benchmarks run, say what they were measured on, and what they show holds at tiny size too.
Times are not checked."""

import json
import socket
import subprocess
from types import SimpleNamespace

import pytest
import torch

from benchmarks.common import full_size
from benchmarks.recording import batches as recording_batches
from benchmarks.recording import cost as recording
from benchmarks.recording import files as recording_files
from benchmarks.recording import large_file
from lvd.x0 import shards
from tests.worlds import forked, magictime_world
from tests.worlds.benchmark_figures import read_figures, read_machine


def figures(path):
    """{part: {case: {quantity: number}}}, and what the machine is, after a look at both files."""
    machine = read_machine(path)
    assert {"commit", "versions", "date", "cpu", "gpu", "memory"} <= set(machine)
    assert f"torch {torch.__version__}" in machine["versions"]
    parts = read_figures(path)
    for text in (path.read_text(), path.with_suffix(".txt").read_text()):
        assert str(path.parent) not in text and socket.gethostname() not in text
        assert all(part in text for part in parts)
    return parts


@pytest.mark.slow
def test_recording_batches(tmp_path):
    out = tmp_path / "batches.csv"
    assert recording_batches.main(["--videos", "2", "--steps", "2", "--out", str(out)]) == 0
    found = figures(out)["differences"]
    assert list(found) == list(recording_batches.WAYS)
    for of_way in found.values():
        assert of_way["x0"] < 1e-3 and of_way["pixels, mean"] <= of_way["pixels"] < 64
    one, other = torch.zeros(1, 2), torch.tensor([[0.0, 0.5]])
    pixels = torch.tensor([[3, 9]]), torch.tensor([[5, 3]])
    differs = recording_batches.difference((one, pixels[0]), (other, pixels[1]))
    assert differs == {"x0": 0.5, "pixels": 6, "pixels, mean": 4.0}


@pytest.mark.slow
def test_recording_files(tmp_path, monkeypatch):
    """Its parts are processes of their own, here forks that need not import."""
    quick = SimpleNamespace(run=lambda words, **_: forked.run(*words[1:]), PIPE=subprocess.PIPE)
    monkeypatch.setattr(recording_files, "subprocess", quick)
    out = tmp_path / "files.csv"
    flags = [
        "--rows",
        "401",
        "--steps",
        "2",
        "--frames",
        "2",
        "--size",
        "4",
        "--written",
        "3",
        "--disk_gb",
        "1e-5",
    ]
    assert recording_files.main([*flags, "--dir", str(tmp_path / "disk"), "--out", str(out)]) == 0
    parts = figures(out)
    assert list(parts) == ["fill_tiny", "fill_full", "large"] and not list(
        (tmp_path / "disk").iterdir()
    )
    for part, points in (("fill_tiny", (24, 104, 200, 401)), ("fill_full", (20, 100, 200, 401))):
        found = parts[part]
        assert list(found) == [*(f"{n} rows" for n in points), "close, open"]
        peaks = [found[f"{n} rows"]["peak_anonymous_mib"] for n in points]
        assert peaks[-1] - peaks[0] < 8, "memory grows with the rows"
    assert (
        sum(f["writes"] for f in parts["fill_full"].values() if "writes" in f) < 41 < 401
    )  # 10 kB hold 19 rows
    large = parts["large"]
    assert list(large) == ["plan", "write", "read by row", "read by step", "read, one mapping"]
    assert all(
        f["file_gb"] >= 401 * 2 * 4 * 2 * 4 * 4 * 4 / 1e9 > 3 * f["on_disk_gb"]
        for f in large.values()
    )
    assert all(f["peak_anonymous_mib"] <= f["peak_rss_mib"] < 1000 for f in large.values())


def test_recording_in_shards(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 100 * 2 * 4 * 2 * 4 * 4 * 2)
    flags = ["--sharded_rows", "401", "--steps", "2", "--frames", "2", "--size", "4"]
    flags += ["--written", "3", "--dir", str(tmp_path), "--part", "shards"]
    assert recording_files.main(flags) == 0
    found = dict(json.loads(capsys.readouterr().out.splitlines()[-1]))
    cases = ["plan", "write", "read by row", "read by step", "grow", "read when grown"]
    assert list(found) == cases and [found[case]["shards"] for case in cases] == [5] * 6


@pytest.mark.parametrize("spoil", [(0, 1), (-1, 1)])
def test_reading_back_notices_a_wrong_value(tmp_path, capsys, spoil):
    flags = [
        "--rows",
        "5",
        "--steps",
        "2",
        "--frames",
        "2",
        "--size",
        "4",
        "--written",
        "3",
        "--dir",
        str(tmp_path),
    ]
    assert recording_files.main([*flags, "--part", "write"]) == 0
    with large_file.create(recording_files.build_parser().parse_args(flags), tmp_path) as writer:
        path, offset = writer.path, writer._files._offsets[0]
    values = torch.frombuffer(
        bytearray(path.read_bytes()),
        dtype=torch.float32,
        count=5 * 2 * 4 * 2 * 4 * 4,
        offset=offset,
    )
    values.view(5, 2, -1)[spoil][3] += 1e-3
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(values.numpy().tobytes())
    for part in ("read_rows", "read_steps", "read_mapped"):
        assert recording_files.main([*flags, "--part", part]) == 2
        assert f"row {spoil[0] % 5}, step 1 is not what was written" in capsys.readouterr().err


@pytest.mark.slow
def test_recording_on_tiny(world, tmp_path):
    out, config = tmp_path / "r.csv", magictime_world.write_config(tmp_path / "c.yaml", world[0])
    flags = [
        "--config",
        config,
        "--videos",
        3,
        "--repeats",
        2,
        "--memory_videos",
        "1,3",
        "--memory_steps",
        2,
    ]
    assert (
        recording.main(
            [
                *map(str, flags),
                "--gpu_num",
                "-1",
                "--dir",
                str(tmp_path / "disk"),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    parts = figures(out)
    assert list(parts) == ["whole runs", "recording alone", "memory"] and not list(
        (tmp_path / "disk").iterdir()
    )
    runs, alone, memory = parts.values()
    assert runs["recorded"]["runs"] == runs["not recorded"]["runs"] == 2
    assert 0.1 < runs["ratio of each pair"]["median"] < 10
    assert alone["both"]["median_ms"] > alone["copies to the CPU"]["min_ms"] > 0
    assert memory["recorded, 3 videos"]["recorded_mib"] == 3 * 2 * 4 * 4 * 4 * 4 * 4 / 2**20
    assert memory["recorded, 3 videos"]["held_mib"] == memory["recorded, 1 videos"]["held_mib"] > 0
    assert memory["not recorded, 3 videos"]["recorded_mib"] == 0


def test_recording_at_full_size(tmp_path, monkeypatch):
    """The same code with a UNet and latents of a thousandth of the size."""
    small = {
        **full_size.UNET,
        "block_out_channels": (32, 32, 64, 64),
        "cross_attention_dim": 16,
        "layers_per_block": 1,
    }
    monkeypatch.setattr(full_size, "UNET", small)
    monkeypatch.setattr(full_size, "LATENTS", (4, 2, 8, 8))
    assert (
        recording.main(
            ["--full", "--gpu_num", "-1", "--repeats", "2", "--out", str(tmp_path / "f.csv")]
        )
        == 0
    )
    parts = figures(tmp_path / "f.csv")
    assert parts["step"]["seconds"]["runs"] == 1
    for kept in ("float16", "float32"):
        both = parts[f"recording alone, {kept}"]["both"]
        expected = both["median_ms"] / (parts["step"]["seconds"]["median"] * 50 * 1e3) * 100
        assert both["median_percent"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "module, flags, said",
    [
        (recording, ["--repeats", "0"], "--repeats 0"),
        (recording_files, ["--written", "0"], "--written 0"),
        (
            recording_files,
            ["--rows", "2", "--disk_gb", "1e-9", "--part", "fill_full"],
            "not one row fits",
        ),
    ],
)
def test_bad_flags(tmp_path, capsys, module, flags, said):
    assert module.main([*flags, "--dir", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
