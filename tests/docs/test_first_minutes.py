"""README's first command: the guard with the detectors that are shipped, before any training."""

import hashlib
import json

import torch

from lvd import Guard
from lvd.utils.config import ROOT
from lvd.utils.files import load_yaml
from MagicTime import inference_magictime
from tests.worlds.pages import commands

DETECTORS = ROOT / "MagicTime" / "ckpts" / "Tiny" / "detectors"
GUARD = DETECTORS.with_name("guard")


def guard_command():
    """README's guarded sampling, its arguments."""
    readme = commands(ROOT / "README.md")
    return next(command[2:] for command in readme if "--guard" in command)


def changed(arguments, **flags):
    """The arguments with other values of some flags."""
    arguments = list(arguments)
    for flag, value in flags.items():
        at = arguments.index("--" + flag.replace("_", "-"))
        arguments[at + 1] = str(value)
    return arguments


def test_readmes_guard_stops_unsafe_videos(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = changed(guard_command(), limit=2, save_path=tmp_path)
    assert inference_magictime.main([*arguments, "--gpu_num", "-1"]) == 0
    lines = (tmp_path / "verdicts.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["unsafe", "unsafe"]
    assert list((tmp_path / "videos").glob("*.mp4")) == []
    assert len(list((tmp_path / "previews").glob("*.png"))) == 2


def test_the_shipped_file_is_the_one_that_its_note_describes():
    content = (DETECTORS / "shared.pth").read_bytes()
    note = (DETECTORS / "README.md").read_text()
    assert hashlib.sha256(content).hexdigest() in note
    shared = torch.load(DETECTORS / "shared.pth", weights_only=True)
    rows = shared["about"]["rows"]
    assert f"{len(rows['unsafe'])} unsafe and {len(rows['normal'])} normal videos" in note
    for name, version in shared["about"]["versions"].items():
        assert f"{name} {version}" in note


def test_the_shipped_guard_is_the_one_that_its_note_describes():
    note = (GUARD / "README.md").read_text()
    for name in ("shared.pth", "names.pth", "rule.yaml"):
        assert hashlib.sha256((GUARD / name).read_bytes()).hexdigest() in note
    guard = Guard(GUARD, device="cpu")
    assert guard.rule.describe() in note
    contents = [
        torch.load(GUARD / f"{name}.pth", weights_only=True) for name in ("shared", "names")
    ]
    for content in (*contents, load_yaml(GUARD / "rule.yaml")):
        assert not [text for text in texts(content) if text.startswith(("/", "~")) or ":\\" in text]


def test_the_shipped_file_names_no_folder_of_the_machine_that_made_it():
    shared = torch.load(DETECTORS / "shared.pth", weights_only=True)
    assert not [text for text in texts(shared) if text.startswith(("/", "~")) or ":\\" in text]


def texts(value):
    """Return every text within nested dicts and lists."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in texts(part)]
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in texts(part)]
    return [value] if isinstance(value, str) else []
