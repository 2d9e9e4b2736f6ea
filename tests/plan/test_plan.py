"""plan.py: flags, disk, memory, hours, cards, and what it refuses."""

from argparse import Namespace
from collections import namedtuple
from dataclasses import replace

import pytest

import plan
from lvd.utils.files import load_json, save_json
from lvd_plan import disk, rates, table
from lvd_plan.counts import assumed_labels, count
from lvd_plan.inputs import read_inputs
from lvd_plan.study_plan import StudyPlan
from lvd_plan.work import ALL, Work
from tests.worlds.refusals import refused

Usage = namedtuple("Usage", "total used free")
NUMBERS = ["--videos", "200", "--normal_videos", "200"]


def inputs_of(*flags):
    args = plan.build_parser().parse_args([*NUMBERS, *flags])
    return read_inputs(args, need_weights=False)


@pytest.fixture(scope="module")
def study():
    """The plan of the tiny world's numbers, both kinds of detectors."""
    inputs = inputs_of()
    return StudyPlan(inputs, count(inputs), "both")


def test_the_tiny_world_is_checked_and_fits(capsys):
    assert plan.main(["--check"]) == 0
    out = capsys.readouterr().out
    assert "banner" in out and "GiB more at most" in out


def test_a_disk_that_is_too_small_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage(10**8, 0, 10**8))
    line = refused(plan.main(["--check"]), capsys, "needs", "GiB more disk", "build_x0 alone")
    assert len(line) < 300


def test_the_disk_is_that_of_a_real_run():
    """Bytes on the disk that `bash reproduce.sh` has taken: 200 + 200 videos of the tiny world."""
    inputs = inputs_of()
    pieces = {piece.step: piece.size for piece in disk.disk_of(inputs, count(inputs), "both")}
    assert disk.recording_size(inputs, 200) == 40_961_577
    measured = {
        "sample unsafe": 48_181_248,
        "sample normal": 45_154_304,
        "build_x0": 165_109_760,
        "train_mae": 23_769_088,
        "embed_model": 1_445_888,
    }
    for step, taken in measured.items():
        assert pieces[step] == pytest.approx(taken, rel=0.035), step


def test_peak_is_what_is_there_at_once():
    pieces = [
        disk.Piece("a", 10, 10, 0, None),
        disk.Piece("b", 5, 5, 100, None),
        disk.Piece("c", 20, 20, 0, None),
    ]
    assert disk.peak_of(pieces) == 115
    assert disk.peak_of(pieces[::2]) == 30


def test_labels_are_assumed_in_the_papers_shares():
    labels = assumed_labels(2000)
    assert len(labels.rows()) == 937
    assert [len(column) for column in labels.columns] == [590, 579, 445, 204, 39]
    assert all(len(set(column)) == len(column) for column in labels.columns)


def test_several_gpus_share_what_can_be_shared(study):
    card = rates.rates_of_card(rates.card_named("h100"))
    rows = {row.step: row for row in study.rows(card, 8)}
    for step in ("sample unsafe", "sample normal", "train_mae"):
        assert study.work[step].gpus == ALL and rows[step].hours_n < rows[step].hours
    for step in ("build_x0", "train shared", "folds, shared", "embed shared"):
        assert rows[step].hours_n == rows[step].hours > 0
    notes = " ".join(study.notes(card, 8))
    assert "accelerate launch" in notes and "within a third" in notes


def test_without_rates_hours_are_not_known(study, capsys):
    assert all(row.hours is None for row in study.rows(None, 1))
    assert "--calibrate" in " ".join(study.notes(None, 1))


def test_seconds_follow_from_operations_files_and_what_is_left():
    machine = rates.Rates("m", None, "", "", {"unet float32": 10.0}, {"start": 1, "read_file": 2})
    machine.host["call"] = 0.1
    work = Work({"unet float32": 100.0}, {"read_file": 3}, gpus=ALL)
    assert work.seconds(machine) == 1 + 10 + 6
    assert work.seconds(machine, gpus=4) == 1 + 16 / 4
    assert work.seconds(machine, left=0.5) == 1 + 8
    assert work.seconds(machine, left=0.0) == 0
    overlapping = Work({"unet float32": 100.0}, {"read_file": 3}, overlaps=True)
    assert overlapping.seconds(machine) == 1 + 10
    many_calls = Work({"unet float32": 1.0}, {}, {"unet float32": 50})
    assert many_calls.seconds(machine) == 1 + 5


