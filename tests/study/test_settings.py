"""study.yaml and the flags of reproduce_tables.py: what makes no sense is one line."""

import pytest

from lvd.utils.config import ROOT
from lvd_study.settings import read_study
from tests.worlds.refusals import refused

NAN = float("nan")


@pytest.mark.parametrize("path", ["study.yaml", "MagicTime/sample_configs/study_full.yaml"])
def test_shipped_settings(path):
    assert read_study(ROOT / path).seeds == [2024, 2025, 2026]


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": 2024}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": [-1]}, "seeds: -1"),
        ({"seeds": [1.5]}, "seeds"),
        ({"sedes": [1]}, "sedes"),
        ({"rules_for": ["shard"]}, "rules_for: 'shard'"),
        ({"rules_for": ["grid", "grid"]}, "rules_for"),
        ({"folds": 1}, "folds: 1"),
        ({"folds": NAN}, "folds"),
        ({"max_cost": NAN}, "max_cost: nan"),
        ({"max_cost": 2}, "max_cost: 2"),
        ({"max_false_positive_rate": 0}, "max_false_positive_rate: 0"),
        ({"guidance_scales": [NAN]}, "guidance_scales: nan"),
        ({"guidance_scales": ["much"]}, "guidance_scales"),
        ({"samplings": ["ddim"]}, "samplings: 'ddim'"),
        ({"samplings": ["dim:10"]}, "samplings: 'dim:10'"),
        ({"samplings": ["ddim:3", "ddim:3"]}, "samplings"),
        ({"samplings": ["ddim:3", "ddim:03"]}, "samplings"),
        ({"seeds": [2**31]}, "seeds: 2147483648"),
        ({"seeds": [1, 2], "transfer_seeds": 3}, "transfer_seeds: 3"),
        ({"guidance_scales": [1.0000001, 1.0000002]}, "guidance_scales"),
        ({"wrong_labels": [0.1, 0.1000000001]}, "wrong_labels"),
        ({"safety_concept": "a\0b"}, "safety_concept: holds the character U+0000"),
        ({"safe_guidance": ["huge"]}, "safe_guidance: 'huge'"),
        ({"safety_concept": " "}, "safety_concept"),
        ({"weights": {"a/b": {"dreambooth_path": ""}}}, "weights: 'a/b'"),
        ({"weights": {"a": {"dreambooth": ""}}}, "weights: a: 'dreambooth'"),
        ({"weights": {"a": {"dreambooth_path": 5}}}, "weights: a: dreambooth_path: 5"),
        ({"weights": {"a": {}}}, "weights: a"),
        ({"wrong_labels": [2]}, "wrong_labels: 2"),
        ({"reworded": {"unsafe": "x"}}, "reworded"),
        ({"reworded": dict.fromkeys(("unsafe", "normal", "labels"), "none.txt")}, "none.txt"),
    ],
)
def test_values_that_make_no_sense(study_world, tmp_path, capsys, changes, named):
    path = study_world.write_study(tmp_path / "study.yaml", **changes)
    status = study_world.reproduce("--dry-run", "--tables", "a", study=path)
    refused(status, capsys, str(path), named)


@pytest.mark.parametrize("text", ["[1, 2]", "seeds", "", "a: [", "? [1]: 2"])
def test_no_mapping(study_world, tmp_path, capsys, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    refused(study_world.reproduce("--dry-run", study=path), capsys, str(path))


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--tables", "a,h"], "--tables a,h"),
        (["--jobs", "0"], "--jobs 0"),
        (["--scale", "full"], "--scale full"),
        (["--prompts", "prompts.txt"], "--prompts"),
        (["--prompts", "no.txt", "--normal_prompts", "no.txt"], "no.txt: no such file"),
        (["--train_config", "no.yaml"], "no.yaml"),
        (["--study", "no.yaml"], "no.yaml"),
        (["--gpu_num", "-2"], "--gpu_num -2"),
        (["--gpus", "0,0"], "--gpus 0,0"),
        (["--gpus", "a"], "--gpus a"),
        (["--out", __file__], "--out"),
        (["steps=3"], "steps=..."),
    ],
)
def test_flags_that_make_no_sense(study_world, capsys, flags, named):
    refused(study_world.reproduce("--dry-run", *flags), capsys, named)


@pytest.mark.parametrize(
    "line, named",
    [
        ("sample_config: none.yaml", "sample_config"),
        ("label_file_dir: none.csv", "label_file_dir"),
        ("pred_x0: none/x0.pth", "none/x0.pth"),
    ],
)
def test_config_that_makes_no_sense(study_world, tmp_path, capsys, line, named):
    config, key = tmp_path / "build_x0.yaml", line.partition(":")[0]
    kept = [
        each for each in study_world.config.read_text().splitlines() if not each.startswith(key)
    ]
    config.write_text("\n".join([*kept, line]))
    refused(study_world.reproduce("--dry-run", "--config", str(config)), capsys, named)


def test_recordings_to_be_sampled_have_the_samplers_name(study_world, tmp_path, capsys):
    config = tmp_path / "build_x0.yaml"
    text = study_world.config.read_text().replace("unsafe/pred_x0.pth", "unsafe/x0.pth")
    config.write_text(text)
    prompts = ["--prompts", study_world.prompts["unsafe"]]
    prompts += ["--normal_prompts", study_world.prompts["normal"]]
    status = study_world.reproduce("--dry-run", "--config", config, *prompts)
    refused(status, capsys, "pred_x0.pth is needed")
