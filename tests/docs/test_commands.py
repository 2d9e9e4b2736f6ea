"""Every command of README and docs: its script takes it, its files are there, quick ones run."""

import ast
import importlib
import re
import shlex
import subprocess
from fnmatch import fnmatch

import pytest

import lvd
from lvd.utils.config import ROOT
from lvd.utils.files import load_yaml
from tests.worlds.pages import PAGES, anchors, blocks, commands, links, paths, spans

SHELL = {"cp", "head", "printf", "ruff", "."}  # not the project's: their files alone are looked at

# What commands write, and what a reader brings. All else that a page names is in the repository.
WRITTEN = """
    .venv/bin/activate MagicTime/outputs/* MagicTime/detectors MagicTime/results
    MagicTime/steps.csv MagicTime/eval.pth MagicTime/eval_set/* MagicTime/eval_normal/*
    MagicTime/train_detector_data* MagicTime/shared* MagicTime/results_shared
    MagicTime/pretrained* {save_dir}/* {save_path}/* pred_x0.pth pred_x0.json pred_x_t.pth
    pred_x0.shard-0001.pth
    config.yaml seeds.json videos/0000.mp4 000?.mp4 0001/ filmstrips/ {video*}.mp4
    normal/{step}/{index} eval.pth eval.yaml eval.1.pth results.pth scores.pth curves.csv curves.png
    verdicts.jsonl previews/ ckpts/.download/ ckpts/download.json recorded/*
    evaluation.csv classification_{group}.txt votes.pth votes.scores.pth pretrained.pth
    folds.pth folds.yaml MagicTime/detectors/* rule.yaml choose_rule.csv guidance.pth
    rule_report.txt rule_report.csv misses.csv frontier.txt frontier.csv frontier.png
    names.pth names_metrics.csv names_curve.csv names.yaml naming.txt naming.csv
    labelling/* labelling_ten/* sheet.csv tasks_*.json how_to.txt label_ratings/* doubtful.csv
    unlabelled.csv raters.csv agreement.csv agreement.txt import.yaml
    normal.yaml serve.yaml report_files/ MagicTime/report.html MagicTime/study/* study/* pages.json
    plan_rates.json plan.md
"""
BROUGHT = """
    prompts.txt unsafe.txt normal.txt label.csv my.yaml my_build_x0.yaml my_train_mae.yaml
    guard.yaml my_models.py project-*.json videos/ /data/lvd*
    my_model/* .ckpt .safetensors .mp4 ckpts/... Base_Model/* DreamBooth/* Magic_Weights/*
    VideoMAE/* MagicTime/ckpts/Base_Model/motion_module MagicTime/ckpts/VideoMAE/videomae-base
    motion_module.ckpt magic_adapter_* magic_text_encoder/ adapter_config.json mm_sd_v1*.ckpt
    v3_sd15_mm.ckpt BestWishYsh/MagicTime MCG-NJU/videomae-base guoyww/animatediff*
    *stable-diffusion-v1-5 train_detector_data/group{*} trained_detector_data/{column}
    words.txt InternVid-10M-flt.jsonl my/captions
    MagicTime/ckpts/Base_Model/stable-diffusion-v1-5/tokenizer
    {column}/{step}/{index}.mp4 invid/{step} {group}/{step}.pth
"""
KNOWN = (WRITTEN + BROUGHT).split()

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def module_of(script):
    """Import a script, given by its path from the root."""
    return importlib.import_module(script.removesuffix(".py").replace("/", "."))


def parser_of(script):
    return module_of(script).build_parser()


def repository_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        return listed.stdout.splitlines()
    return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]


def is_readers_own(command):
    """Tell whether a command starts a script that the reader has written."""
    return command[0] == "python" and any(fnmatch(command[1], own) for own in BROUGHT.split())


def script_of(command):
    """Return the project's script that a command starts, and its arguments; None for others."""
    if command[0] in ("python", "accelerate") and not is_readers_own(command):
        at = next(k for k, word in enumerate(command) if word.endswith(".py"))
        return command[at], command[at + 1 :]
    return None


