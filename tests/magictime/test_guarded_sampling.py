"""The guard in MagicTime's sampler: who is stopped, that the others are untouched, what is written,
how it goes on."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from lvd.data.rgb import LatentToRGB, save_rgb
from lvd.data.transforms import from_uint8, to_uint8
from lvd.errors import InputError
from lvd.rules.choice import DEFAULT_ETA
from lvd.utils.files import load_torch
from lvd.utils.video import read_mp4
from lvd.voting import verdict, votes_needed
from lvd.x0.file import open_x0_file
from MagicTime import inference_magictime
from MagicTime.utils import pipeline
from MagicTime.utils.config import read_config
from MagicTime.utils.guarded import PREVIEW_LEFT, Guarding
from MagicTime.utils.prompts import read_source
from MagicTime.utils.run import Run
from MagicTime.utils.run_summary import guard_facts
from tests.worlds import magictime_world
from tests.worlds.guard_world import (
    CATEGORIES,
    ETA,
    LAMBDA,
    PROMPTS,
    SCRIPT,
    STEPS,
    expected,
    facts,
    guard_flags,
    lines_of,
    make_home,
    write_detectors,
)
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import sample


@pytest.fixture(scope="module")
def home(world, tmp_path_factory):
    return make_home(world, tmp_path_factory.mktemp("guarded"))


# ---- the sampler


def run(model, prompts, seeds, on_step=None, side=32):
    return pipeline.sample(
        model, prompts, [f"bad {p}" for p in prompts], seeds, 4, side, side, 6, 3.0, on_step=on_step
    )


def test_the_rest_of_a_batch_comes_out_as_alone(world):
    """Videos leave at several steps, the batch shrinks each time.

    In float64: 6 steps, each rounded by 1e-14, and a gain of 400 (magictime_world.WELL_CONDITIONED)
    make less than 1e-10.
    """
    model, side = (
        magictime_world.load(world[0]).to("cpu", torch.float64),
        magictime_world.WELL_CONDITIONED,
    )
    prompts, seeds, seen = ["a", "two dots", "a wave", "x"], [3, 1, 4, 1], []

    def drop(step, timestep, x0, latents):
        seen.append((len(x0), len(latents)))
        return {0: [0, 1, 3], 2: [1, 2], 3: [0, 1]}.get(step)

    left = run(model, prompts, seeds, drop, side)
    assert seen == [(4, 4), (3, 3), (3, 3), (2, 2), (2, 2), (2, 2)]
    for place, row in enumerate((1, 3)):
        alone = run(model, [prompts[row]], [seeds[row]], side=side)
        torch.testing.assert_close(left[place : place + 1], alone, rtol=1e-8, atol=1e-8)


@torch.inference_mode()
def test_the_bits_are_those_of_the_smaller_batch(model):
    """From the step on at which one of three has left: exactly what a batch of the other two
    computes."""
    prompts, at = ["a", "two dots", "a wave"], {}

    def drop(step, timestep, x0, latents):
        at[step] = latents
        return [0, 2] if step == 1 else None

    left = run(model, prompts, [3, 1, 4], drop)
    words = torch.cat(
        [pipeline.encode(model, texts) for texts in ([f"bad {p}" for p in prompts], prompts)]
    )
    words = words[[0, 2, 3, 5]].repeat_interleave(4, 0)
    x = at[1][[0, 2]]
    for step in range(2, 6):
        t = model.scheduler.timesteps[step]
        unconditional, conditional = model.unet(
            torch.cat([x, x]), t, encoder_hidden_states=words
        ).sample.chunk(2)
        x = model.scheduler.step(
            unconditional + 3.0 * (conditional - unconditional), int(t), x
        ).prev_sample
    assert torch.equal(left, x)


def test_sampling_ends_when_nobody_is_left(model):
    calls = []
    hook = model.unet.register_forward_hook(lambda *_: calls.append(1))
    left = run(model, ["a", "b"], [1, 2], lambda step, *_: [] if step == 1 else None)
    hook.remove()
    assert left.shape == (0, 4, 4, 4, 4) and len(calls) == 2


# ---- a guarded run


def test_verdicts_are_those_of_the_recorded_votes(home):
    found = facts(home.out)
    assert {row: line["verdict"] == "unsafe" for row, line in found.items()} == home.unsafe
    for row, line in found.items():
        assert line["stopped"] == home.unsafe[row] and line["steps_total"] == STEPS
        assert line["steps_run"] == (line["step"] + 1 if line["stopped"] else STEPS)
        assert line["steps_saved"] == STEPS - line["steps_run"]
        assert set(line["scores"]) == set(CATEGORIES) and len(line["votes"]) == line["step"] + 1
        if line["stopped"]:  # as soon as it is decided
            assert sum(line["votes"]) == votes_needed(LAMBDA, ETA) and line["votes"][-1] == 1
    extra = lines_of(home.out)[0]
    assert {key: extra[key] for key in ("row", "video", "prompt", "dry_run")} == {
        "row": 0,
        "video": "0000",
        "prompt": PROMPTS[0],
        "dry_run": False,
    }
    assert extra["detectors"][:2] == ["1/0 (one)", "2/0 (two)"] and extra["seconds"] > 0


@pytest.mark.parametrize("representation", ["rgb", "video"])
def test_detectors_of_pictures(home, model, tmp_path, representation):
    """Small frames by a matrix; frames that the VAE decodes, as they would be without loss from a
    file."""
    numbers = [[0.9, 0.1, 0], [0, 0.8, 0.2], [0.1, 0, 0.7], [0.3, 0.3, 0.3], [0.05, 0, -0.05]]

    def clips(x0):
        if representation == "rgb":
            return LatentToRGB(tuple(map(tuple, numbers[:-1])), tuple(numbers[-1]))(
                x0.float()
            ).half()
        pixels = torch.cat(
            [pipeline.decode(model.vae, clip.half().float()) for clip in x0.split(1)]
        )
        return from_uint8(to_uint8(pixels)).half()

    write_detectors(tmp_path / "detectors", home.x0, clips, representation, {"rgb_matrix": numbers})
    unsafe = expected(tmp_path / "detectors", home.x0, clips)
    assert (
        sample(
            home.config,
            tmp_path / "out",
            "--guard",
            tmp_path / "detectors",
            "--eta",
            ETA,
            "--guard-preview",
        )
        == 0
    )
    assert {
        row: line["verdict"] == "unsafe" for row, line in facts(tmp_path / "out").items()
    } == unsafe
    assert (
        0 < sum(unsafe.values()) < 7 and len(list((tmp_path / "out" / "previews").iterdir())) == 7
    )


def test_stopped_videos_are_not_written_and_the_others_are_as_without_a_guard(home):
    passed = sorted(row for row, unsafe in home.unsafe.items() if not unsafe)
    assert sorted(p.name for p in (home.out / "videos").iterdir()) == [
        f"{row:04d}.mp4" for row in passed
    ]
    for row in passed:
        with_guard, without = (
            read_mp4(f / "videos" / f"{row:04d}.mp4").astype(float) for f in (home.out, home.plain)
        )
        assert abs(with_guard - without).mean() < 2  # rounding differs with the size of the batch
    x0 = open_x0_file(home.out / "pred_x0.pth")
    assert x0.rows == passed
    torch.testing.assert_close(x0.tensor[passed], home.x0.tensor[passed], rtol=0.05, atol=0.05)


def test_what_was_seen_of_a_stopped_video_is_recorded_and_not_called_whole(home):
    x0 = open_x0_file(home.out / "pred_x0.pth")
    for row, line in facts(home.out).items():
        if line["stopped"]:
            ran = line["steps_run"]
            torch.testing.assert_close(
                x0.tensor[row, :ran], home.x0.tensor[row, :ran], rtol=0.05, atol=0.05
            )
            assert not x0.tensor[row, ran:].any() and row not in x0.info
            with pytest.raises(InputError, match="row"):
                x0.need_rows([row])


def test_no_video_lies_there_without_its_verdict(home, tmp_path, monkeypatch, capsys):
    """Whenever the run is interrupted; then it goes on to the same."""
    from MagicTime.utils import batch

    out, write, written = tmp_path / "out", batch.write_video, []

    def write_and_fail(path, *args):
        assert int(Path(path).name) in [line["row"] for line in lines_of(out)]
        write(path, *args)
        written.append(path)
        if len(written) == 2:
            raise InputError("interrupted")

    monkeypatch.setattr(batch, "write_video", write_and_fail)
    refused(sample(home.config, out, *guard_flags(home)), capsys, "interrupted")
    assert {path.stem for path in (out / "videos").iterdir()} <= {
        line["video"] for line in lines_of(out) if line["verdict"] == "safe"
    }
    assert sample(home.config, out, *guard_flags(home)) == 0
    assert facts(out) == facts(home.out) and len(lines_of(out)) == len(PROMPTS)


def test_a_stopped_video_is_never_decoded(home, tmp_path, monkeypatch):
    decoded = []

    def counted(vae, latents, **where):
        decoded.append(1)
        return pipeline.decode(vae, latents, **where)

    monkeypatch.setattr("MagicTime.utils.batch.decode", counted)
    assert sample(home.config, tmp_path / "out", *guard_flags(home)) == 0
    assert len(decoded) == sum(not unsafe for unsafe in home.unsafe.values())


def test_the_summary(home, capsys):
    assert sample(home.config, home.out, *guard_flags(home)) == 0
    said = capsys.readouterr().out
    stopped = [line for line in lines_of(home.out) if line["stopped"]]
    assert "0 new, 7 of 7 prompts done" in said
    assert f"{len(stopped)} unsafe and 0 unchecked stopped, {7 - len(stopped)} passed" in said
    for line in stopped:
        assert (
            f"{line['video']} {' and '.join(line['categories'])}, after {line['step'] + 1} of 4 "
            "steps" in said
        )
    assert (
        f"{sum(line['steps_saved'] for line in stopped)} of 28 steps saved" in said
        and "verdicts.jsonl" in said
    )


def test_dry_run(home, tmp_path, capsys):
    out = tmp_path / "out"
    assert sample(home.config, out, *guard_flags(home), "--guard-dry-run") == 0
    found = facts(out)
    for row, line in facts(home.out).items():
        for key in ("verdict", "step", "votes", "steps_run", "steps_saved"):
            assert found[row][key] == line[key]
        assert not found[row]["stopped"]
    assert sorted(p.name for p in (out / "videos").iterdir()) == [
        f"{row:04d}.mp4" for row in range(7)
    ]
    assert (out / "pred_x0.pth").read_bytes() == (
        home.plain / "pred_x0.pth"
    ).read_bytes()  # nothing is changed
    told = capsys.readouterr().out
    stopped = sum(line["verdict"] != "safe" for line in found.values())
    interval = binomtest(stopped, 7).proportion_ci(0.95, method="wilson")
    assert f"{stopped} unsafe and 0 unchecked would have been stopped" in told
    assert f"rate: {stopped / 7:.1%} of 7 videos would have been stopped" in told
    assert f"{interval.low:.1%} to {interval.high:.1%}" in told
    assert "left undecoded; all were decoded and written" in told and "not decoded" not in told
    assert all(line["dry_run"] for line in lines_of(out))


def test_other_rules_can_be_tried_on_a_dry_run(home, tmp_path):
    """Votes before and after the verdict are those of a rule that decides at its last step."""
    dry, late = tmp_path / "dry", tmp_path / "late"
    assert sample(home.config, dry, *guard_flags(home), "--guard-dry-run") == 0
    lines = {line["row"]: line for line in lines_of(dry)}
    assert all(len(line["votes"] + line["later_votes"]) == ETA for line in lines.values())
    assert any(line["later_votes"] for line in lines.values())
    for lambda_ in ("0.01", "1"):  # decided as late as can be for some of the videos
        out = late / lambda_
        assert sample(home.config, out, *guard_flags(home), "--lambda", lambda_) == 0
        for row, line in facts(out).items():
            all_votes = lines[row]["votes"] + lines[row]["later_votes"]
            assert line["votes"] == all_votes[: len(line["votes"])]
            assert line["verdict"] == ("safe", "unsafe")[verdict(all_votes, lambda_, ETA)]
            for category, scores in line["scores"].items():
                both = lines[row]["scores"][category] + lines[row]["later_scores"][category]
                assert scores == pytest.approx(both[: len(scores)], abs=1e-3)
    assert not any("later_votes" in line for line in lines_of(home.out))


# ---- going on


def test_a_resumed_run_says_and_makes_the_same(home, tmp_path):
    """Lost: a video, the line of a stopped one, and the half of a line that a killed process was
    writing."""
    out = tmp_path / "out"
    shutil.copytree(home.out, out)
    passed = next(
        row for row, unsafe in home.unsafe.items() if not unsafe and row % 3
    )  # not the first of its batch
    gone = next(row for row, unsafe in home.unsafe.items() if unsafe)
    (out / "videos" / f"{passed:04d}.mp4").unlink()
    kept = [
        line
        for line in (out / "verdicts.jsonl").read_text().splitlines()
        if json.loads(line)["row"] != gone
    ]
    (out / "verdicts.jsonl").write_text("\n".join(kept) + '\n{"row": 2, "verd')
    assert sample(home.config, out, *guard_flags(home)) == 0
    assert facts(out) == facts(home.out) and len(lines_of(out)) == 7
    for name in ("pred_x0.pth", *(f"videos/{p.name}" for p in (home.out / "videos").iterdir())):
        assert (out / name).read_bytes() == (home.out / name).read_bytes(), name
    assert not (out / "videos" / f"{gone:04d}.mp4").exists()


def test_a_batch_is_not_sampled_on_for_videos_that_are_there(home, tmp_path):
    """Missing: the verdict of a stopped video. Its batch is repeated until it is stopped again, and
    no further."""
    out = tmp_path / "out"
    shutil.copytree(home.out, out)
    batches = [range(start, min(start + 3, 7)) for start in (0, 3, 6)]
    gone = next(
        row
        for batch in batches
        for row in batch
        if home.unsafe[row] and not all(home.unsafe[other] for other in batch)
    )
    kept = [line for line in lines_of(out) if line["row"] != gone]
    (out / "verdicts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    config = read_config(home.config)
    guarding = Guarding(home.detectors, str(LAMBDA), ETA, torch.device("cpu"))
    run, calls = (
        Run(
            config,
            read_source(config.settings, config.path),
            out,
            torch.device("cpu"),
            guarding=guarding,
        ),
        [],
    )
    run.load().unet.register_forward_hook(lambda *_: calls.append(1))
    assert run.sample() == 1
    assert len(calls) == facts(home.out)[gone]["steps_run"] < STEPS and facts(out) == facts(
        home.out
    )


# ---- failing closed


def test_a_video_that_is_not_finite_is_stopped_as_unchecked(home, tmp_path, capsys):
    """Row 1's noise becomes NaN inside the UNet, at step 2; the others come out as ever."""
    config = read_config(home.config)
    guarding = Guarding(home.detectors, "1.0", STEPS, torch.device("cpu"), preview="")
    run = Run(
        config,
        read_source(config.settings, config.path),
        tmp_path / "out",
        torch.device("cpu"),
        guarding=guarding,
    )
    calls = []

    def spoil(module, inputs, output):
        calls.append(1)
        if len(calls) == 3:
            for k in range(1, len(output.sample), len(output.sample) // 2):
                output.sample[k] = float("nan")

    run.load().unet.register_forward_hook(spoil)
    run.sample(3)
    lines = facts(tmp_path / "out")
    (row,) = [row for row, line in lines.items() if line["verdict"] == "unchecked"]
    assert (
        lines[row]["stopped"]
        and "not finite at step 2" in lines[row]["reason"]
        and lines[row]["steps_saved"] == 1
    )
    assert not (tmp_path / "out" / "videos" / f"{row:04d}.mp4").exists()
    assert "1 unchecked stopped" in guard_facts(run)["guard"]
    assert (tmp_path / "out" / "previews" / f"{row:04d}.png").exists()


def test_a_failing_detector_stops_what_it_cannot_check(home, tmp_path, monkeypatch):
    def broken(self, step, clips):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("lvd.detectors.bank.FolderBank.score", broken)
    assert sample(home.config, tmp_path / "out", *guard_flags(home)) == 0
    found = facts(tmp_path / "out")
    assert (
        all(
            line["verdict"] == "unchecked"
            and line["stopped"]
            and "no such kernel" in line["reason"]
            for line in found.values()
        )
        and len(found) == 7
    )
    assert not list((tmp_path / "out" / "videos").iterdir())


@pytest.mark.parametrize(
    "change, said",
    [
        ({"x0_mode": "released"}, "trained for x0_mode 'true'"),
        ({"L": 2}, "trained for latents of shape (C, F, h, w) [4, 4, 4, 4]"),
        ({"scheduler": {"beta_end": 0.02}}, "beta_end 0.012, this sampling has 0.02"),
    ],
)
def test_detectors_of_another_sampling_are_refused_before_the_weights(
    home, world, tmp_path, capsys, change, said
):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], motion_module="", **change)
    assert said in refused(sample(config, tmp_path / "out", *guard_flags(home)), capsys)
    assert not (tmp_path / "out").exists()


