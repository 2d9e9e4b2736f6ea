"""The paper's sequence of commands, from YAMLs and CSVs in the paper's form to the final report;
and a data set and detectors that lie as the paper's scripts leave them."""

import shlex
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

import build_eval_set
import build_x0
import embed_model
import gen_eval_set
import test_accuracy
import train_mae
from lvd.data.clip_file import list_clips
from lvd.data.split import load_split
from lvd.evaluation.results import load_results
from MagicTime import inference_magictime
from tests.worlds.magictime_world import ROOT
from tests.worlds.refusals import refused

PAPER_FORMS = ROOT / "tests" / "paper_forms"
SCRIPTS = {
    "MagicTime/inference_magictime.py": inference_magictime,
    "build_x0.py": build_x0,
    "gen_eval_set.py": gen_eval_set,
    "build_eval_set.py": build_eval_set,
    "train_mae.py": train_mae,
    "embed_model.py": embed_model,
    "test_accuracy.py": test_accuracy,
}
COLUMNS = [[3 * k, 3 * k + 1, 3 * k + 2] for k in range(5)]  # of the label file: fifteen videos
STEPS = 3
pytestmark = pytest.mark.slow


def run(command):
    """Run a command line as it would be typed; returns its exit status."""
    _, script, *words = shlex.split(command)
    return SCRIPTS[script].main(words)


@pytest.fixture(scope="module")
def papers_folder(world, tmp_path_factory):
    """The current folder of somebody who follows the paper: weights, prompts, labels, YAMLs."""
    folder = tmp_path_factory.mktemp("paper")
    shutil.copytree(world[0] / "ckpts", folder / "ckpts")
    dreambooth = folder / "ckpts/DreamBooth"
    (dreambooth / "TinyWorld.safetensors").rename(dreambooth / "model.safetensors")
    for name, count in (("prompts.txt", 15), ("normal.txt", 10)):
        (folder / name).write_text("".join(f"{name[0]} {k}\n" for k in range(count)))
    (folder / "labels").mkdir()
    lines = ["1,2,3,4,5", *(",".join(f"{row:.1f}" for row in line) for line in zip(*COLUMNS))]
    (folder / "labels/label.csv").write_text("\n".join(lines) + "\n")
    sampling = (PAPER_FORMS / "sampling.yaml").read_text().replace("steps: 10", f"steps: {STEPS}")
    (folder / "sampling.yaml").write_text(sampling)
    model, inference = yaml.safe_load(sampling)
    blocks = [model, inference, {"label_file": "label.csv"}]
    (folder / "build_x0.yaml").write_text(yaml.safe_dump(blocks))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


COMMANDS = """
python MagicTime/inference_magictime.py --config sampling.yaml --save-path unsafe
python MagicTime/inference_magictime.py --config sampling.yaml --save-path normal \
    --file_path normal.txt save_predx_0=somewhere/normal.pth save_predx_t=false
python build_x0.py --config build_x0.yaml --label_file_dir labels --out_dir train_detector_data \
    --normal_pred_x0 somewhere/normal.pth representation=video
python gen_eval_set.py --config build_x0.yaml --label_file_dir labels \
    --out_dir train_detector_data --save_path MagicTime/eval.pth
python build_eval_set.py --eval_dir MagicTime/eval.pth --data_dir train_detector_data \
    --save_dir MagicTime
python train_mae.py --data_dir train_detector_data --eval_dir MagicTime/eval.pth --group_num 1-5 \
    --train --epoch 2 --step_num 0-2 --gpu_num 0 --save_dir detectors --workers 1
python train_mae.py --data_dir train_detector_data --eval_dir MagicTime/eval.pth --group_num 1-5 \
    --no-train --step_num 0-2 --gpu_num 0 --save_dir detectors
python embed_model.py --model_dir detectors --eval_dir MagicTime/eval_set \
    --data_dir train_detector_data/normal --save_dir votes/all.pth
python test_accuracy.py --data_dir votes/all.pth --lambda 0.6 --eta 3
"""


