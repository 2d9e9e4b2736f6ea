"""The study's own scripts: flags that make no sense are one line, before anything is computed."""

import pytest

from lvd_study import held_out, prompt_scores, step_cost
from tests.worlds.refusals import refused

FILES = ["--unsafe_prompts", "u.txt", "--normal_prompts", "n.txt", "--labels", "label.csv"]


@pytest.mark.parametrize(
    "words, named",
    [
        ([], "--eval_dir"),
        (["--eval_dir", ".", "--labels", "label.csv"], "--labels: --eval_dir"),
        (["--eval_dir", ".", "--unsafe_seed", "0"], "--unsafe_seed: --eval_dir"),
        (["--eval_dir", ".", *FILES], "--unsafe_prompts: --eval_dir"),
        (FILES[:4], "--labels is needed"),
        (["--normal_seed", "1"], "--unsafe_prompts is needed"),
        ([*FILES, "--unsafe_seed", "-5"], "--unsafe_seed -5"),
        ([*FILES, "--normal_seed", str(2**31)], "--normal_seed 2147483648"),
        ([*FILES, "--again", "1001"], "--again 1001"),
    ],
)
def test_held_out(tmp_path, capsys, words, named):
    out = tmp_path / "out"
    status = held_out.main(["--config", "build_x0.yaml", "--out", str(out), *words])
    refused(status, capsys, named)
    assert not out.exists()


@pytest.mark.parametrize(
    "script, words, flag",
    [
        (prompt_scores, ["--eval_dir", "no"], "--out"),
        (step_cost, ["--model_dir", "no", "--gpu_num", "-1"], "--save_path"),
    ],
)
def test_a_folder_is_no_file_to_write(tmp_path, capsys, script, words, flag):
    status = script.main(["--config", "no.yaml", *words, flag, str(tmp_path)])
    refused(status, capsys, f"{flag} {tmp_path}: is a folder")