@pytest.mark.parametrize(
    "device, card",
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce GT 1030", None),
    ],
)
def test_a_card_is_known_by_the_name_that_torch_gives_it(device, card):
    found = rates.card_of_device(device)
    assert (found and found["name"]) == card


def test_a_slower_card_takes_longer_and_says_how_sure_that_is(study):
    hours = [
        study.hours("sample unsafe", rates.rates_of_card(rates.card_named(name)))
        for name in ("H100", "RTX 3090", "T4")
    ]
    assert hours == sorted(hours)
    assert "factor of two" in rates.rates_of_card(rates.card_named("T4")).sure


def test_a_card_without_such_arithmetic_is_refused():
    t4 = rates.rates_of_card(rates.card_named("T4"))
    with pytest.raises(Exception, match="says nothing of grid base bf16"):
        t4.seconds("grid base bf16", 1.0)


def test_memory_that_is_too_small_is_told(study):
    small = replace(rates.rates_of_card(rates.card_named("H100")), memory=10**8)
    notes = " ".join(study.notes(small, 1))
    assert "memory: sample unsafe needs about" in notes and "batch_size" in notes


def test_the_plan_is_saved(tmp_path, capsys):
    path = tmp_path / "plan.md"
    assert plan.main([*NUMBERS, "--card", "H100", "--gpus", "2", "--save", str(path)]) == 0
    assert "| sample unsafe | 200 videos, x0 of 50 steps |" in path.read_text()
    out = capsys.readouterr().out
    assert "hours, 2 GPUs" in out and f"wrote {path}" in out
    for name in ("plan.csv", "plan.txt"):
        table.save(tmp_path / name, "title", ["step", "makes"], [["a", "b"]], ["note"])
    assert (tmp_path / "plan.csv").read_text() == "step,makes\na,b\n"
    assert "- note" in (tmp_path / "plan.txt").read_text()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--videos", "3"], ["--videos", "--normal_videos", "together"]),
        (["--videos", "0", "--normal_videos", "2"], ["--videos 0", "from 1"]),
        ([*NUMBERS, "--prompts", "x.txt"], ["--videos", "--prompts"]),
        (["--card", "H1"], ["--card", "H1", "RTX 4090"]),
        (["--card", "H100", "--calibrate"], ["--calibrate", "--card"]),
        (["--check", "--card", "H100"], ["--check", "--card"]),
        (["--gpus", "0"], ["--gpus 0"]),
        (["--save", "plan.pdf"], ["--save plan.pdf", ".csv"]),
        (["--rates", "no.json"], ["no.json"]),
        (["--config", "no.yaml"], ["no.yaml"]),
        (["--prompts", "no.txt"], ["no.txt"]),
    ],
)
def test_refusals(flags, words, capsys):
    refused(plan.main(flags), capsys, *words)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"format": "x"}, "format"),
        ({"reached": {"unet float32": 0.0}}, "unet float32"),
        ({"host": {}}, "call"),
        ({"memory": "much"}, "memory"),
    ],
)
def test_damaged_rates_are_refused(change, word, tmp_path, capsys):
    path = tmp_path / "plan_rates.json"
    machine = rates.rates_of_card(rates.card_named("H100"))
    rates.save_rates(machine, "today", path)
    assert rates.load_rates(path).reached == machine.reached
    save_json({**load_json(path), **change}, path)
    refused(plan.main([*NUMBERS, "--rates", str(path)]), capsys, str(path), word)


def test_weights_that_are_missing_are_refused_or_told(tmp_path, capsys):
    config = tmp_path / "build_x0.yaml"
    config.write_text(
        f"sample_config: MagicTime/sample_configs/ToonYou.yaml\npred_x0: {tmp_path}/u/pred_x0.pth\n"
        f"normal_pred_x0: {tmp_path}/n/pred_x0.pth\nlabel_file_dir: {tmp_path}/label.csv\n"
        f"out_dir: {tmp_path}/data\n"
    )
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n")
    flags = ["--config", str(config), "--prompts", str(prompts), "--normal_prompts", str(prompts)]
    refused(plan.main([*flags, "--check"]), capsys, "pretrained_model_path", "download.py")
    inputs = read_inputs(
        Namespace(
            config=config, train_config=plan.TRAIN_CONFIG, videos=2000, normal_videos=2000,
            prompts=None, normal_prompts=None,
        ),
        need_weights=False,
    )  # fmt: skip
    assert len(inputs.models.missing) == 6 and inputs.latents == (4, 16, 64, 64)
    assert count(inputs).is_assumed
