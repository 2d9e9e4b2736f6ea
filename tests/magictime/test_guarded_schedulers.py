"""The guard in the sampler with another scheduler and another number of steps than the detectors
were trained on."""

import pytest
import torch

from lvd.detectors.bank import load_bank
from lvd.voting import says_unsafe, verdict
from lvd.x0.file import open_x0_file
from lvd.x0.provenance import recorded_sampling
from lvd.x0.step_map import levels_of_sampling, map_steps
from tests.worlds.guard_world import ETA, LAMBDA, PROMPTS, facts, guard_flags, make_home
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import sample

TWICE = 8  # steps, where the detectors know four


@pytest.fixture(scope="module")
def home(world, tmp_path_factory):
    return make_home(world, tmp_path_factory.mktemp("schedulers"))


def expected(home, x0):
    """{row: (votes until decided, unsafe?)} of a recording, by a plain loop over its steps."""
    bank = load_bank(home.detectors)
    trained = levels_of_sampling(recorded_sampling(home.x0))
    step_map = map_steps(trained, levels_of_sampling(recorded_sampling(x0)))
    looks = step_map.looks(ETA)
    found = {}
    for row in range(len(x0.tensor)):
        votes = []
        for step in range(looks):
            at = step_map.trained[step]
            scores = bank.score(at, x0.tensor[row : row + 1, step].half())[0].tolist()
            says = map(says_unsafe, scores, bank.thresholds(at))
            votes.append(int(any(says)))
        found[row] = votes, bool(verdict(votes, LAMBDA, looks))
    return found


@pytest.mark.parametrize("name", ["euler_a", "unipc"])
def test_verdicts_are_those_of_the_nearest_trained_steps(home, tmp_path, name):
    words = [f"scheduler={name}", f"steps={TWICE}"]
    assert sample(home.config, tmp_path / "plain", *words) == 0
    assert sample(home.config, tmp_path / "out", *guard_flags(home), *words) == 0
    x0 = open_x0_file(tmp_path / "plain/pred_x0.pth")
    lines, wanted = facts(tmp_path / "out"), expected(home, x0)
    assert len(wanted[0][0]) > ETA  # as wide a stretch of the schedule, in more steps
    guarded = open_x0_file(tmp_path / "out/pred_x0.pth").tensor
    assert sorted(lines) == list(range(len(PROMPTS)))
    for row, (votes, is_unsafe) in wanted.items():
        line = lines[row]
        assert line["votes"] == votes[: len(line["votes"])]
        assert (line["verdict"] == "unsafe") == line["stopped"] == is_unsafe
        assert line["steps_total"] == TWICE
        if not line["stopped"]:
            assert guarded[row].isfinite().all() and torch.equal(guarded[row, 0], x0.tensor[row, 0])


def test_what_x0_means_must_be_the_same(home, tmp_path, capsys):
    words = ["scheduler=euler", "noise_scheduler_kwargs.beta_end=0.02"]
    status = sample(home.config, tmp_path / "out", *guard_flags(home), *words)
    refused(status, capsys, "beta_end 0.012, this sampling has 0.02")