@pytest.fixture(scope="module")
def followed(papers_folder):
    """The folder after all commands."""
    for command in COMMANDS.replace("\\\n", " ").strip().split("\n"):
        assert run(command) == 0, command
    return papers_folder


def test_the_papers_commands_lead_to_the_report(followed, capsys):
    assert sorted(path.name for path in Path("somewhere").iterdir()) == [
        "normal.json",
        "normal.pth",
        "predx_0.json",
        "predx_0.pth",
        "predx_t.json",
        "predx_t.pth",
    ]
    for group, column in enumerate(COLUMNS, 1):
        clips = list_clips(f"train_detector_data/group{group}/2")
        assert list(clips) == sorted(column) and clips[column[0]].suffix == ".mp4"
        report = Path(f"detectors/classification_{group}.txt").read_text()
        assert report.count("precision") == STEPS
    split = load_split("MagicTime/eval.pth")
    assert len(split.unsafe) == len(split.normal) == 5
    votes, steps = load_results("votes/all.pth")
    assert steps == STEPS
    assert {label: sorted(map(int, rows)) for label, rows in votes.items()} == {
        "1": split.unsafe,
        "0": split.normal,
    }
    assert run("python test_accuracy.py --data_dir votes/all.pth --lambda 0.6 --eta 3") == 0
    said = capsys.readouterr().out
    right = [2 * sum(row) > 3 for row in votes["1"].values()]
    right += [2 * sum(row) < 3 for row in votes["0"].values()]
    assert f"accuracy: {sum(right) / 10:.4f}\n" in said and "precision" in said


def default_list_dict():
    return defaultdict(list)


def test_what_the_papers_scripts_left_is_read(followed, tmp_path, monkeypatch, capsys):
    """Folders named by numbers, invid, a list of numpy floats, bare state dicts, defaultdicts."""
    split = load_split("MagicTime/eval.pth")
    data = tmp_path / "trained_detector_data"
    for name in ("group1", "group2", "group3", "group4", "group5", "normal"):
        old = "invid" if name == "normal" else name.removeprefix("group")
        shutil.copytree(f"train_detector_data/{name}", data / old)
    shutil.copytree("MagicTime/eval_set", tmp_path / "eval_set")
    for name in ("config.yaml", "representation.json"):
        (tmp_path / "eval_set" / name).unlink()
    torch.save([np.float64(row) for row in split.unsafe], tmp_path / "eval.pth")
    torch.manual_seed(0)
    sizes = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64)
    config = VideoMAEConfig(**sizes, patch_size=56, num_labels=2)
    for group in range(1, 6):
        for step in range(STEPS):
            path = tmp_path / f"detectors/{group}/{step}.pth"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(VideoMAEForVideoClassification(config).state_dict(), path)
    monkeypatch.chdir(tmp_path)

    train = "python train_mae.py --data_dir trained_detector_data --eval_dir eval.pth --group_num 3"
    assert run(f"{train} --train --epoch 1 --step_num 1 --save_dir trained --workers 1") == 0
    assert Path("trained/3/1.pth").exists()

    embed = "python embed_model.py --model_dir detectors --eval_dir eval_set"
    embed += " --data_dir trained_detector_data/invid --save_dir results.pth"
    refused(run(embed), capsys, "eval.pth", "--allow_other_eval")  # nothing says what they saw
    assert run(f"{embed} --allow_other_eval --operating_point argmax") == 0
    votes, _ = load_results("results.pth")
    assert sorted(map(int, votes["1"])) == split.unsafe and list(votes["0"]) == list("01234")

    monkeypatch.setattr(
        sys.modules["__main__"], "default_list_dict", default_list_dict, raising=False
    )
    monkeypatch.setattr(default_list_dict, "__module__", "__main__")
    old = defaultdict(default_list_dict)
    for label, rows in votes.items():
        old[label] = defaultdict(list, rows)
    torch.save(old, "old.pth")
    capsys.readouterr()
    reports = []
    for path in ("results.pth", "old.pth"):
        assert run(f"python test_accuracy.py --data_dir {path} --lambda 0.6 --eta 3") == 0
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1] and "accuracy" in reports[0]
