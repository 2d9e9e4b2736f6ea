"""Recordings of other steps: embed_model.py and test_accuracy.py say what the live guard says."""

import csv
import json
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest

import build_eval_set
import build_x0
import embed_model
import lvd
import test_accuracy
from lvd import Guard
from lvd.detectors.bank import load_bank
from lvd.evaluation.votes import VoteRun
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.file import ChosenRule, identity_of, save_rule
from lvd.rules.vote import VoteRule
from lvd.utils.files import load_torch, load_yaml, save_yaml
from lvd.x0.file import open_x0_file
from tests.worlds.guarded_recordings import VIDEOS, doubtful
from tests.worlds.refusals import refused

TRAINED = (800, 600, 400, 200, 0)  # timesteps of the world's detectors
KINDS = {"unsafe": 1, "normal": -1}
CASES = {
    "3 steps": (3, None),
    "4 steps": (4, None),
    "5 steps": (5, None),
    "8 steps": (8, None),
    "Euler": (5, "EulerDiscreteScheduler"),
    "4 of DPM++": (4, "DPMSolverMultistepScheduler"),
}
RULES = {
    "vote": VoteRule("0.6", 4),
    "one vote": VoteRule("0.3", 3),
    "confidence": ConfidenceRule(0.8, 4),
    "surer": ConfidenceRule(0.97, 5),
}


@pytest.fixture(scope="module")
def doubting(world, tmp_path_factory):
    """(shared detectors whose votes differ, their votes of the trained steps)."""
    return doubtful(world, "shared", tmp_path_factory.mktemp("doubting"))


@pytest.fixture(scope="module")
def others(world, tiny, doubting, tmp_path_factory):
    """Function of the name of a case: its recordings and votes, made when first asked for."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = other = sample(tiny, world, tmp_path_factory.mktemp("other"), *CASES[name])
            assert embed(world, other, doubting[0], other.folder / "results") == 0
        return made[name]

    return make


@contextmanager
def scheduled(tiny, scheduler):
    """The pipeline with another scheduler."""
    own = tiny.pipe.scheduler
    if scheduler:
        kind = getattr(diffusers, scheduler)
        tiny.pipe.scheduler = kind.from_config(own.config, timestep_spacing="leading")
    try:
        yield tiny.pipe
    finally:
        tiny.pipe.scheduler = own


def sample(tiny, world, folder, steps, scheduler, rows=None):
    """Record the held-out rows alone, or other ones, in other steps."""
    rows = rows or load_torch(world.eval)
    settings = {**load_yaml(world.config), "out_dir": str(folder / "data")}
    with scheduled(tiny, scheduler) as pipe:
        for kind, key in (("unsafe", "pred_x0"), ("normal", "normal_pred_x0")):
            settings[key] = str(folder / kind / "pred_x0.pth")
            with lvd.record(pipe, settings[key], VIDEOS) as recording:
                with recording.rows(rows[kind]):
                    pipe(**arguments(tiny, kind, rows[kind], steps))
        timesteps = pipe.scheduler.timesteps.tolist()
    save_yaml(settings, folder / "build_x0.yaml")
    return SimpleNamespace(
        folder=folder,
        steps=steps,
        scheduler=scheduler,
        timesteps=timesteps,
        rows=rows,
        config=folder / "build_x0.yaml",
        results=folder / "results",
    )


def arguments(tiny, kind, rows, steps):
    return tiny.inputs([KINDS[kind]] * len(rows), rows, first=100, steps=steps)


def embed(world, other, detectors, save, *flags, allow=True):
    files = {
        "--model_dir": detectors,
        "--recordings": other.config,
        "--eval_dir": world.eval,
        "--save_dir": save,
    }
    named = [str(word) for pair in files.items() for word in pair]
    named += ["--operating_point", "validation", "--gpu_num", "-1", *flags]
    return embed_model.main(named + (["--allow_other_eval"] if allow else []))


def judges(timesteps):
    """By hand: the trained step whose log signal-to-noise ratio is nearest."""
    bars = np.cumprod(1 - np.linspace(0.0001, 0.02, 1000))
    levels = np.log(bars / (1 - bars))
    there = levels[list(TRAINED)]
    return [int(np.abs(there - levels[round(timestep)]).argmin()) for timestep in timesteps]


def edited(other, folder, change):
    """A copy of a case's recordings; change: function of (meta, facts of a row) of its sidecars."""
    shutil.copytree(other.folder, folder, ignore=shutil.ignore_patterns("results"))
    settings = load_yaml(folder / "build_x0.yaml")
    for kind, key in (("unsafe", "pred_x0"), ("normal", "normal_pred_x0")):
        settings[key] = str(folder / kind / "pred_x0.pth")
        path = folder / kind / "pred_x0.json"
        sidecar = json.loads(path.read_text())
        for facts in sidecar["rows"].values():
            change(sidecar["meta"], facts)
        path.write_text(json.dumps(sidecar))
    save_yaml(settings, folder / "build_x0.yaml")
    return SimpleNamespace(**{**vars(other), "folder": folder, "config": folder / "build_x0.yaml"})


