"""serve.py as a command: what it refuses, how it ends, what is left when it is killed."""

import re
import shutil
import signal
import socket

import pytest

import serve
from lvd.utils.config import ROOT
from lvd.utils.files import load_yaml
from lvd_server.log import AuditLog
from tests.worlds import forked
from tests.worlds.refusals import refused
from tests.worlds.served import Asked, lines_of, until


def flags(home, folder, *more):
    known = ["--config", home.config, "--guard", home.guard, "--save-path", folder]
    return [*map(str, known), "--gpu_num", "-1", "--port", "0", *more]


REFUSED = {
    "no config": (["--config", "missing.yaml"], ["missing.yaml"]),
    "no guard": (["--guard", "missing"], ["--guard ", "missing: no detectors"]),
    "no guard.yaml": (["--guard", "missing.yaml"], ["missing.yaml"]),
    "no host": (["--host", "no.such.host.invalid"], ["--host"]),
    "not our host": (["--host", "192.0.2.1"], ["--host 192.0.2.1"]),
    "no port": (["--port", "70000"], ["--port 70000"]),
    "no worker": (["--workers", "0"], ["--workers 0"]),
    "no queue": (["--queue", "-1"], ["--queue -1"]),
    "no time": (["--timeout", "nan"], ["--timeout nan"]),
    "a layout alone": (["--layout", "BCFHW"], ["--layout"]),
    "two models": (["--pipeline", "os:getcwd"], ["--config"]),
    "compiled threads": (["--workers", "2", "compile=true"], ["compile", "--workers 2"]),
    "an unknown key": (["surprise=1"], ["surprise"]),
}


@pytest.mark.parametrize("more, words", REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_line(home, tmp_path, capsys, more, words):
    refused(serve.main(flags(home, tmp_path / "out", *more)), capsys, *words)
    assert not (tmp_path / "out").exists()


def test_a_taken_port_is_one_line(home, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(
            serve.main(flags(home, tmp_path, "--port", port)), capsys, f"--port {port}", "in use"
        )


def test_another_config_needs_a_guard(home, capsys):
    refused(serve.main(["--config", str(home.config), "--dry-run"]), capsys, "--guard is needed")


def test_broken_guards_are_one_line(home, tmp_path, capsys):
    shutil.copytree(home.folder / "detectors", tmp_path / "detectors")
    (tmp_path / "detectors" / "1" / "2.pth").write_bytes(b"PK\3\4")
    broken = tmp_path / "guard.yaml"
    broken.write_text(home.guard.read_text())
    refused(serve.main(flags(home, tmp_path / "out", "--guard", str(broken))), capsys, "2.pth")
    broken.write_text("detectors: [\n")
    refused(serve.main(flags(home, tmp_path / "out", "--guard", str(broken))), capsys, "guard.yaml")


def test_two_servers_have_two_logs(home, tmp_path, capsys):
    log = AuditLog(tmp_path / "verdicts.jsonl")
    refused(serve.main(flags(home, tmp_path)), capsys, "verdicts.jsonl", "another server")
    log.close()


def test_without_flags_it_serves_tiny(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert serve.main(["--dry-run", "--port", "0"]) == 0
    told = capsys.readouterr().out
    assert "Tiny.yaml" in told and "ckpts/Tiny/guard" in told
    assert list(tmp_path.iterdir()) == []


class Served:
    """serve.py as a process of its own, ready."""

    def __init__(self, home, folder):
        self.process = forked.start(ROOT / "serve.py", *flags(home, folder))
        until(lambda: self.process.poll() is not None or "ready\n" in self.process.out.read_text())
        told = self.process.out.read_text()
        assert "ready\n" in told, self.process.err.read_text()
        self.port = int(re.search(r"listening on http://127.0.0.1:(\d+)", told)[1])

    def end(self, number):
        """Send a signal; returns (exit status, stdout, stderr)."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.mark.slow
def test_a_killed_server_has_logged_what_it_answered(home, tmp_path):
    log = tmp_path / "verdicts.jsonl"
    served = Served(home, tmp_path)
    assert load_yaml(tmp_path / "serve.yaml")["guard"] == str(home.guard)
    asked = [Asked(served.port, prompt, seed=seed) for prompt, seed in home.asked]
    until(lambda: log.exists() and log.read_bytes().count(b"\n") >= 2)
    status, _, _ = served.end(signal.SIGKILL)
    assert status == -signal.SIGKILL
    answers = [answer for answer in (each.answer() for each in asked) if answer]
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"id": "half')  # as a kill within a write would leave it

    again = Served(home, tmp_path)
    assert log.read_bytes() == whole[: whole.rfind(b"\n") + 1]
    asked = [Asked(again.port, prompt, seed=seed) for prompt, seed in home.asked]
    until(lambda: log.read_bytes().count(b"\n") > whole.count(b"\n"))
    status, out, err = again.end(signal.SIGTERM)
    assert (status, err) == (0, "") and out.endswith("ended\n")
    answers += [answer for answer in (each.answer() for each in asked) if answer]

    lines = {line["id"]: line for line in lines_of(log)}
    assert len(answers) > 2
    for answer in answers:
        line = lines[answer.headers["X-LVD-Id"]]
        assert line["status"] == answer.status
    unsafe = {seed for row, (_, seed) in enumerate(home.asked) if home.unsafe[row]}
    for line in lines.values():
        assert line["status"] in (200, 400, 503) and (line["status"], line["seed"]) not in {
            (200, seed) for seed in unsafe
        }