@each_page
def test_commands_are_taken_by_their_scripts(page):
    for command in commands(page):
        if started := script_of(command):
            script, arguments = started
            assert (ROOT / script).is_file(), command
            try:
                parser_of(script).parse_args(arguments)
            except SystemExit as end:  # --help
                assert end.code == 0, command
            except lvd.InputError as error:
                pytest.fail(f"{shlex.join(command)}: {error}")
        elif command[0] == "bash":
            assert subprocess.run(["bash", "-n", command[1]], cwd=ROOT).returncode == 0, command
            known = (ROOT / command[1]).read_text()
            for flag in command[2:]:
                assert not flag.startswith("--") or flag in known, command
        else:
            is_known = command[0] in SHELL or command[:2] == ["pip", "install"]
            assert is_known or "venv" in command or is_readers_own(command), command


@each_page
def test_flags_in_the_text_exist(page):
    """Such as `train_mae.py --size base`, where the rest of the command is left out."""
    for span in spans(page):
        script, *words = span.split()
        if words and script.endswith(".py") and (ROOT / script).is_file():
            known = parser_of(script)._option_string_actions
            for word in words:
                assert not word.startswith("--") or word in known, span


@each_page
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), target
        assert not anchor or anchor in anchors(aim), target


@each_page
def test_paths_exist_or_are_written(page):
    files = repository_files()
    for path in paths(page):
        near = (ROOT, ROOT / "MagicTime", page.parent)
        there = any((folder / path).exists() for folder in near)
        there = there or any(file.endswith(f"/{path}") for file in files)
        known = any(fnmatch(path, pattern) for pattern in KNOWN)
        assert there or known, f"{path}: not in the repository, and no command is known to write it"


def test_no_path_of_the_tables_has_gone_out_of_use():
    named = {path for page in PAGES for path in paths(page)}
    for pattern in KNOWN:
        assert any(fnmatch(path, pattern) for path in named), pattern


@each_page
def test_python_blocks_are_python_and_name_what_lvd_has(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "lvd" or hasattr(lvd, node.attr), node.attr


@each_page
def test_pictures_are_described(page):
    for described in re.findall(r"!\[([^\]]*)\]\(", page.read_text()):
        assert len(described.split()) >= 5


def test_every_page_of_docs_is_in_its_index():
    index = links(ROOT / "docs" / "README.md")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or page.name in index


def test_readme_is_short_and_narrow():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 170
    assert max(map(len, lines)) <= 120


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = load_yaml(ROOT / "CITATION.cff")
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert citation["version"] == version[1]
    paper = citation["preferred-citation"]
    readme = (ROOT / "README.md").read_text()
    assert paper["title"] in readme
    assert ", ".join(author["family-names"] for author in paper["authors"]) in readme


NEEDS_MORE = {"--human", "prompts.txt", "unsafe.txt", "my_build_x0.yaml", "unsafe_dataset"}


def quick_commands():
    """The commands that take --dry-run and need no file that another command writes.

    Returns:
        {command: (script, arguments)}
    """
    quick = {}
    for page in PAGES:
        for command in commands(page):
            if started := script_of(command):
                needs_more = NEEDS_MORE & set(command)
                needs_more |= {word for word in command if word.startswith("my_model")}
                dry = "--dry-run" in parser_of(started[0])._option_string_actions
                if dry and not needs_more and started[0] != "MagicTime/app.py":  # it writes nothing
                    quick[shlex.join(command)] = started
    return quick


@pytest.mark.parametrize("command", quick_commands())
def test_quick_commands_run_dry(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    script, arguments = quick_commands()[command]
    elsewhere = {"download.py": "--dir", "reproduce_tables.py": "--out"}
    elsewhere = elsewhere.get(script.rpartition("/")[2], "--save-path")
    dry = [word for word in arguments if word not in ("--check", "--dry-run")]
    dry += [elsewhere, str(tmp_path), "--dry-run"]
    assert module_of(script).main(dry) == 0
    assert list(tmp_path.iterdir()) == []
