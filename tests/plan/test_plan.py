"""plan.py: flags, disk, memory, hours, cards, and what it refuses."""

from argparse import Namespace
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

import lvd_plan.inputs
import plan
from lvd.data.config import DEFAULT_CONFIG
from lvd.data.labels import Labels
from lvd.data.split import make_split
from lvd.training.recipes import SharedSettings
from lvd.utils.files import load_json, load_yaml, save_json, save_yaml
from lvd_plan import disk, rates, table
from lvd_plan.counts import Counts, assumed_labels, count
from lvd_plan.inputs import Models, read_inputs
from lvd_plan.models import TEXT, UNET, VAE
from lvd_plan.study_plan import StudyPlan
from lvd_plan.work import ALL, Passes, Work, Workload
from tests.worlds.refusals import refused

Usage = namedtuple("Usage", "total used free")
NUMBERS = ["--videos", "200", "--normal_videos", "200"]


def inputs_of(*flags):
    args = plan.build_parser().parse_args([*NUMBERS, *flags])
    return read_inputs(args, need_weights=False)


@pytest.fixture(scope="module", autouse=True)
def tiny_world(tmp_path_factory):
    """build_x0.yaml of a place where nothing is made yet, whatever this copy has made already."""
    folder = tmp_path_factory.mktemp("tiny")
    settings = load_yaml(DEFAULT_CONFIG)
    for key in ("pred_x0", "normal_pred_x0", "out_dir"):
        settings[key] = str(folder / settings[key])
    save_yaml(settings, folder / DEFAULT_CONFIG.name)
    with pytest.MonkeyPatch.context() as patch:
        for module in (plan, lvd_plan.inputs):
            patch.setattr(module, "DEFAULT_CONFIG", folder / DEFAULT_CONFIG.name)
        yield


@pytest.fixture(scope="module")
def study():
    """The plan of the tiny world's numbers, both kinds of detectors."""
    inputs = inputs_of()
    return StudyPlan(inputs, count(inputs), "both")


def test_the_tiny_world_is_checked_and_fits(capsys):
    assert plan.main(["--check"]) == 0
    out = capsys.readouterr().out
    assert "banner" in out and "MiB more at most" in out


def test_a_disk_that_is_too_small_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage(10**8, 0, 10**8))
    line = refused(plan.main(["--check"]), capsys, "needs", "MiB more disk", "build_x0 alone")
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
    for step in ("sample unsafe", "sample normal", "build_x0", "train_mae"):
        assert study.work[step].gpus == ALL and rows[step].seconds_n < rows[step].seconds
    for step in ("train shared", "folds, shared", "embed shared"):
        assert rows[step].seconds_n == rows[step].seconds > 0
    notes = " ".join(study.notes(card, 8))
    assert "accelerate launch" in notes and "within a third" in notes


def test_without_rates_the_time_is_not_known(study):
    assert all(row.seconds is None for row in study.rows(None, 1))
    assert "--calibrate" in " ".join(study.notes(None, 1))


def test_seconds_follow_from_operations_files_and_what_is_left():
    host = {"start": 1, "read_file": 2, "layer": 0.1}
    machine = rates.Rates("m", None, "", "", {"unet float32": 10.0}, host)
    passes = [Passes("unet float32", 100.0)]
    work = Work(passes, {"read_file": 3}, gpus=ALL)
    assert work.seconds(machine) == 1 + 10 + 6
    assert work.seconds(machine, gpus=4) == 1 + 16 / 4
    assert work.seconds(machine, left=0.5) == 1 + 8
    assert work.seconds(machine, left=0.0) == 0
    overlapping = Work(passes, ahead={"read_file": 3})
    assert overlapping.seconds(machine) == 1 + 10
    assert overlapping.seconds(replace(machine, is_cpu=True)) == 1 + 10 + 6
    # large passes and many small ones do not make up for each other
    many = Work([*passes, Passes("unet float32", 1.0, layers=50)])
    assert many.seconds(machine) == 1 + 10 + 5


