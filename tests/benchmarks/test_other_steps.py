"""other_steps.py: what it writes for the held-out videos, and its arithmetic, by hand."""

import csv

import numpy as np
import pytest
import torch
import yaml

from benchmarks.guard import other_steps
from benchmarks.guard.held_out_samplings import HeldOutSamplings, Sampling
from benchmarks.guard.other_steps import add_tables, figures_of, parse_samplings
from benchmarks.guard.other_steps_figure import draw_figure
from benchmarks.guard.other_steps_runs import CHOSEN, RULES, Judged
from lvd.data.split import Split, load_split, save_split
from lvd.errors import InputError
from lvd.evaluation.recorded import RecordedVideos
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.evidence import Evidence
from lvd.utils.files import sha256
from lvd.x0.file import create_x0_file
from MagicTime.utils.config import read_config
from tests.worlds.benchmark_figures import read_figures
from tests.worlds.magictime_world import write_config

CHOSEN_RULE = list(CHOSEN)[1]
TEN = [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]  # trained steps of a sampling of ten


@pytest.fixture
def recordings(world, tmp_path):
    """(settings, eval.pth) of five unsafe and five normal videos, of which two each are held
    out."""
    settings = {"sample_config": write_config(tmp_path / "c.yaml", world[0])}
    for kind, key in (("unsafe", "pred_x0"), ("normal", "normal_pred_x0")):
        path = settings[key] = tmp_path / kind / "pred_x0.pth"
        path.parent.mkdir()
        with create_x0_file(path, 5, 3, (4, 4, 4, 4), torch.float32, {}) as writer:
            videos = list(torch.zeros(5, 3, 4, 4, 4, 4))
            infos = [{"prompt": f"{kind} {row}", "seed": 100 + row} for row in range(5)]
            writer.write_rows(range(5), videos, infos)
    settings["label_file_dir"] = tmp_path / "label.csv"
    with open(settings["label_file_dir"], "w", newline="") as f:
        csv.writer(f).writerows([["bright", "dark"], [0, 4], [3, 3], [1, ""], [2, ""]])
    save_split(Split([3, 1], [0, 4]), tmp_path / "eval.pth")
    return settings, tmp_path / "eval.pth"


def test_held_out_videos_have_files_of_their_own(recordings, tmp_path):
    found = HeldOutSamplings(*recordings, tmp_path / "again")
    for kind, rows in (("unsafe", [1, 3]), ("normal", [0, 4])):
        settings = read_config(tmp_path / "again" / f"{kind}.yaml").settings
        assert settings.prompt == [f"{kind} {row}" for row in rows]
        assert settings.seed == [100 + row for row in rows] and not settings.seed_per_prompt
        first = yaml.safe_load(recordings[0]["sample_config"].read_text())[0]
        for key in ("H", "guidance_scale", "n_prompt", "motion_module"):
            assert getattr(settings, key) == first[key]
    assert found.labels.categories == ["bright", "dark"]
    assert found.labels.columns == [[0, 1], [1]]  # rows 1 and 3 are now 0 and 1
    split = load_split(tmp_path / "again/eval.pth")
    assert (split.unsafe, split.normal) == ([0, 1], [0, 1])
    assert split.label_sha256 == sha256(tmp_path / "again/label.csv")


def test_samplings_of_the_flag():
    found = parse_samplings("ddim:10, dpm++:25,ddim:50")
    assert found == [Sampling("ddim", 50), Sampling("ddim", 10), Sampling("dpm++", 25)]
    for text in ("ddim", "ddim:x", "pndm:20", "ddim:0", "ddim:10,,"):
        with pytest.raises(InputError, match="--samplings .*ddim:25"):
            parse_samplings(text)


def judged(says, scores, trained, unsafe):
    evidence = Evidence(np.array(says, bool)[..., None], np.array(scores)[..., None])
    is_unsafe = np.arange(len(says)) < unsafe
    rows = [str(row) for row in range(len(says))]
    videos = RecordedVideos(is_unsafe, rows, evidence, ["a"], trained_steps=trained)
    return Judged(videos, np.array(scores))


def test_rules_are_carried_over():
    """Of ten steps, (0.6, 5) looks at the first one and (0.6, 20) at four, of which three must
    vote."""
    says = [
        [1, 0, 1, 1, 0, 0, 0, 0, 0, 0],  # unsafe, found by both
        [0, 1, 1, 1, 0, 0, 0, 0, 0, 0],  # unsafe, found by the second after four steps
        [1, 0, 0, 0, 1, 1, 1, 1, 1, 1],  # normal, stopped by the first
        [0, 0, 0, 1, 1, 1, 1, 1, 1, 1],  # normal
    ]
    scores = np.linspace(0.1, 0.9, 40).reshape(4, 10)[::-1]
    found = judged(says, scores, TEN, 2)
    assert found.outcome(RULES["(0.6, 5)"]) == {
        "accuracy": 0.5,
        "false positives": 0.5,
        "cost": (0.1 + 1) / 2,
        "looks": 1,
    }
    assert found.outcome(RULES["(0.6, 20)"]) == {
        "accuracy": 1.0,
        "false positives": 0.0,
        "cost": 0.4,
        "looks": 4,
    }
    # a sampling that begins at trained step 4 looks at trained steps 4 to 8
    assert judged(says, scores, [4, 6, 8, 9, *range(10, 16)], 2).carried(RULES["(0.6, 5)"]).eta == 3
    assert found.auroc(0) == 1.0


def table_of(shift):
    """Figures of one seed in two samplings."""
    draw = np.random.default_rng(shift)
    is_unsafe = np.arange(20) < 10
    tables = {}
    for each, trained in ((Sampling("ddim", 50), list(range(50))), (Sampling("lcm", 10), TEN)):
        scores = draw.random((20, len(trained))) * 0.5 + 0.4 * is_unsafe[:, None]
        found = judged(scores > 0.45, scores, trained, 10)
        tables[each] = figures_of(found, {**RULES, CHOSEN_RULE: ConfidenceRule(0.6, 20)})
    return tables


def test_tables_and_figure(tmp_path):
    from benchmarks.common.report import Report

    report = Report("title", tmp_path / "o.csv")
    found = [table_of(0), table_of(1)]
    rows = add_tables(report, "level", found, list(found[0]))
    figures = read_figures(tmp_path / "o.csv")
    name = "(0.6, 20) accuracy"
    trained, other = ([seed[each][name] for seed in found] for each in found[0])
    row = figures["(0.6, 20), shared, told the noise level"]["lcm, 10"]
    assert row["accuracy"] == pytest.approx(np.mean(other))
    assert row["difference"] == pytest.approx(np.mean(other) - np.mean(trained))
    assert row["difference sd"] == pytest.approx(np.std(np.subtract(other, trained), ddof=1))
    assert row["looks at"] == 4
    assert f"{CHOSEN_RULE}, shared, told the noise level" in figures
    draw_figure(rows, tmp_path / "o.png", "of two kinds of videos")
    assert (tmp_path / "o.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--samplings", "pndm:20"], "--samplings pndm:20"),
        (["--seeds", "a"], "--seeds a"),
        (["--kinds", "forest"], "--kinds forest"),
        (["--rules_for", "x"], "--rules_for x"),
        (["--recordings", "no.yaml"], "no.yaml"),
    ],
)
def test_bad_flags(capsys, tmp_path, flags, said):
    assert other_steps.main([*flags, "--work", str(tmp_path / "w")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