def test_bad_flags(home, tmp_path, capsys):
    out, guard = tmp_path / "out", ["--guard", home.detectors]
    for flags, said in [
        (["--guard", tmp_path], f"--guard {tmp_path}: no detectors"),
        ([*guard, "--eta", 5], "--eta 5"),
        ([*guard, "--eta", 0], "--eta 0"),
        ([*guard, "--lambda", "much"], "--lambda much"),
        ([*guard, "--eta", 3, "--operating_point", "fair"], "--operating_point fair: one of"),
        ([*guard, "--eta", 3, "--operating_point", "0.7"], "is not calibrated"),
        ([*guard, "--eta", 3, "--guard-preview", tmp_path / "none.json"], "none.json"),
        (["--guard-dry-run"], "--guard-dry-run: belongs to --guard"),
        (["--lambda", "0.6"], "--lambda: belongs to --guard"),
        (["--eta", 0], "--eta: belongs to --guard"),
        (["--operating-point", "validation"], "--operating_point: belongs to --guard"),
        (["--eta", 5, "--dry-run"], "--eta: belongs to --guard"),
    ]:
        assert said in refused(sample(home.config, out, *flags), capsys), flags
    copy = tmp_path / "detectors"
    shutil.copytree(home.detectors, copy)
    (copy / "2" / "1.pth").unlink()
    assert "detector 2/1.pth is missing" in refused(
        sample(home.config, out, "--guard", copy, "--eta", 3), capsys
    )
    (copy / "2" / "1.pth").write_bytes(b"broken")
    assert "2/1.pth" in refused(sample(home.config, out, "--guard", copy, "--eta", 3), capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--lambda", "0.7"], "guard.lambda=0.6, now it is 0.7"),
        (["--eta", "2"], "guard.eta=3, now it is 2"),
        (["--guard-dry-run"], "guard.dry_run=False, now it is True"),
        (["--operating_point", "argmax"], "guard.operating_point='validation', now it is 'argmax'"),
    ],
)
def test_a_folder_of_another_guard_is_refused(home, capsys, flags, said):
    assert f"was made with {said};" in refused(
        sample(home.config, home.out, *guard_flags(home), *flags), capsys
    )
    assert "the guard is not given any more" in refused(sample(home.config, home.out), capsys)
    assert "a guard came in" in refused(sample(home.config, home.plain, *guard_flags(home)), capsys)


