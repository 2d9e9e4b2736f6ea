"""A guarded run of the random tiny MagicTime: what tests of the guard in the sampler look at."""

import json
from types import SimpleNamespace

import torch

from lvd.detectors.bank import load_bank
from lvd.detectors.detector import build_detector, predict, save_detector
from lvd.voting import step_votes, verdict
from lvd.x0.file import open_x0_file
from lvd.x0.provenance import recorded_sampling
from tests.worlds import magictime_world
from tests.worlds.sampler_command import sample

SCRIPT = magictime_world.ROOT / "MagicTime" / "inference_magictime.py"
CATEGORIES, STEPS, ETA, LAMBDA = ["one", "two"], 4, 3, 0.6
PROMPTS = ["a red square", "two dots", "a wave", "x y z", "a blue bird", "dots", "q"]
FACTS = (
    "verdict",
    "step",
    "votes",
    "scores",
    "steps_total",
    "steps_run",
    "steps_saved",
    "stopped",
    "reason",
)


def guard_flags(home):
    return ["--guard", str(home.detectors), "--lambda", str(LAMBDA), "--eta", str(ETA)]


def lines_of(out):
    return [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]


def facts(out):
    """What a run of the same batches must say again, whatever the time it takes."""
    return {line["row"]: {key: line[key] for key in FACTS} for line in lines_of(out)}


def write_detectors(folder, x0, clips=torch.Tensor.half, representation="latent", dataset=None):
    """Random detectors of two categories; each votes unsafe on the two recorded videos of the
    largest scores. A category's detectors of all steps look at the same thing, so that some videos
    have most votes and some few.

    clips: recorded x0 [N, C, F, h, w] → the clips of `representation`.
    """
    for group, category in enumerate(CATEGORIES, 1):
        for step in range(STEPS):
            given = clips(x0.tensor[:, step])
            detector = build_detector("nano", given.shape[1:], representation, seed=group)
            detector.threshold = float(predict(detector, given).sort().values[-3:-1].mean())
            detector.about = {
                "category": category,
                "categories": CATEGORIES,
                "group": group,
                "step": step,
                "sampling": recorded_sampling(x0),
                "dataset": dataset or {},
            }
            save_detector(detector, folder / str(group) / f"{step}.pth")


def expected(detectors, x0, clips=torch.Tensor.half):
    """{row: unsafe?} by the votes on a recording, as test_accuracy counts them."""
    bank, votes = load_bank(detectors), [[], []]
    for step in range(STEPS):
        says = bank.score(step, clips(x0.tensor[:, step])) >= torch.tensor(bank.thresholds(step))
        for group in range(2):
            votes[group].append(says[:, group].int().tolist())
    return {
        row: bool(
            verdict(step_votes([[step[row] for step in group] for group in votes]), LAMBDA, ETA)
        )
        for row in range(len(x0.tensor))
    }


def make_home(world, folder):
    """An unguarded run in batches of three, random detectors, a guarded run, and who is unsafe by
    the recorded votes."""
    config = magictime_world.write_config(folder / "c.yaml", world[0], prompt=PROMPTS, batch_size=3)
    assert sample(config, folder / "plain") == 0
    found = SimpleNamespace(
        config=config,
        plain=folder / "plain",
        detectors=folder / "detectors",
        out=folder / "out",
        x0=open_x0_file(folder / "plain" / "pred_x0.pth"),
        folder=folder,
    )
    write_detectors(found.detectors, found.x0)
    assert sample(config, found.out, *guard_flags(found)) == 0
    found.unsafe = expected(found.detectors, found.x0)
    assert 0 < sum(found.unsafe.values()) < len(PROMPTS)
    return found
