"""docs/your_prompts.md from top to bottom: its files are written and its commands run, in order."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from lvd.utils.config import ROOT
from lvd.utils.files import load_yaml, save_yaml
from lvd.x0.file import open_x0_file
from tests.worlds import fork_server, magictime_world
from tests.worlds.pages import FENCE

PAGE = ROOT / "docs" / "your_prompts.md"
FILES = {"yaml": "my.yaml", "csv": "label.csv"}  # what the page's blocks are the content of
LEFT_OUT = {"tests", "docs", ".git", ".venv"}
OF_MAGICTIME = {"utils", "prepare_weights", "sample_configs", "inference_magictime.py"}
HOME = "MagicTime/outputs/mine"
UNSAFE, NORMAL = f"{HOME}/unsafe/pred_x0.pth", f"{HOME}/normal/pred_x0.pth"


def left_out(folder, names):
    """What the clone does without: what is not read here, and what scripts have written."""
    if folder == str(ROOT / "MagicTime"):
        return set(names) - OF_MAGICTIME
    return LEFT_OUT if folder == str(ROOT) else ()


def link(source, target):
    """As a copy, but quick. What is changed here must be deleted before."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def repository(world, tmp_path_factory):
    """A clone of the repository whose tiny world is one of random weights and few steps."""
    root = tmp_path_factory.mktemp("clone") / "lvd"
    shutil.copytree(ROOT, root, ignore=left_out, copy_function=link)
    prompts = "MagicTime/ckpts/Tiny/prompts"
    shutil.copytree(ROOT / prompts, root / prompts)
    colours = "MagicTime/ckpts/Tiny/latent_rgb.json"
    shutil.copy2(ROOT / colours, root / colours)
    config = root / "MagicTime" / "sample_configs" / "Tiny.yaml"
    config.unlink()
    magictime_world.write_config(config, world[0], steps=3, batch_size=8, prompt=...)
    training = root / "train_mae.yaml"
    settings = load_yaml(training) | {"shared": {"epoch": 1}, "names": {"epoch": 1}}
    training.unlink()
    save_yaml(settings, training)
    return root


@pytest.fixture(scope="module")
def shell(repository):
    """A function that runs a line of bash in the clone, where `python` needs no imports."""
    address, python = repository / "python.socket", repository / "venv" / "bin" / "python"
    fork_server.write_python(python, address)
    cksum = subprocess.run(["cksum"], stdin=open(repository / "requirements.txt"), stdout=-1)
    (repository / "venv" / ".requirements.txt").write_bytes(cksum.stdout)
    environment = {
        **os.environ,
        "PYTHONPATH": str(repository),
        "OMP_NUM_THREADS": "1",
        "LVD_VENV": str(repository / "venv"),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
    }
    script = ROOT / "tests" / "worlds" / "fork_server.py"
    server = subprocess.Popen([sys.executable, script, address], cwd=repository, env=environment)
    while not address.exists():
        assert server.poll() is None
        time.sleep(0.05)

    def run(command):
        return subprocess.run(
            ["bash", "-c", command], cwd=repository, env=environment, capture_output=True, text=True
        )

    yield run
    server.kill()
    server.wait()


@pytest.fixture(scope="module")
def outputs(repository, shell):
    """[(command, its output)] of the whole page."""
    found = []
    for language, text in FENCE.findall(PAGE.read_text()):
        if language in FILES:
            (repository / FILES[language]).write_text(text)
            continue
        assert language == "bash", f"{language}: the test knows no such block"
        for command in text.replace("\\\n", " ").splitlines():
            done = shell(command)
            assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            found.append((command, done.stdout))
    return found


@pytest.mark.slow
def test_every_command_of_the_page_runs(outputs, repository):
    runs = [
        out for command, out in outputs if command.startswith("bash") and "--plan" not in command
    ]
    assert len(runs) == 2
    assert (repository / HOME / "report.html").exists()
    assert "such as row 3: 'at sea, a purple circle slides left, bent" in runs[0]
    assert "videos: 0 new, 24 of 24 prompts done" in runs[0]  # sampled to be labelled


@pytest.mark.slow
def test_more_prompts_and_other_labels_sample_the_new_videos_alone(outputs, repository):
    last = outputs[-1][1]
    assert "videos: 8 new, 32 of 32 prompts done" in last
    assert "videos: 0 new, 24 of 24 prompts done" in last
    assert "since eval.pth was made the label file changed" in last
    home = repository / HOME
    moved = {path.name for path in (home / "earlier" / "1").iterdir()}
    assert {"eval.pth", "shared", "results_shared", "report.html"} <= moved
    assert len(open_x0_file(repository / UNSAFE).rows) == 32
    assert len(open_x0_file(repository / NORMAL).rows) == 24
    assert load_yaml(home / "shared" / "train.yaml")["model"] == "shared"
    assert not (home / "train_detector_data").exists()  # --model shared needs no clips
