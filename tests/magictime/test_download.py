"""MagicTime/prepare_weights/download.py against a hub of our own: the tiny world's files under the
real names."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from MagicTime.prepare_weights import download
from MagicTime.prepare_weights.manifest import read_manifest
from tests.worlds import hub_server, magictime_world

CKPTS = magictime_world.ROOT / "MagicTime" / "ckpts" / "Tiny"
CONFIGS = magictime_world.ROOT / "MagicTime" / "sample_configs"
SCRIPT = magictime_world.ROOT / "MagicTime" / "prepare_weights" / "download.py"


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the script's main: (exit status, stdout, last line of stderr)."""
    for name in [
        name for name in os.environ if name.startswith("HF_") or name.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", "/nonexistent")

    def run(hub, *flags, **environment):
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = download.main([str(flag) for flag in flags])
        out, error = capsys.readouterr()
        return code, out, error.strip().split("\n")[-1]

    return run


def run_alone(hub, *flags, **environment):
    """The same in a process of its own: huggingface_hub reads HF_HUB_OFFLINE and others when it is
    imported."""
    process = start(hub, *flags, **environment)
    out, error = process.communicate(timeout=120)
    assert "Traceback" not in error, error
    return process.returncode, out, error.strip().split("\n")[-1]


def start(hub, *flags, **environment):
    names = {
        k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()
    }
    settings = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": "/nonexistent",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, flags)],
        env={**names, **settings, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def local(weight, file):
    """The tiny world's counterpart of a real file."""
    if weight.folder == "DreamBooth":
        return CKPTS / "DreamBooth" / "TinyWorld.safetensors"
    return CKPTS / file.here


@pytest.fixture(scope="module")
def videomae(tmp_path_factory):
    """A small VideoMAE in the hub's layout: {file name: bytes}."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    folder = tmp_path_factory.mktemp("videomae")
    VideoMAEForPreTraining(
        VideoMAEConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            decoder_hidden_size=8,
            decoder_num_attention_heads=1,
            decoder_num_hidden_layers=1,
            decoder_intermediate_size=8,
        )
    ).save_pretrained(folder)
    return {"preprocessor_config.json": b"{}", **{p.name: p.read_bytes() for p in folder.iterdir()}}


@pytest.fixture(scope="module")
def tiny_hub(videomae):
    """All real repositories, with tiny contents."""
    files = {}
    for weight in read_manifest().values():
        for file in weight.files:
            content = (
                videomae[file.name]
                if weight.name == "videomae"
                else local(weight, file).read_bytes()
            )
            source = weight.sources[0]
            files[f"{source.repository}/{source.path(file.name)}"] = content
    hub = hub_server.Hub(files)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def loaded(tiny_hub, tmp_path_factory):
    """(folder, output) of a download of everything; the tiny files are another revision than the
    manifest's."""
    folder = tmp_path_factory.mktemp("loaded") / "ckpts"
    code, out, error = run_alone(
        tiny_hub, "--what", "all", "--dir", folder, "--revision", "main", HF_TOKEN="hf_secret"
    )
    assert code == 0, error
    return folder, out


def test_all_files_go_where_the_configs_expect_them(tiny_hub, loaded):
    folder, out = loaded
    for weight in read_manifest().values():
        for file in weight.files:
            if weight.name != "videomae":
                assert (folder / file.here).read_bytes() == local(weight, file).read_bytes()
    assert "files: 25, 25 of them loaded now" in out and "CC BY-NC 4.0" in out
    assert tiny_hub.tokens == {
        "Bearer hf_secret"
    }  # and never sent to the other host, see hub_server
    record = json.loads((folder / "download.json").read_text())
    entry = record["Base_Model/motion_module/motion_module.ckpt"]
    content = (CKPTS / "Base_Model/motion_module/motion_module.ckpt").read_bytes()
    assert (entry["path"], entry["revision"], entry["size"]) == (
        "v3_sd15_mm.ckpt",
        hub_server.COMMIT,
        len(content),
    )
    assert entry["sha256"] == hashlib.sha256(content).hexdigest() and len(record) == 25
    assert {p.name for p in folder.iterdir()} == {
        "Base_Model",
        "DreamBooth",
        "Magic_Weights",
        "VideoMAE",
        "download.json",
    }


def test_a_second_run_loads_nothing(run, tiny_hub, loaded):
    folder, _ = loaded
    bodies = sum(tiny_hub.bodies.values())
    assert bodies == 25
    code, out, _ = run(tiny_hub, "--what", "all", "--dir", folder, "--revision", "main")
    assert code == 0 and "0 of them loaded now" in out and sum(tiny_hub.bodies.values()) == bodies


def test_check_works_offline(loaded, capsys):
    folder, _ = loaded
    assert download.main(["--what", "all", "--dir", str(folder), "--check"]) == 0
    target = folder / "DreamBooth" / "ToonYou_beta6.safetensors"
    whole = target.read_bytes()
    target.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert download.main(["--what", "all", "--dir", str(folder), "--check"]) == 2
    assert (
        "1 of 25 files are missing or wrong, first DreamBooth/ToonYou_beta6"
        in capsys.readouterr().err
    )
    target.write_bytes(whole)


def test_a_sample_config_finds_the_weights(loaded, tmp_path):
    """The real config, with the tiny world's sizes and another ckpts folder, samples a video."""
    from MagicTime import inference_magictime

    folder, _ = loaded
    text = (CONFIGS / "RealisticVision.yaml").read_text().replace("./ckpts/", f"{folder}/")
    blocks = yaml.safe_load(text)
    blocks[0].update(H=64, W=64, L=8, steps=2, prompt=["a red circle stays still"], seed=[1])
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(blocks))
    assert (
        inference_magictime.main(
            [
                "--config",
                str(tmp_path / "c.yaml"),
                "--save-path",
                str(tmp_path / "out"),
                "--gpu_num",
                "-1",
            ]
        )
        == 0
    )
    assert [p.suffix for p in (tmp_path / "out" / "videos").iterdir()] == [".mp4"]


def test_a_detector_starts_from_the_downloaded_videomae(loaded):
    from safetensors.torch import load_file

    from lvd.detectors.detector import build_detector

    folder = loaded[0] / "VideoMAE" / "videomae-base"
    model = build_detector("base", (3, 16, 224, 224), "video", 0, base_model=str(folder)).model
    stored = load_file(folder / "model.safetensors")
    name = "videomae.encoder.layer.0.attention.attention.query.weight"
    torch.testing.assert_close(model.state_dict()[name], stored[name])


# ---- faults, on one small weight
# -----------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 90_000  # 23 MB: what came is written down every 10 MiB
STEP = 10 << 20
SMALL = b'{"r": 4}\n'


@pytest.fixture
def hub():
    hub = hub_server.Hub(
        {
            "one/first/w/big.bin": CONTENT,
            "one/first/w/config.json": SMALL,
            "spaces/two/second/big.bin": CONTENT,
            "spaces/two/second/config.json": SMALL,
        }
    )
    yield hub
    hub.close()


@pytest.fixture
def manifest(tmp_path):
    """A weight of two files, with their true sizes and hashes, and two sources."""
    path = tmp_path / "weights.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "small": {
                    "what": "two files",
                    "licence": "MIT",
                    "needed_by": ["a.yaml"],
                    "folder": "Small",
                    "sources": [
                        {"repository": "one/first", "revision": "main", "folder": "w"},
                        {"repository": "two/second", "kind": "space", "revision": "main"},
                    ],
                    "files": {
                        "config.json": {
                            "size": len(SMALL),
                            "hash": hub_server.etag("config.json", SMALL),
                        },
                        "big.bin": {
                            "size": len(CONTENT),
                            "hash": hub_server.etag("big.bin", CONTENT),
                        },
                    },
                }
            },
            sort_keys=False,
        )
    )
    return path