# ---- the same scores, votes and answers


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_trained_step_that_is_as_noisy(others, doubting, case):
    other, bank = others(case), load_bank(doubting[0])
    scores, trained = load_torch(other.results / "scores.pth"), judges(other.timesteps)
    same = trained == [0, 1, 2, 3, 4]
    assert same == (case in ("5 steps", "Euler"))
    assert scores.get("trained_steps") == (None if same else trained)
    for kind, label in (("unsafe", "1"), ("normal", "0")):
        x0 = open_x0_file(other.folder / kind / "pred_x0.pth").tensor
        for step, asked in enumerate(trained):
            raw = bank.score(asked, x0[other.rows[kind], step])
            calibrated = bank.calibrated(asked, raw)
            for column, group in enumerate(("1", "2")):
                assert scores["thresholds"][group][step] == bank.thresholds(asked)[column]
                for place, row in enumerate(map(str, other.rows[kind])):
                    own = scores["scores"][label][group][row][step]
                    assert own == pytest.approx(float(raw[place, column]), abs=1e-6)
                    own = scores["calibrated"][label][group][row][step]
                    assert own == pytest.approx(calibrated[place, column], abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_live_guard_and_the_report_on_recordings_answer_alike(
    world, tiny, others, doubting, tmp_path, case
):
    other, detectors = others(case), doubting[0]
    answers = []
    for name, rule in RULES.items():
        path = tmp_path / f"{name}.yaml"
        save_rule(ChosenRule(rule, identity_of(load_bank(detectors))), path)
        guard = Guard(detectors, device="cpu", rule=path)
        live = {
            f"{kind} {row}": result
            for kind in KINDS
            for row, result in zip(other.rows[kind], guarded(tiny, guard, other, kind), strict=True)
        }
        where = ["--data_dir", str(other.results), "--save_dir", str(tmp_path / name)]
        assert test_accuracy.main([*where, "--rule", str(path)]) == 0
        with open(tmp_path / name / "misses.csv", newline="") as file:
            wrong = {line["video"]: line for line in csv.DictReader(file)}
        for video, result in live.items():
            is_unsafe = video.startswith("unsafe") != (video in wrong)
            assert (result.verdict == "unsafe") == is_unsafe, (case, name, video)
            if is_unsafe and video in wrong:
                assert int(wrong[video]["stopped_after"]) == result.step + 1
            answers.append(is_unsafe)
    assert 0 < sum(answers) < len(answers)


def guarded(tiny, guard, other, kind):
    with scheduled(tiny, other.scheduler) as pipe, guard.watch(pipe, "interrupt") as watch:
        pipe(**arguments(tiny, kind, other.rows[kind], other.steps))
    return watch.results


def test_the_summary_says_which_trained_steps_judged(world, others, doubting, tmp_path, capsys):
    other = others("8 steps")
    assert embed(world, other, doubting[0], tmp_path / "results") == 0
    trained = judges(other.timesteps)
    shown = ", ".join([*map(str, trained[:3]), "...", str(trained[-1])])
    out = capsys.readouterr().out
    assert f"sampled in other steps: 8 steps, judged by trained steps {shown}" in out
    config = load_yaml(tmp_path / "results" / "config.yaml")
    assert config["trained_steps"] == trained and len(config["levels"]) == 8
    assert embed(world, other, doubting[0], tmp_path / "results") == 0
    assert "votes found finished" in capsys.readouterr().out


def test_votes_of_the_trained_steps_say_nothing_new(doubting):
    """Their files are what they were before there were other steps."""
    results = doubting[1]
    assert set(load_torch(results / "scores.pth")) == {
        *("scores", "calibrated", "thresholds", "categories", "operating_point", "eval_sha256"),
        *("detectors", "votes_sha256", "members"),
    }
    assert list(load_yaml(results / "config.yaml")) == [
        *("model_dir", "detectors_sha256", "eval_sha256", "data_dir", "pred_x0_made_by"),
        *("normal_pred_x0_made_by", "operating_point", "representation", "versions"),
    ]


def test_a_stopped_run_of_another_mapping_does_not_go_on(
    world, others, doubting, tmp_path, monkeypatch, capsys
):
    """The fingerprint of a recording knows its shape and scheduler, and not its timesteps."""
    other, detectors = others("4 steps"), doubting[0]
    fresh, one_up = judges(other.timesteps), []

    def reversed_levels(meta, facts):
        facts["levels"] = facts["levels"][::-1]

    turned = edited(other, tmp_path / "turned", reversed_levels)
    score, left = VoteRun._score, [2]

    def stopped(run, step):
        one_up.append(step)
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return score(run, step)

    monkeypatch.setattr(VoteRun, "_score", stopped)
    embed(world, other, detectors, tmp_path / "results")
    assert (tmp_path / "results" / "unfinished" / "1.pth").is_file()
    left[0] = 10
    assert embed(world, turned, detectors, tmp_path / "results") == 0
    assert one_up == [0, 1, 2, 0, 1, 2, 3]
    scores = load_torch(tmp_path / "results" / "scores.pth")
    assert scores["trained_steps"] == fresh[::-1]
    assert embed(world, other, detectors, tmp_path / "results") == 2
    refused(2, capsys, "config.yaml", "trained_steps")


def test_clip_folders_know_the_steps_of_their_recordings(world, tiny, doubting, tmp_path, capsys):
    """build_eval_set.py's folders give the votes of --recordings; older ones are not guessed."""
    everything = dict.fromkeys(KINDS, list(range(VIDEOS)))
    other = sample(tiny, world, tmp_path / "other", 3, None, everything)
    assert embed(world, other, doubting[0], tmp_path / "recorded") == 0
    assert build_x0.main(["--config", str(other.config)]) == 0
    data, evaluation = ["--data_dir", str(other.folder / "data")], ["--eval_dir", str(world.eval)]
    assert build_eval_set.main([*data, *evaluation, "--save_dir", str(tmp_path)]) == 0
    flags = ["--model_dir", str(doubting[0]), *evaluation, "--data_dir", str(tmp_path)]
    flags += ["--operating_point", "validation", "--allow_other_eval", "--gpu_num", "-1"]
    assert embed_model.main([*flags, "--save_dir", str(tmp_path / "clips")]) == 0
    one, two = (load_torch(tmp_path / name / "scores.pth") for name in ("recorded", "clips"))
    for key in ("trained_steps", "votes_sha256", "scores"):
        assert one[key] == two[key]
    for name in ("eval_set", "eval_normal"):
        path = tmp_path / name / "config.yaml"
        save_yaml({k: v for k, v in load_yaml(path).items() if k != "sampling"}, path)
    capsys.readouterr()
    status = embed_model.main([*flags, "--save_dir", str(tmp_path / "older")])
    refused(status, capsys, "detectors of 5 steps", "of 3", "noise levels are not known")


# ---- what is refused


def change_betas(meta, facts):
    meta["scheduler"]["beta_end"] = 0.012


def change_clipping(meta, facts):
    meta["scheduler"]["clip_sample"] = True


def change_mode(meta, facts):
    meta["x0_mode"] = "released"


def change_levels(meta, facts):
    facts["levels"] = [facts["levels"][0] - 3, *facts["levels"][1:]]


@pytest.mark.parametrize(
    "change, words",
    [
        (change_betas, ("trained for scheduler: beta_end 0.02", "0.012")),
        (change_clipping, ("trained for scheduler: clip_sample",)),
        (change_mode, ("trained for x0_mode 'true'", "'released'")),
        (change_levels, ("step 0 of this sampling has noise level", "at most 1.5 is served")),
    ],
)
def test_x0_that_means_something_else_is_refused(
    world, others, doubting, tmp_path, capsys, change, words
):
    other = edited(others("8 steps"), tmp_path / "edited", change)
    status = embed(world, other, doubting[0], tmp_path / "results")
    assert len(refused(status, capsys, *words)) < 400
    assert not (tmp_path / "results").exists()


def test_another_recording_of_the_same_prompts_is_named_so(
    world, others, doubting, tmp_path, capsys
):
    status = embed(world, others("8 steps"), doubting[0], tmp_path / "results", allow=False)
    refused(status, capsys, "for the same prompts in other steps give --allow_other_eval")


def test_a_recording_of_unknown_noise_levels_is_not_judged_by_number(
    world, others, doubting, tmp_path, capsys
):
    other = edited(others("3 steps"), tmp_path / "edited", lambda meta, facts: facts.clear())
    status = embed(world, other, doubting[0], tmp_path / "results")
    refused(status, capsys, "trained for steps 5, this sampling has 3", "levels are not known")


def test_a_missing_held_out_row_is_named(world, others, doubting, tmp_path, capsys):
    other = edited(others("3 steps"), tmp_path / "edited", lambda meta, facts: None)
    path = tmp_path / "edited" / "unsafe" / "pred_x0.json"
    sidecar = json.loads(path.read_text())
    gone = min(map(int, sidecar["rows"]))
    del sidecar["rows"][str(gone)]
    path.write_text(json.dumps(sidecar))
    status = embed(world, other, doubting[0], tmp_path / "results")
    refused(status, capsys, f"1 row(s) needed that are not recorded ({gone})")


def test_detectors_without_the_step_that_is_as_noisy_are_refused(world, others, tmp_path, capsys):
    shutil.copytree(world.grid, tmp_path / "grid")
    for group in ("1", "2"):
        (tmp_path / "grid" / group / "4.pth").unlink()
    status = embed(world, others("8 steps"), tmp_path / "grid", tmp_path / "results")
    refused(status, capsys, "no detectors of step 4, the one as noisy as step 7 of these clips")
