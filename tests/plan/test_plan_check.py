"""benchmarks/plan_check.py: the plan against what the real scripts make, at tiny size."""

from contextlib import contextmanager

import pytest

import plan
from benchmarks import plan_check
from benchmarks.plan.measured import disk_used
from lvd.utils.files import load_json
from lvd_plan import calibrate
from lvd_plan.counts import count
from lvd_plan.disk import FIGURES, clip_size, disk_of, recording_size
from lvd_plan.inputs import read_inputs
from tests.worlds.refusals import refused


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study that plan_check.py --smoke has made: (its folder, the report's table, the plan)."""
    folder = tmp_path_factory.mktemp("plan_check")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_check.tempfile, "TemporaryDirectory", lambda **_: kept(folder))
        patch.setattr(calibrate, "LEAST", 0.0)
        patch.setattr(calibrate, "MOST_RUNS", 1)
        patch.setattr(calibrate, "LARGE_FILE", 1 << 20)
        patch.setattr(calibrate, "_start_script", lambda: None)
        status = plan_check.main(["--smoke", "--out", str(folder / "check.txt")])
    assert status == 0, (folder / "check.txt").read_text()
    return folder


@contextmanager
def kept(folder):
    """In place of a temporary folder: one that stays."""
    yield str(folder)


def planned(folder, representation, size):
    """Inputs of the plan of a representation."""
    return read_inputs(plan.build_parser().parse_args(flags_of(folder, representation, size)))


def flags_of(folder, representation, size):
    return [
        *("--config", str(folder / f"{representation}.yaml")),
        *("--prompts", str(folder / "unsafe.txt")),
        *("--normal_prompts", str(folder / "normal.txt")),
        *("--train_config", str(folder / f"train_{size}.yaml")),
    ]


def test_every_script_ran_and_is_compared(made):
    table = (made / "check.csv").read_text()
    for script in ("inference_magictime.py, normal", "build_x0.py, latent", "embed_model.py, base"):
        assert script in table
    text = (made / "check.txt").read_text()
    assert "FAILED" not in text and "skipped" not in text
    assert "rates, float32: TFLOPS: unet float32" in text


def test_recordings_and_clips_take_exactly_what_was_planned(made):
    inputs = planned(made, "latent", "nano")
    for kind in ("unsafe", "normal"):
        assert (made / kind / "pred_x0.pth").stat().st_size == recording_size(inputs, 6)
    clips = list((made / "latent" / "train_detector_data").rglob("*.pt"))
    assert len(clips) == count(inputs).clips == 36
    assert {clip.stat().st_blocks * 512 for clip in clips} == {clip_size(inputs)}


def test_detectors_take_what_was_planned(made):
    inputs = planned(made, "video", "base")
    pieces = {piece.step: piece for piece in disk_of(inputs, count(inputs), "grid")}
    detector = disk_used(made / "video" / "detectors" / "1" / "0.pth")
    beside = FIGURES["grid"]  # tables and curves
    of_one = (pieces["train_mae"].size - beside) / inputs.sampling.settings.steps
    assert of_one == pytest.approx(detector, rel=0.05)


def test_what_is_there_is_counted_and_not_planned_again(made, capsys):
    assert plan.main([*flags_of(made, "video", "base"), "--model", "grid"]) == 0
    text = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert all(" all " in lines[f"sample {kind}"] for kind in ("unsafe", "normal"))
    assert "12 of 36" in lines["build_x0"]  # one of three steps
    assert "1 of 3" in lines["train_mae"]
    # the rates that plan.py --calibrate has kept there are used
    assert "plan_rates.json" in text and "?" not in text.split("\n\n")[1]
    assert {"unet float32", "vae float32", "grid base float32"} < set(
        load_json(made / "video" / "plan_rates.json")["reached"]
    )


def test_a_recording_of_another_size_is_told(made, tmp_path, capsys):
    sampling = (made / "sampling.yaml").read_text().replace("steps: 3", "steps: 2")
    (tmp_path / "sampling.yaml").write_text(sampling)
    config = (made / "latent.yaml").read_text()
    config = config.replace(str(made / "sampling.yaml"), str(tmp_path / "sampling.yaml"))
    (tmp_path / "latent.yaml").write_text(config)
    flags = flags_of(made, "latent", "nano")
    flags[1] = str(tmp_path / "latent.yaml")
    assert plan.main([*flags, "--model", "shared", "--card", "H100"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "a recording of [3, 4, 2, 8, 8], not of [2, 4, 2, 8, 8]" in out


def test_refusals(capsys):
    refused(plan_check.main(["--seconds", "0", "--smoke"]), capsys, "--seconds 0")