@pytest.fixture
def flags(manifest, tmp_path):
    return "--what", "small", "--manifest", manifest, "--dir", tmp_path / "ckpts"


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_broken_connection_is_resumed(run, hub, flags, tmp_path):
    hub.faults["big.bin"] = "cut"
    assert run(hub, *flags)[0] == 0
    assert hub.ranges["one/first/w/big.bin"] == [None, f"bytes={STEP}-"]
    assert (tmp_path / "ckpts/Small/big.bin").read_bytes() == CONTENT
    assert names(tmp_path / "ckpts") == ["Small/big.bin", "Small/config.json", "download.json"]


def test_a_killed_run_goes_on(run, hub, flags, tmp_path):
    """SIGKILL in the middle of a body; the next run asks for the rest only."""
    hub.faults["big.bin"] = "stall"
    process, staging = start(hub, *flags), tmp_path / "ckpts" / ".download"
    deadline = time.monotonic() + 60
    while (
        not any(p.stat().st_size >= STEP for p in staging.glob("*big.bin*"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert names(tmp_path / "ckpts/Small") == ["config.json"]
    have = next(staging.glob("*big.bin*.partial")).stat().st_size
    assert have == STEP
    hub.faults.clear()
    assert run(hub, *flags)[0] == 0
    assert (
        hub.ranges["one/first/w/big.bin"][-1] == f"bytes={have}-"
        and hub.bodies["one/first/w/config.json"] == 1
    )
    assert (tmp_path / "ckpts/Small/big.bin").read_bytes() == CONTENT and not staging.exists()


def test_a_server_error_keeps_what_came(run, hub, flags, tmp_path):
    hub.faults["big.bin"] = "500"
    code, _, error = run(hub, *flags)
    assert (
        code == 2
        and "Small/big.bin: the hub answers 500" in error
        and "run the same command again" in error
    )
    assert names(tmp_path / "ckpts/Small") == ["config.json"]
    partial = next((tmp_path / "ckpts/.download").glob("*.partial"))
    partial.write_bytes(CONTENT[:1000])
    hub.faults["big.bin"] = "no-range"  # and a server that always begins at the start does no harm
    assert run(hub, *flags)[0] == 0
    assert (tmp_path / "ckpts/Small/big.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "fault, said", [("garbage", "hash"), ("short", "run the same command again")]
)
def test_wrong_bytes_never_get_the_name(run, hub, flags, tmp_path, fault, said):
    hub.faults["big.bin"] = fault
    code, _, error = run(hub, *flags)
    assert code == 2 and said in error and "Small/big.bin" in error
    assert names(tmp_path / "ckpts/Small") == ["config.json"]
    for _ in range(2):  # a lying server: never more than one line; an honest one: all is well
        assert run(hub, *flags)[0] == 2
    hub.faults.clear()
    assert run(hub, *flags)[0] == 0
    assert (tmp_path / "ckpts/Small/big.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "fault, said",
    [("gated", "gated"), ("private", "token"), ("gone", "no such file"), ("other", "hash")],
)
def test_the_next_source_is_tried(run, hub, flags, tmp_path, fault, said):
    if fault == "gone":
        del hub.files["one/first/w/config.json"]
    elif fault == "other":
        hub.files["one/first/w/big.bin"] = CONTENT[::-1]
    else:
        hub.faults["first/w/config.json"] = fault
    code, out, _ = run(hub, *flags)
    assert code == 0 and said in out and "trying spaces/two/second @ main" in out
    assert (tmp_path / "ckpts/Small/big.bin").read_bytes() == CONTENT
    assert not hub.bodies["one/first/w/big.bin"] and hub.bodies["spaces/two/second/big.bin"] == 1


def test_no_source_left_is_one_line(run, hub, flags, tmp_path):
    hub.faults["config.json"] = "gated"
    code, _, error = run(hub, *flags)
    assert (
        code == 2
        and error.startswith("error: small: spaces/two/second @ main: access is gated")
        and "HF_TOKEN" in error
    )
    hub.faults.clear()
    hub.revisions = {"main"}
    code, _, error = run(hub, *flags, "--revision", "v9")
    assert code == 2 and error == "error: small: one/first @ v9: no such revision"
    assert not (tmp_path / "ckpts").exists()


def test_no_hub_is_one_line(run, hub, flags, tmp_path):
    code, _, error = run_alone(hub, *flags, HF_HUB_OFFLINE="1")
    assert code == 2 and "HF_HUB_OFFLINE" in error
    code, _, error = run_alone(hub, *flags, HF_ENDPOINT="http://[x")
    assert code == 2 and error.startswith("error: HF_ENDPOINT=http://[x: a URL")
    hub.close()
    code, _, error = run(hub, *flags)
    assert code == 2 and error.startswith(f"error: {hub.endpoint} is not reached")
    code, out, _ = run(hub, *flags, "--dry-run")
    assert code == 0 and "23 MB  missing  Small/big.bin" in out and "hub: not reached" in out
    assert not (tmp_path / "ckpts").exists()


def test_a_dry_run_writes_nothing(run, hub, flags, tmp_path):
    code, out, _ = run(hub, *flags, "--dry-run")
    assert (
        code == 0 and "licence: MIT" in out and "needed by: a.yaml" in out and "hub: asked" in out
    )
    assert "still to load: 23 MB" in out and "free disk" in out
    assert not (tmp_path / "ckpts").exists() and not hub.bodies


def test_files_that_are_there(run, hub, flags, tmp_path, capsys):
    """The right size is taken as it is, without the hub; a wrong one, or a folder, is named."""
    folder = tmp_path / "ckpts/Small"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(SMALL)
    (folder / "big.bin").write_bytes(CONTENT)
    command = [str(flag) for flag in flags]
    assert download.main(command) == 0 and not hub.heads
    (folder / "big.bin").write_bytes(CONTENT[:-1])
    assert download.main(command) == 2
    assert (
        f"big.bin: {len(CONTENT) - 1} bytes, {len(CONTENT)} are needed" in capsys.readouterr().err
    )
    (folder / "big.bin").unlink()
    (folder / "big.bin").mkdir()
    assert download.main(command) == 2 and "is a folder" in capsys.readouterr().err


def test_a_file_of_unknown_size(run, hub, manifest, flags, tmp_path):
    """The hub says what it is; once loaded, the record does, and the hub is not asked again."""
    found = yaml.safe_load(manifest.read_text())
    found["small"]["files"] = {"config.json": {}}
    manifest.write_text(yaml.safe_dump(found))
    target = tmp_path / "ckpts/Small/config.json"
    target.parent.mkdir(parents=True)
    target.write_bytes(SMALL.upper())
    code, _, error = run(hub, *flags)
    assert code == 2 and "config.json: hash" in error and target.read_bytes() == SMALL.upper()
    target.unlink()
    assert run(hub, *flags)[0] == 0 and target.read_bytes() == SMALL
    asked = sum(hub.heads.values())
    assert run(hub, *flags)[0] == 0 and sum(hub.heads.values()) == asked
    assert run(hub, *flags, "--check")[0] == 0


def test_two_downloads_into_one_folder(run, hub, flags, tmp_path):
    hub.faults["big.bin"] = "stall"
    process = start(hub, *flags)
    deadline = time.monotonic() + 60
    while not hub.bodies["one/first/w/big.bin"] and time.monotonic() < deadline:
        time.sleep(0.05)
    code, _, error = run(hub, *flags)
    assert code == 2 and "another download writes here" in error
    hub.resume.set()
    assert process.wait(60) == 0 and (tmp_path / "ckpts/Small/big.bin").read_bytes() == CONTENT


def test_another_revision_is_compared_by_hash(run, hub, flags, tmp_path):
    assert run(hub, *flags)[0] == 0
    hub.files["one/first/w/big.bin"] = CONTENT[::-1]
    code, _, error = run(hub, *flags, "--revision", "v2")
    assert code == 2 and "big.bin: hash" in error and "delete or rename" in error
    (tmp_path / "ckpts/Small/big.bin").unlink()
    assert run(hub, *flags, "--revision", "v2")[0] == 0
    assert (tmp_path / "ckpts/Small/big.bin").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda w: w["files"].update({"../x": {}}), "a path below --dir"),
        (lambda w: w["files"].update({"a//x": {}}), "a path below --dir"),
        (lambda w: w.pop("licence"), "'licence' is missing"),
        (lambda w: w["sources"][0].update(repo="a/b"), "unknown key 'repo'"),
        (lambda w: w["files"]["big.bin"].update(hash="12"), "hash='12'"),
        (lambda w: w["files"]["big.bin"].update(size="1 GB"), "size="),
    ],
)
def test_a_bad_manifest_is_one_line(manifest, flags, capsys, change, said):
    found = yaml.safe_load(manifest.read_text())
    change(found["small"])
    manifest.write_text(yaml.safe_dump(found))
    assert download.main([str(flag) for flag in flags]) == 2
    assert said in capsys.readouterr().err


def test_a_full_disk_is_found_before_the_first_byte(run, hub, manifest, flags, tmp_path):
    found = yaml.safe_load(manifest.read_text())
    found["small"]["files"] = {"big.bin": {"size": 10**18}}
    manifest.write_text(yaml.safe_dump(found))
    hub.announced["big.bin"] = 10**18
    code, _, error = run(hub, *flags)
    assert (
        code == 2
        and "1e+06 TB are to load" in error
        and not hub.bodies
        and not (tmp_path / "ckpts").exists()
    )
    code, out, _ = run(hub, *flags, "--dry-run")
    assert code == 0 and "the disk is too small" in out
