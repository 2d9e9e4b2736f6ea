"""The package: what its wheel holds, what it needs, and that it works with no more installed."""

import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lvd.utils.config import ROOT
from lvd.x0.file import open_x0_file
from tests.worlds.guard_world import expected, write_detectors

PROGRAM = Path(__file__).with_name("guarded_elsewhere.py")


def run(*command, folder=None):
    """Run a command outside the repository's PYTHONPATH; return what it printed."""
    with elsewhere(*command, folder=folder) as process:
        said, errors = process.communicate()
    assert process.returncode == 0, errors
    return said


def elsewhere(*command, folder=None):
    """Start a command outside the repository's PYTHONPATH."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [*map(str, command)]
    return subprocess.Popen(command, cwd=folder, env={"PATH": "/usr/bin:/bin"}, text=True, **pipes)


def pip(*arguments, folder=None):
    return run(
        sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, folder=folder
    )


def needed(requirements):
    """Return the installed distributions that the requirements ask for, directly or not."""
    distributions = {}
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = requirement.name.lower().replace("_", "-")
        if name not in distributions:
            distributions[name] = metadata.distribution(name)
            waiting += [Requirement(text) for text in distributions[name].requires or ()]
    return distributions


def empty_environment(folder, distributions):
    """Make a virtual environment that holds links to these distributions and nothing else.

    Returns:
        Its interpreter and its folder of packages.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python3*/site-packages"))
    for distribution in distributions.values():
        for file in distribution.files:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (packages / top).exists():
                (packages / top).symlink_to(distribution.locate_file(top))
    return folder / "bin" / "python", packages


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without a network by the hatchling that is installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    flags = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet")
    pip("wheel", *flags, "--wheel-dir", folder, ROOT, folder=folder)
    (path,) = folder.glob("lvd-*.whl")
    return path


@pytest.fixture(scope="module")
def requirements(wheel):
    """What the wheel states: {extra: [Requirement]}; the hard requirements are under ""."""
    (name,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("METADATA")]
    stated = Parser().parsestr(zipfile.ZipFile(wheel).read(name).decode())
    texts = [Requirement(text) for text in stated.get_all("Requires-Dist")]
    found = {"": [text for text in texts if text.marker is None]}
    for extra in stated.get_all("Provides-Extra"):
        found[extra] = [text for text in texts if text.marker and f'"{extra}"' in str(text.marker)]
    return found


def test_the_wheel_holds_lvd_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lvd"}
    packaged = {name for name in names if name.endswith(".py")}
    assert packaged == {str(path.relative_to(ROOT)) for path in (ROOT / "lvd").rglob("*.py")}


def test_what_is_installed_for_the_scripts_holds_every_requirement(requirements):
    pinned = set()
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if not line.startswith("-e"):
            pinned.add(Requirement(line).name.lower().replace("_", "-"))
    assert {one.name for one in requirements[""] + requirements["scripts"]} <= pinned


@pytest.mark.slow
def test_the_wheel_guards_a_pipeline_where_only_its_requirements_are(wheel, requirements, tmp_path):
    python, packages = empty_environment(tmp_path / "venv", needed(requirements[""]))
    pip("--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    absent = ["pandas", "sklearn", "matplotlib", "av", "psutil", "accelerate", "pytest"]
    code = f"import importlib.util as u; print([n for n in {absent} if u.find_spec(n)])"
    assert run(python, "-c", code, folder=tmp_path) == "[]\n"
    shutil.copy(PROGRAM, tmp_path)
    with elsewhere(python, PROGRAM.name, folder=tmp_path) as program:
        assert program.stdout.readline() == "recorded\n", program.stderr.read()
        x0 = open_x0_file(tmp_path / "pred_x0.pth")
        write_detectors(tmp_path / "detectors", x0)
        unsafe = expected(tmp_path / "detectors", x0)
        assert 0 < sum(unsafe.values()) < len(unsafe)
        said, errors = program.communicate("they are made\n")
    assert program.returncode == 0, errors
    *verdicts, module = said.splitlines()
    assert verdicts == [f"{row} {'unsafe' if unsafe[row] else 'safe'}" for row in sorted(unsafe)]
    assert Path(module).is_relative_to(packages)


def test_an_editable_install_finds_the_whole_repository(tmp_path):
    python, _ = empty_environment(tmp_path / "venv", needed([Requirement("hatchling")]))
    flags = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet")
    pip("--python", python, "install", *flags, "--editable", ROOT)
    script = ROOT / "MagicTime" / "inference_magictime.py"
    assert "sampling YAML" in run(python, script, "--help", folder=tmp_path)
    code = "import MagicTime; from importlib.util import find_spec as f; print(f('lvd').origin)"
    found = run(python, "-c", code, folder=tmp_path)
    assert Path(found.strip()) == ROOT / "lvd" / "__init__.py"
