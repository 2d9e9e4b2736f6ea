"""What a server answers, over real HTTP: statuses, bodies, headers, the log, health, metrics."""

import hashlib
import io
import json
import threading

import av
import pytest

from lvd_server.request import LONGEST_PROMPT, MOST_BYTES
from lvd_server.service import FAILURES
from tests.worlds.served import (
    Asked,
    FakeBackend,
    ask,
    lines_of,
    send,
    server_of,
    told,
    until,
    video,
)

SECRET = "safe words of a person"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with server_of(FakeBackend(), tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture
def held(tmp_path):
    """A server of one worker and one more place, whose denoising steps wait for the test."""
    backend = FakeBackend(held=True)
    with server_of(backend, tmp_path, workers=1, places=1) as found:
        found.gate, found.backend = backend.gate, backend
        yield found


def last_line(served):
    return lines_of(served.log)[-1]


def metric(served, name):
    """The value of a metric, 0 where it has none yet."""
    for line in ask(served.port, path="/metrics").body.decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0


def test_a_safe_video_leaves_with_its_verdict(served):
    answer = video(served.port, SECRET, seed=5)
    assert answer.status == 200
    with av.open(io.BytesIO(answer.body)) as container:
        assert len(list(container.decode(video=0))) == 4
    found = answer.headers
    assert (found["X-LVD-Verdict"], found["X-LVD-Seed"], found["X-LVD-Step"]) == ("safe", "5", "1")
    assert float(found["X-LVD-Seconds"]) > 0 and found["X-LVD-Steps-Run"] == "4"
    line = last_line(served)
    assert line["id"] == found["X-LVD-Id"]
    assert (line["status"], line["verdict"], line["seed"]) == (200, "safe", 5)
    assert line["prompt_sha256"] == hashlib.sha256(SECRET.encode()).hexdigest()
    assert SECRET not in served.log.read_text()
    assert line["guard"] == served.service.guard_id


def test_an_unsafe_video_never_leaves(served):
    before = metric(served, 'lvd_unsafe_total{category="one"}')
    answer = video(served.port, "unsafe")
    assert answer.status == 400
    expected = {"verdict": "unsafe", "categories": ["one"], "step": 1, "reason": "because"}
    assert {key: answer.told[key] for key in expected} == expected
    line = last_line(served)
    assert {key: line[key] for key in expected} == expected and line["steps_saved"] == 2
    assert metric(served, 'lvd_unsafe_total{category="one"}') == before + 1


@pytest.mark.parametrize("prompt", ("unchecked", "raise", "surprise"))
def test_what_was_not_checked_never_leaves(served, prompt):
    answer = video(served.port, prompt)
    assert (answer.status, answer.told["verdict"]) == (503, "unchecked")
    assert "/some" not in answer.told["reason"]
    assert last_line(served)["verdict"] == "unchecked"
    assert video(served.port).status == 200  # the worker lives


BAD_BODIES = {
    "no JSON": (b"{", 422, "not valid JSON"),
    "no object": (b"[1]", 422, "a JSON object"),
    "no UTF-8": (b"\xff{}", 422, "UTF-8"),
    "a key twice": (b'{"prompt": "safe", "prompt": "unsafe"}', 422, "prompt"),
    "no prompt": (b"{}", 422, "prompt"),
    "a blank prompt": (b'{"prompt": " "}', 422, "blank"),
    "half a character": (b'{"prompt": "\\ud800"}', 422, "surrogate"),
    "a control character": (b'{"prompt": "a\\u001b[31m"}', 422, "control"),
    "a long prompt": (b'{"prompt": "%s"}' % (b"a" * (LONGEST_PROMPT + 1)), 422, "2000"),
    "an unknown key": (b'{"prompt": "safe", "steps": 4}', 422, "steps"),
    "a number as text": (b'{"prompt": "safe", "seed": "4"}', 422, "seed"),
    "a bool": (b'{"prompt": "safe", "seed": true}', 422, "seed"),
    "no seed": (b'{"prompt": "safe", "seed": -1}', 422, "seed"),
    "NaN": (b'{"prompt": "safe", "guidance_scale": NaN}', 422, "guidance_scale"),
    "no steps": (b'{"prompt": "safe", "num_inference_steps": 0}', 422, "num_inference_steps"),
    "many steps": (b'{"prompt": "safe", "num_inference_steps": 10000}', 422, "200"),
    "what the pipeline lacks": (b'{"prompt": "safe", "height": 64}', 422, "height"),
    "what the guard lacks": (b'{"prompt": "safe", "num_inference_steps": 5}', 400, "shared.pth"),
    "nested deeply": (b'{"prompt": %s}' % (b"[" * 20_000), 422, "nested"),
}


@pytest.mark.parametrize("body, status, word", BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_input_is_one_clear_sentence(served, body, status, word):
    answer = told(
        ask(served.port, "POST", "/v1/videos", body, **{"Content-Type": "application/json"})
    )
    assert (answer.status, answer.told["verdict"]) == (status, None)
    reason = answer.told["reason"]
    assert word in reason and len(reason) < 300 and "\n" not in reason and "/some" not in reason
    assert last_line(served)["status"] == status


def test_another_type_and_a_large_body_are_refused(served):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        body = b'{"prompt": "safe"}'
        assert ask(served.port, "POST", "/v1/videos", body, **{"Content-Type": kind}).status == 415
    large = b" " * (MOST_BYTES + 1)
    json_type = {"Content-Type": "application/json"}
    assert ask(served.port, "POST", "/v1/videos", large, **json_type).status == 413
    chunks = iter([b" " * MOST_BYTES, b" " * 10])  # of a length that is not announced
    assert ask(served.port, "POST", "/v1/videos", chunks, **json_type).status == 413
    assert last_line(served)["status"] == 413


def test_the_pages_say_what_there_is(served):
    page = ask(served.port)
    assert page.status == 200 and b"A fake &lt;sampler&gt;" in page.body
    schema = json.loads(ask(served.port, path="/openapi.json").body)
    body = schema["paths"]["/v1/videos"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"]["prompt"]["maxLength"] == LONGEST_PROMPT
    health = ask(served.port, path="/health")
    assert (health.status, json.loads(health.body)["status"]) == (200, "green")
    assert ask(served.port, path="/v1/videos").status == 405


def test_beyond_the_queue_is_429(held):
    running = Asked(held.port)
    until(lambda: held.service.desk.running == 1)
    waiting = Asked(held.port)
    until(lambda: held.service.desk.waiting == 1)
    assert metric(held, "lvd_queue_length") == 1 and metric(held, "lvd_running") == 1
    refused = video(held.port)
    assert refused.status == 429 and int(refused.headers["Retry-After"]) > 0
    held.gate.release(8)
    assert [running.answer().status, waiting.answer().status] == [200, 200]
    assert video_after(held).status == 200
    assert [line["status"] for line in lines_of(held.log)] == [429, 200, 200, 200]


def video_after(held):
    held.gate.release(4)
    return video(held.port)


def test_a_client_that_left_costs_one_step_more(held):
    client = send(held.port)
    held.gate.release(1)
    until(lambda: held.service.desk.running == 1)
    client.close()
    (call,) = held.service.desk._running
    until(lambda: call.stop_reason)
    held.gate.release(1)
    line = until(lambda: lines_of(held.log))[0]
    assert (line["status"], line["verdict"]) == (499, "unchecked") and line["steps_run"] <= 2
    assert held.backend.made == 0


def test_a_client_that_left_the_queue_is_never_sampled(held):
    running = Asked(held.port)
    until(lambda: held.service.desk.running == 1)
    client = send(held.port, "unsafe")
    until(lambda: held.service.desk.waiting == 1)
    client.close()
    until(lambda: held.service.desk.waiting == 0)
    held.gate.release(8)
    assert running.answer().status == 200
    assert sorted(line["status"] for line in lines_of(held.log)) == [200, 499]
    assert held.backend.made == 1


def test_an_answer_does_not_wait_for_ever(tmp_path):
    backend = FakeBackend(held=True)
    with server_of(backend, tmp_path, timeout=0.3) as found:
        answer = video(found.port)
        assert answer.status == 503 and "0.3 seconds" in answer.told["reason"]
        (call,) = found.service.desk._running
        backend.gate.release(1)
        until(lambda: found.service.desk.running == 0)
        assert call.steps_run == 1 and backend.made == 0
        assert len(lines_of(found.log)) == 1


def test_no_log_no_video(tmp_path):
    backend = FakeBackend()
    with server_of(backend, tmp_path) as found:
        assert video(found.port).status == 200
        kept = found.log.rename(tmp_path / "kept")
        found.log.mkdir()
        for _ in range(2):
            answer = video(found.port)
            assert answer.status == 503 and "log" in answer.told["reason"]
            assert backend.made == 1  # it is known before anything is sampled
        health = ask(found.port, path="/health")
        assert health.status == 503 and "log" in json.loads(health.body)["reason"]
        found.log.rmdir()
        assert video(found.port).status == 200  # a new file, as after a log rotation
        assert [len(lines_of(path)) for path in (kept, found.log)] == [1, 1]
        assert ask(found.port, path="/health").status == 200


def test_a_log_that_fails_while_a_video_is_sampled_keeps_it_back(held):
    asked = Asked(held.port)
    until(lambda: held.service.desk.running == 1)
    held.log.unlink()
    held.log.mkdir()
    held.gate.release(4)
    answer = asked.answer()
    assert (answer.status, answer.told["verdict"]) == (503, "unchecked")


def test_health_is_red_while_guard_calls_fail(tmp_path):
    with server_of(FakeBackend(), tmp_path) as found:
        for _ in range(FAILURES):
            assert ask(found.port, path="/health").status == 200
            assert video(found.port, "raise").status == 503
        health = ask(found.port, path="/health")
        reason = json.loads(health.body)["reason"]
        assert health.status == 503 and f"last {FAILURES} guard calls failed" in reason
        assert metric(found, "lvd_healthy") == 0
        assert video(found.port, "unsafe").status == 400  # the guard works again
        assert ask(found.port, path="/health").status == 200


def test_nothing_is_sampled_while_detectors_do_not_load(tmp_path):
    backend = FakeBackend()
    with server_of(backend, tmp_path, load=False) as found:
        assert ask(found.port, path="/health").status == 503  # the weights are not there yet
        assert video(found.port).status == 503
        found.service.load(backend.read_guard())
        assert video(found.port).status == 200
        backend.broken = "/some/where/shared.pth: truncated"
        found.server.load_again()
        until(lambda: found.service.problem())
        health = ask(found.port, path="/health")
        assert health.status == 503 and "truncated" in json.loads(health.body)["reason"]
        answer = video(found.port)
        assert answer.status == 503 and "/some" not in answer.told["reason"]
        assert backend.made == 1
        backend.broken = None
        found.server.load_again()
        until(lambda: not found.service.problem())
        assert video(found.port).status == 200


def test_many_signals_at_once_load_the_guard_one_after_another(tmp_path):
    """And no more often than needed: the last load begins after the last signal."""
    backend, begun, gate = FakeBackend(), [], threading.Semaphore(0)
    read, at_once = backend.read_guard, []

    def slow():
        begun.append(1)
        at_once.append(len(begun) - len(ended))
        gate.acquire()
        ended.append(1)
        return read()

    ended = []
    with server_of(backend, tmp_path) as found:
        backend.read_guard = slow
        found.server.load_again()
        until(lambda: begun)
        for _ in range(50):
            found.server.load_again()
        gate.release(100)
        until(lambda: len(ended) == 2)
        found.server.load_again()
        until(lambda: len(ended) == 3)
        assert at_once == [1, 1, 1] and found.service.problem() is None


def test_the_end_answers_everybody(tmp_path):
    backend = FakeBackend(held=True)
    with server_of(backend, tmp_path, workers=1, places=2) as found:
        running = Asked(found.port)
        until(lambda: found.service.desk.running == 1)
        waiting = Asked(found.port)
        until(lambda: found.service.desk.waiting == 1)
        found.server.should_exit = True
        assert waiting.answer().status == 503
        backend.gate.release(4)
        assert running.answer().status == 200  # it has time to end
        found.thread.join(30)
        assert not found.thread.is_alive()
        assert sorted(line["status"] for line in lines_of(found.log)) == [200, 503]
