"""A server in a thread of this process, clients that speak HTTP to it, and a backend whose steps a
test lets go one by one."""

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import numpy as np

from lvd.errors import InputError
from lvd.guard.result import GuardResult
from lvd.utils.sockets import open_socket
from lvd_server.log import AuditLog
from lvd_server.server import Server
from lvd_server.service import Service

PATIENCE = 60  # seconds for what must happen


def until(happened, what="it"):
    """Wait until happened() is true."""
    end = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < end, f"{what} has not happened"
        time.sleep(0.01)
    return found


def result_of(verdict, steps=4, **changes):
    """A GuardResult of a sampling that ended with this verdict."""
    known = dict(
        verdict=verdict,
        step=1,
        votes=[1, 1],
        scores={"one": [0.9, 0.9]},
        steps_total=steps,
        steps_run=2,
        steps_saved=steps - 2,
        seconds=0.1,
        seconds_saved=0.1,
        detectors=[],
        reason="because",
        categories=["one"] if verdict == "unsafe" else [],
    )
    return GuardResult(**{**known, **changes})


class FakeGuard:
    """A guard whose sessions do nothing."""

    bank = SimpleNamespace(sha256=lambda: "0" * 64)
    rule = SimpleNamespace(describe=lambda: "a rule")
    policy = SimpleNamespace(as_dict=dict)
    operating_point = "validation"

    def session(self, steps):
        return SimpleNamespace(observe=lambda step: None)

    session_of = session


class FakeBackend:
    """Its videos have the verdict that the prompt names: safe, unsafe, unchecked; `raise` fails.

    Attributes:
        gate: threading.Semaphore, one denoising step each; None: steps are not held.
        broken: what read_guard raises, or None.
    """

    fps, steps = 8, 4

    def __init__(self, held=False):
        self.defaults = {"negative_prompt": "", "seed": None, "num_inference_steps": 4}
        self.gate = threading.Semaphore(0) if held else None
        self.broken = None
        self.made = 0

    def describe(self):
        return "A fake <sampler>"

    def read_guard(self):
        if self.broken:
            raise InputError(self.broken)
        return FakeGuard(), None

    def load(self):
        pass

    def prepare(self, guard, own):
        return guard

    def check(self, guard, request):
        if request.num_inference_steps != self.steps:
            raise InputError("/some/where/shared.pth: trained for steps 4")

    def make(self, guard, request):
        session = guard.session(self.steps)
        for step in range(self.steps):
            if self.gate:
                self.gate.acquire()
            if request.prompt == "raise":
                raise RuntimeError("a kernel failed in /some/where")
            session.observe(step)
        self.made += 1
        word = request.prompt.split()[0]
        # Frames even where there may be none: nobody but the service keeps them back.
        return np.zeros((4, 16, 16, 3), np.uint8), result_of(word)


@contextmanager
def server_of(backend, folder, workers=1, places=4, timeout=PATIENCE, load=True):
    """Serve in a thread; yields a namespace of the service, the port and the log's path."""
    log = AuditLog(folder / "verdicts.jsonl")
    service = Service(backend, log, workers, places, timeout)
    listening = open_socket("127.0.0.1", 0)
    server = Server(service, workers + places)
    if load:
        service.load(backend.read_guard())
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started, "the start")
        port = listening.getsockname()[1]
        yield SimpleNamespace(
            service=service, server=server, port=port, log=log.path, thread=thread
        )
    finally:
        service.is_closing = True
        service.stop_running()
        if getattr(backend, "gate", None):
            backend.gate.release(1000)
        server.should_exit = True
        thread.join(PATIENCE)
        service.close()


def ask(port, method="GET", path="/", body=None, **headers):
    """Send one request; returns a namespace of status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        body = answer.read()
        return SimpleNamespace(status=answer.status, headers=answer.headers, body=body)
    finally:
        connection.close()


def video(port, prompt="safe", **fields):
    """Ask for a video; the answer has `told`, its JSON, where it is no video."""
    body = json.dumps({"prompt": prompt, **fields})
    return told(ask(port, "POST", "/v1/videos", body, **{"Content-Type": "application/json"}))


def told(answer):
    """Add what an answer's JSON says; None where it is a video."""
    is_video = answer.headers["Content-Type"] == "video/mp4"
    answer.told = None if is_video else json.loads(answer.body)
    return answer


def need_refusal(answer, word):
    """Check that a request was refused before anything was sampled, for a reason with this word.

    The status and the reason alone do not tell: an unsafe video is answered with 400, too, and
    "2 of 2 steps voted unsafe".
    """
    assert answer.status == 400, answer.headers.items()
    assert answer.told["verdict"] is None and "X-LVD-Verdict" not in answer.headers, answer.told
    assert word in answer.told["reason"], answer.told


def send(port, prompt="safe", **fields):
    """Send a request for a video and return the open socket, whose answer nobody reads yet."""
    body = json.dumps({"prompt": prompt, **fields}).encode()
    head = "POST /v1/videos HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    opened = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    opened.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return opened


class Asked(threading.Thread):
    """A request for a video in a thread of its own; `answer()` waits for it, and is None where the
    server broke off."""

    def __init__(self, port, *args, **fields):
        super().__init__(daemon=True)
        self._ask = lambda: video(port, *args, **fields)
        self._answer = None
        self.start()

    def run(self):
        with suppress(OSError, http.client.HTTPException):
            self._answer = self._ask()

    def answer(self):
        self.join(PATIENCE)
        return self._answer


def lines_of(path):
    """The lines of an audit log."""
    return [json.loads(line) for line in path.read_text().splitlines()]
