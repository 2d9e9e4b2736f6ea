"""label_videos.py upload, where there is no Label Studio: what is refused, and who gets the token.

tests/labels/test_label_studio.py has the same with a real one.
"""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import label_videos
from lvd.utils.sockets import address_of
from lvd_labels.texts import as_html, instructions
from tests.worlds.labelled_videos import make_recording
from tests.worlds.refusals import refused

TOKEN = "0123456789abcdef"


class Stub(BaseHTTPRequestHandler):
    """Answers {path: (status, body)} of `answers`, and notes what was asked."""

    answers, asked = {}, []

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.command, self.path, self.headers.get("Authorization")))
        path = self.path.partition("?")[0]
        status, body = self.answers.get((self.command, path), (404, "{}"))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body)
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_):
        pass


@pytest.fixture
def stub(monkeypatch):
    """A server on this machine; its Stub class and its address."""
    kind = type("OwnStub", (Stub,), {"answers": {}, "asked": []})
    server = HTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", TOKEN)
    kind.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield kind
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def labelling(tmp_path):
    recording = make_recording(tmp_path / "unsafe", [None] * 4)
    flags = ["--recording", str(recording), "--out", str(tmp_path / "out"), "--categories", "a"]
    assert label_videos.main(["export", *flags, "--raters", "2"]) == 0
    return tmp_path / "out"


def upload(labelling, url, *flags):
    return label_videos.main(["upload", "--labelling", str(labelling), "--url", url, *flags])


ME, LISTED = ("GET", "/api/current-user/whoami"), ("GET", "/api/projects")
MADE, STORED = ("POST", "/api/projects"), ("POST", "/api/storages/localfiles")
NO_PROJECTS = json.dumps({"results": [], "next": None})
REFUSED = json.dumps({"validation_errors": {"path": ["must be a subdirectory"]}})


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({ME: (401, "{}")}, ["LABEL_STUDIO_TOKEN", "401"]),
        ({ME: (200, "<html>")}, ["no JSON", "a Label Studio is needed"]),
        ({ME: (200, "[" * 100_000)}, ["no JSON"]),
        ({ME: (302, "http://127.0.0.1:9/")}, ["/api/current-user/whoami", "302"]),
        ({ME: (302, "file:///etc/passwd")}, ["/api/current-user/whoami", "302"]),
        ({ME: (500, "\x1b[31mred")}, ["500", r"\x1b[31mred"]),
        ({ME: (500, '{"detail": "\\u001b[31mred"}')}, ["500", r"\x1b[31mred"]),
        ({ME: (200, "{}"), LISTED: (500, "<h1>down</h1>")}, ["/api/projects", "500", "down"]),
        ({ME: (200, "{}"), LISTED: (200, "[]")}, ["/api/projects", "found []"]),
        ({ME: (200, "{}"), LISTED: (200, NO_PROJECTS), MADE: (201, "{}")}, ["/api/projects", "id"]),
    ],
)
def test_answers_that_are_refused(stub, labelling, capsys, answers, words):
    stub.answers.update(answers)
    line = refused(upload(labelling, stub.url), capsys, *words)
    assert TOKEN not in line
    assert {token for *_, token in stub.asked} == {f"Token {TOKEN}"}


def test_a_project_that_could_not_be_made_is_removed(stub, labelling, capsys):
    stub.answers.update({ME: (200, "{}"), LISTED: (200, NO_PROJECTS), MADE: (201, '{"id": 7}')})
    stub.answers[STORED] = 400, REFUSED
    refused(upload(labelling, stub.url), capsys, "storages/localfiles", "must be a subdirectory")
    assert stub.asked[-1][:2] == ("DELETE", "/api/projects/7")


def test_a_project_without_all_of_its_videos_is_refused(stub, labelling, capsys):
    there = {"results": [{"id": 3, "title": "videos 1"}], "next": None}
    stub.answers.update({ME: (200, "{}"), LISTED: (200, json.dumps(there))})
    stub.answers["GET", "/api/projects/3"] = 200, '{"task_number": 1}'
    refused(upload(labelling, stub.url), capsys, "project 3 'videos 1' has 1 of 4 videos")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1", ["--url http://127.0.0.1:1", "no answer", "start_server.sh"]),
        ("ftp://somewhere", ["--url ftp://somewhere", "http://127.0.0.1:8080"]),
        ("http://127.0.0.1:99999", ["--url", "no answer"]),
        ("nonsense", ["--url nonsense"]),
        ("http://[::", ["--url"]),
        ("http://127.0.0.1:abc", ["--url http://127.0.0.1:abc", "port"]),
        ("http://127.0.0.1:1/\x1b[31m", [r"--url http://127.0.0.1:1/\x1b[31m", "control"]),
        ("http://me:secret@127.0.0.1:1", ["--url", "without a name and password"]),
    ],
)
def test_addresses(stub, labelling, capsys, url, words):
    line = refused(upload(labelling, url), capsys, *words)
    assert "secret" not in line


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\ncut",
        b"HTTP/1.1 500 no\r\nTransfer-Encoding: chunked\r\n\r\nff\r\ncut",
    ],
)
def test_servers_of_another_kind_and_broken_connections(stub, labelling, capsys, answer):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection = listening.accept()[0]
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = address_of(listening)
        line = refused(upload(labelling, address), capsys, address)
        assert "no answer" in line or "status 500: without a reason" in line
        thread.join()


def test_flags(stub, labelling, capsys, monkeypatch, tmp_path):
    refused(upload(labelling, stub.url, "--title", "x"), capsys, "--title", "3 to")
    refused(upload(tmp_path, stub.url), capsys, "export.yaml", "no such file")
    (labelling / "tasks_2.json").unlink()
    refused(upload(labelling, stub.url), capsys, "1 list of tasks", "says 2")
    for token in ("", "  ", "two\nlines", "ü"):
        monkeypatch.setenv("LABEL_STUDIO_TOKEN", token)
        refused(upload(labelling, stub.url), capsys, "LABEL_STUDIO_TOKEN")
    assert not stub.asked


def test_instructions_as_html():
    text = instructions(["a <b>", "c"])
    shown = as_html(text)
    assert "a &lt;b&gt;" in shown and "<b>" not in shown
    assert "Nobody has to do this. You may skip any video" in shown  # one line of two
    assert "What to do<br>1. Watch" in shown
    assert " break " in text and "disturbing" in text
