"""MagicTime behind the server, with eight clients of which some leave: nothing unsafe gets out,
nothing is lost from the log."""

import gc
import threading
import time

import numpy as np
import psutil
import pytest
import torch

from lvd.detectors.bank import load_bank
from lvd.utils.video import read_mp4
from lvd.voting import step_votes, verdict
from lvd_server.magictime import MagicTimeBackend, read_sampling
from tests.worlds.guard_world import LAMBDA
from tests.worlds.served import lines_of, need_refusal, send, server_of, until, video

CLIENTS, MIB = 8, 2**20
GROWTH = 40  # MiB that a process may take more, whatever the number of requests


@pytest.fixture
def served(home, tmp_path):
    config = read_sampling(home.config, {})
    backend = MagicTimeBackend(config, str(home.guard), torch.device("cpu"), workers=2)
    with server_of(backend, tmp_path, workers=2, places=CLIENTS) as found:
        yield found


def frames_of(answer, folder):
    path = folder / f"{threading.get_ident()}.mp4"
    path.write_bytes(answer.body)
    return read_mp4(path)


class Client(threading.Thread):
    """Asks `count` times, from its own row on; leaves every fourth request without an answer.

    Attributes:
        answers: [(row, answer)].
        left: [row].
    """

    def __init__(self, served, home, number, count):
        super().__init__(daemon=True)
        self.served, self.home, self.number, self.count = served, home, number, count
        self.answers, self.left = [], []

    def run(self):
        for k in range(self.number, self.number + self.count):
            row = k % len(self.home.asked)
            prompt, seed = self.home.asked[row]
            if k % 4 == 3:
                with send(self.served.port, prompt, seed=seed):
                    time.sleep(k % 3 * 0.03)  # it leaves while it waits, or while it is sampled
                self.left.append(row)
            else:
                self.answers.append((row, video(self.served.port, prompt, seed=seed)))


def put_under_load(served, home, requests):
    clients = [Client(served, home, number, requests // CLIENTS) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(300)
        assert not client.is_alive()
    return clients


@pytest.mark.slow
def test_nothing_unsafe_gets_out_and_nothing_is_lost(served, home, tmp_path, requests=200):
    put_under_load(served, home, 2 * CLIENTS)  # warms up
    until(lambda: len(lines_of(served.log)) == 2 * CLIENTS)
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    clients = put_under_load(served, home, requests)
    until(lambda: len(lines_of(served.log)) == 2 * CLIENTS + requests, "the last line")
    gc.collect()
    assert process.memory_info().rss - before < GROWTH * MIB
    lines = {line["id"]: line for line in lines_of(served.log)}
    assert len(lines) == 2 * CLIENTS + requests  # each request has a line of its own
    for client in clients:
        for row, answer in client.answers:
            line = lines[answer.headers["X-LVD-Id"]]
            assert line["status"] == answer.status == (400 if home.unsafe[row] else 200)
            assert line["seed"] == home.asked[row][1]
            if not home.unsafe[row]:
                assert np.array_equal(frames_of(answer, tmp_path), home.frames[row])
    unsafe_seeds = {seed for row, (_, seed) in enumerate(home.asked) if home.unsafe[row]}
    for line in lines.values():
        assert line["status"] in (200, 400, 499)
        assert not (line["status"] == 200 and line["seed"] in unsafe_seeds)
    answered = sum(len(client.answers) for client in clients)
    assert answered + sum(len(client.left) for client in clients) == requests


def test_a_safe_video_is_the_one_that_the_sampler_writes(served, home, tmp_path):
    row = next(row for row, unsafe in home.unsafe.items() if not unsafe)
    prompt, seed = home.asked[row]
    answer = video(served.port, prompt, seed=seed)
    assert answer.headers["X-LVD-Verdict"] == "safe"
    assert np.array_equal(frames_of(answer, tmp_path), home.frames[row])


@pytest.mark.parametrize(
    "fields, word",
    [
        (dict(num_inference_steps=10), "noise level"),  # with fewer, each is near a trained one
        (dict(height=40), "height=40"),
        (dict(num_frames=5), "latents"),
        (dict(prompt="a " * 100), "longer than the model reads"),
    ],
)
def test_samplings_that_the_guard_does_not_know_are_refused(served, home, fields, word):
    answer = video(served.port, **{"prompt": home.asked[0][0], **fields})
    need_refusal(answer, word)
    assert str(home.folder) not in answer.told["reason"]
    assert lines_of(served.log)[-1]["steps_run"] == 0


def test_another_number_of_steps_is_judged_by_the_steps_of_its_levels(served, home):
    """Of 3 steps, the trained steps 0 and 2 are as noisy as those that the rule looks at."""
    bank, found = load_bank(home.folder / "detectors"), set()
    for prompt, seed in home.asked:
        seen = x0_of(served.service.backend, prompt, seed, steps=3)
        says = [
            bank.score(trained, x0.half())[0] >= torch.tensor(bank.thresholds(trained))
            for trained, x0 in zip((0, 2), seen, strict=False)
        ]
        by_group = torch.stack(says, 1).int().tolist()
        unsafe = bool(verdict(step_votes(by_group), LAMBDA, 2))
        answer = video(served.port, prompt, seed=seed, num_inference_steps=3)
        assert answer.headers["X-LVD-Verdict"] == ("unsafe" if unsafe else "safe")
        assert answer.status == (400 if unsafe else 200)
        found.add(unsafe)
    assert found == {False, True}


def x0_of(backend, prompt, seed, steps):
    """Return [step] of x0 [1, C, F, h, w] of a video that a backend samples without a guard."""
    sampler, seen = backend._sampler, []
    config = sampler.config_with("test", steps=steps)
    sampler.sample(config, prompt, sampler.negative, seed, lambda step, x0: seen.append(x0))
    return seen