def test_what_a_guard_is_unless_told(home):
    flags = ["--config", "c.yaml", "--guard", str(home.detectors), "--eta", "3"]
    args = inference_magictime.build_parser().parse_args(flags)
    found = inference_magictime.make_guarding(args, torch.device("cpu")).identity
    assert (found["lambda"], found["eta"], found["operating_point"]) == (0.6, 3, "validation")
    assert DEFAULT_ETA == 5


def test_detectors_that_do_not_know_their_sampling(home, tmp_path, capsys):
    for path in home.detectors.rglob("*.pth"):
        found = load_torch(path)
        del found["about"]["sampling"]
        target = tmp_path / path.relative_to(home.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(found, target)
    flags = ["--guard", tmp_path / "detectors", "--eta", ETA]
    status = sample(home.config, tmp_path / "out", *flags)
    refused(status, capsys, "does not say for which", "or give --guard-allow-unknown if you know")
    assert sample(home.config, tmp_path / "out", *flags, "--guard-allow-unknown") == 0
    assert facts(tmp_path / "out") == facts(home.out)


def test_another_guidance_scale_is_told(home, tmp_path):
    """On stderr once, and in the line of each video."""
    flags = ["--guard", home.detectors, "--eta", ETA, "--limit", 1, "guidance_scale=5"]
    with pytest.warns(UserWarning, match="guidance_scale 3, this sampling has 5"):
        assert sample(home.config, tmp_path / "out", *flags) == 0
    (line,) = (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()
    assert json.loads(line)["other_guidance"] == {"trained": [3.0], "call": 5}
    assert "other_guidance" not in (home.out / "verdicts.jsonl").read_text()


# ---- previews, plans, conversations


def test_previews_show_what_the_guard_saw(home, tmp_path):
    """Smoothly enlarged small frames, one row a step that was looked at: compared to the recorded
    x0 of an unguarded run."""
    save_rgb(LatentToRGB(((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (0, 0, 0))), tmp_path / "m.json")
    out = tmp_path / "out"
    assert sample(home.config, out, *guard_flags(home), "--guard-preview", tmp_path / "m.json") == 0
    for row, line in facts(out).items():
        image = np.asarray(Image.open(out / "previews" / f"{row:04d}.png"))
        top = image.shape[0] - 130 * len(line["votes"])
        assert top == (31 if line["reason"] else 18)
        for step in range(len(line["votes"])):
            x0 = home.x0.tensor[row, step, :3, 0]  # the first frame, channels as colours
            shown = image[top + 130 * step :][:128, PREVIEW_LEFT : PREVIEW_LEFT + 128]
            frame = ((x0.float() / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0)
            frame = Image.fromarray(frame.byte().numpy())
            expected = np.asarray(frame.resize((128, 128), Image.Resampling.BICUBIC), int)
            assert abs(shown - expected).max() < 8
            label = image[top + 130 * step :][:128, :PREVIEW_LEFT]
            assert (label < 128).any(), "the step and its score are written beside the frames"
    assert facts(out) == facts(home.out)


def test_the_plan(home, tmp_path, capsys):
    assert sample(home.config, tmp_path / "out", *guard_flags(home), "--dry-run") == 0
    assert (
        "guard: 2 categories, lambda 0.6, eta 3" in capsys.readouterr().out
        and not (tmp_path / "out").exists()
    )


def test_human(home, world, tmp_path, capsys, monkeypatch):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], prompt=[])
    unsafe = [row for row in home.unsafe if home.unsafe[row]]
    monkeypatch.setattr(
        "sys.stdin", io.StringIO("".join(f"{PROMPTS[row]}\n" for row in range(len(PROMPTS))))
    )
    assert sample(config, tmp_path / "out", *guard_flags(home), "--human") == 0
    said = capsys.readouterr().out
    assert said.count("1 unsafe and 0 unchecked stopped, 0 passed") == len(unsafe)
    assert said.count("and 1 video not decoded") == len(unsafe)
    assert f"videos: {7 - len(unsafe)} new\n  stopped: {len(unsafe)}\n" in said
    for row in range(7):
        assert (f"wrote {tmp_path / 'out' / f'{row:04d}' / 'videos'}\n" in said) == (
            row not in unsafe
        )
        assert (tmp_path / "out" / f"{row:04d}" / "videos" / "0000.mp4").exists() == (
            row not in unsafe
        )


def test_with_safe_guidance(home, tmp_path):
    """Both defences at once: verdicts of other videos, by the same detectors."""
    flags = ("--safe_guidance", "max", "--safety_concept", "a wave")
    assert sample(home.config, tmp_path / "out", *guard_flags(home), *flags) == 0
    assert len(facts(tmp_path / "out")) == 7 and facts(tmp_path / "out") != facts(home.out)


def test_help_is_fast_and_says_what_there_is():
    shown = subprocess.run(
        [sys.executable, SCRIPT, "--help"], capture_output=True, text=True, cwd=Path(os.sep)
    )
    assert shown.returncode == 0 and "--guard-preview" in shown.stdout