def test_the_time_of_a_study_that_was_measured_on_an_h100():
    """docs/results/plan_check.txt: one shared detector on 16 videos of 12 steps."""
    small = SharedSettings(size="small", base_model=None, epoch=60)
    models = Models(UNET, VAE, TEXT, [])
    inputs = replace(inputs_of(), latents=(4, 16, 64, 64), models=models, shared=small)
    labels = Labels(Path("label.csv"), ["odd"], [list(range(8))])
    counts = Counts(labels, False, make_split(labels, range(8)), 12, 8)
    machine = rates.rates_named("H100")
    of_it = Workload(inputs, counts).of("shared")
    assert of_it["train shared"].seconds(machine) == pytest.approx(44.9, rel=0.15)
    assert of_it["embed shared"].seconds(machine) == pytest.approx(14.4, rel=0.15)
    assert of_it["gen_eval_set"].seconds(machine) == pytest.approx(5.5, rel=0.15)


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
    seconds = [
        study.seconds("sample unsafe", rates.rates_of_card(rates.card_named(name)))
        for name in ("H100", "RTX 3090", "T4")
    ]
    assert seconds == sorted(seconds)
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
    assert "time, 2 GPUs" in out and f"wrote {path}" in out
    assert max(map(len, out.splitlines())) <= table.WIDTH
    row = table.Row("a", "b", "-", 2**30, 0, 2**29, 1800.0, 900.0)
    for name in ("plan.csv", "plan.txt"):
        table.save(tmp_path / name, "title", [row], 2, ["note"])
    saved = (tmp_path / "plan.csv").read_text().splitlines()
    assert saved[0] == "step,makes,done,disk_gib,gpu_gib,host_gib,hours_1_gpu,hours_2_gpus"
    assert saved[1] == "a,b,-,1,0,0.5,0.5,0.25"
    assert "- note" in (tmp_path / "plan.txt").read_text()


@pytest.mark.parametrize(
    "size, text",
    [(0, "-"), (10, "1 KiB"), (8192, "8 KiB"), (43 << 20, "43 MiB"), (2**30, "1.0 GiB"),
     (1023 << 20, "1.0 GiB"), (211 << 30, "211 GiB"), (3 << 40, "3.0 TiB"), (99 << 40, "99 TiB")],
)  # fmt: skip
def test_sizes_are_told_in_a_unit_that_suits_them(size, text):
    assert table.size_text(size) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(None, "?"), (0, "-"), (0.2, "1 s"), (5.4, "5 s"), (99, "99 s"), (130, "2.2 min"),
     (754, "13 min"), (5990, "1.7 h"), (73440, "20.4 h"), (3.6e6, "1,000 h")],
)  # fmt: skip
def test_times_are_told_in_a_unit_that_suits_them(seconds, text):
    assert table.time_text(seconds) == text


@pytest.mark.parametrize(
    "asked, name",
    [("h100 sxm", "H100"), ("H100-PCIe", "H100 PCIe"), ("rtx4090", "RTX 4090"),
     ("4090", "RTX 4090"), ("a100 80gb", "A100 80GB"), ("l40s", "L40S"),
     ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
     ("h100 80gb hbm3", "H100"), ("l4", "L4"), ("Tesla T4", "T4")],
)  # fmt: skip
def test_a_card_may_be_named_loosely(asked, name):
    assert rates.card_named(asked)["name"] == name


def test_cards_are_listed_by_help(capsys):
    with pytest.raises(SystemExit):
        plan.main(["--help"])
    assert "A100 80GB, A100 40GB" in " ".join(capsys.readouterr().out.split())


def test_the_tiny_world_has_a_time_on_any_cpu(capsys):
    """README promises 15 minutes on two cores."""
    assert plan.main(["--videos", "200", "--normal_videos", "200", "--gpu_num", "-1"]) == 0
    out = capsys.readouterr().out
    assert "GPU memory" not in out and "one core of a Xeon" in out
    total = next(line for line in out.splitlines() if line.startswith("all")).split()
    assert total[-1] == "min" and 8 <= float(total[-2]) <= 22


def test_folds_of_the_grid_are_planned(study):
    inputs = inputs_of("--folds")
    folds = StudyPlan(inputs, study.counts, "grid")
    assert list(folds.work)[-3:] == ["folds", "choose rule, detectors", "test rule, detectors"]
    machine = rates.rates_of_cpu()
    assert folds.seconds("folds", machine) > 3 * folds.seconds("train_mae", machine)
    assert {piece.step: piece for piece in folds.pieces}["folds"].temporary > 10**7


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--videos", "3"], ["--videos", "--normal_videos", "together"]),
        (["--videos", "0", "--normal_videos", "2"], ["--videos 0", "from 1"]),
        ([*NUMBERS, "--prompts", "x.txt"], ["--videos", "--prompts"]),
        (["--card", "H1"], ["--card", "H1", "RTX 4090"]),
        (["--card", "a100"], ["--card 'a100'", "A100 80GB or A100 40GB"]),
        (["--card", " "], ["--card", "a value"]),
        (["--folds", "--model", "shared"], ["--folds", "--model shared"]),
        (["--prompts", "unsafe.CSV"], ["--prompts unsafe.CSV", "text file"]),
        (["--prompts", "x.txt", "--normal_prompts", "n.json"], ["n.json", "text file"]),
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
        ({"host": {}}, "missing"),
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
