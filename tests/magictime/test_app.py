"""MagicTime/app.py's page, as served: over its HTTP interface, and in a browser."""

import re
from urllib.parse import quote

import pytest

pytest.importorskip("gradio", reason="needs requirements-app.txt")

from lvd.utils.video import read_mp4
from MagicTime import app
from tests.worlds.browser import browser, quiet_page  # noqa: F401
from tests.worlds.refusals import refused
from tests.worlds.served import ask, until
from tests.worlds.served_app import JOIN, Browser, app_of
from tests.worlds.served_magictime import make_served_world

PLACES = 1
LONG = dict(steps=200, guard=False)  # a second or more


@pytest.fixture(scope="module")
def home(world, tmp_path_factory):
    return make_served_world(world, tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def served(home):
    flags = ["--config", home.config, "--guard", home.guard, "--gpu_num", "-1"]
    with app_of(*flags, "--queue", PLACES) as page:
        yield page


@pytest.fixture
def safe(home):
    """(prompt, seed, frames) of a video that the guard finds safe."""
    return next((*home.asked[row], home.frames[row]) for row, bad in home.unsafe.items() if not bad)


@pytest.fixture
def unsafe(home):
    """(prompt, seed) of a video that the guard stops."""
    return next(home.asked[row] for row, bad in home.unsafe.items() if bad)


def frames_of(clip, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(clip)
    return read_mp4(tmp_path / "clip.mp4")


def test_a_safe_video_arrives_with_its_x0(served, safe, tmp_path):
    prompt, seed, frames = safe
    heard = Browser(served, prompt=prompt, seed=seed).listen()
    assert heard.banner.startswith("Safe. The guard looked at") and f"Seed {seed}." in heard.banner
    assert heard.pictures > 2 and (frames_of(heard.clip, tmp_path) == frames).all()


def test_no_frame_of_a_stopped_video_is_ever_sent_or_kept(served, unsafe):
    prompt, seed = unsafe
    heard = Browser(served, prompt=prompt, seed=seed).listen()
    assert re.match(r"Stopped after [1-4] of 4 steps: (one|two)", heard.banner), heard.banner
    assert "voted unsafe" in heard.banner and "No frame was decoded or shown." in heard.banner
    assert heard.pictures == 0 and heard.clip is None and "base64" not in heard.heard
    assert served.jobs[-1]._x0 == [] and not _files(served)


def test_the_same_video_without_the_guard_says_that_nobody_checked_it(served, unsafe):
    prompt, seed = unsafe
    heard = Browser(served, prompt=prompt, seed=seed, guard=False).listen()
    assert heard.banner.startswith("Not checked. The guard was off") and heard.clip


def _files(served):
    """What lies in the folder that gradio may write to."""
    from pathlib import Path

    return [path for path in Path(served.folder).rglob("*") if path.is_file()]


BAD = {
    "a blank prompt": (dict(prompt="  "), "prompt: blank, a prompt is needed"),
    "a long prompt": (dict(prompt="x" * 1001), "1000 characters at most are needed"),
    "words beyond the model": (dict(prompt="red " * 200), "prompt: longer than the model reads"),
    "a control character": (dict(prompt="a\x1b[2J"), "prompt: "),
    "half a character": (dict(prompt="a\ud800"), "prompt: "),
    "no prompt": (dict(prompt=None), "prompt: found None"),
    "a number": (dict(prompt=7), "prompt: found 7"),
    "a guard that is no switch": (dict(guard=0), "guard: found 0"),
    "an unknown rule": (dict(rule="none"), "rule: found"),
    "lambda": (dict(rule="own", lambda_=1.5), "lambda: found 1.5"),
    "lambda of NaN": (dict(rule="own", lambda_=float("nan")), "lambda: found nan"),
    "no eta": (dict(rule="own", eta=None), "eta: found None"),
    "eta beyond the detectors": (dict(rule="own", eta=99), "eta"),
    "a seed in words": (dict(seed="seven"), "seed: found"),
    "a seed below 0": (dict(seed=-1), "seed: found -1"),
    "half a seed": (dict(seed=0.5), "seed: found 0.5"),
    "a huge seed": (dict(seed=10**400), "seed: found"),
    "no step": (dict(steps=0), "steps: found 0"),
    "many steps": (dict(steps=201), "steps: found 201"),
    "steps of infinity": (dict(steps=float("inf")), "steps: found inf"),
    "guidance of NaN": (dict(guidance=float("nan")), "guidance scale: found nan"),
    "guidance of 10^30": (dict(guidance=1e30), "guidance scale: found"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_message(served, case, capfd):
    values, words = BAD[case]
    heard = Browser(served, **values).listen()
    assert heard.banner.startswith("Not sampled.") and words in heard.banner, heard.banner
    assert len(heard.banner) < 300 and heard.pictures == 0
    assert "Traceback" not in "".join(capfd.readouterr())


FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
HOSTILE = {
    "no values": [],
    "too few": ["a"],
    "too many": ["a"] * 9,
    "a file": [FILE, *["a"] * 7],
    "lists": [["a"]] * 8,
    "no list": "a",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_the_page_would_not_send_does_not_reach_gradio(served, case, capfd):
    asked = Browser(served, data=HOSTILE[case])
    assert asked.joined.status == 422 and "is needed" in asked.joined.body
    assert "Traceback" not in "".join(capfd.readouterr())


JSON = {"Content-Type": "application/json"}
CLOSED = {
    "files": ("GET", "/gradio_api/file=/etc/passwd", {}, 404),
    "uploads": ("POST", "/gradio_api/upload", {}, 404),
    "the proxy": ("GET", f"/gradio_api/proxy={quote('http://127.0.0.1:1/')}", {}, 404),
    "calls by name": ("POST", "/gradio_api/call/sample", JSON, 404),
    "another site's page": ("POST", JOIN, {**JSON, "Origin": "http://evil.example"}, 403),
    "another name of this machine": ("GET", "/", {"Host": "evil.example"}, 403),
    "an odd name": ("GET", "/", {"Host": "[::"}, 403),
    "a large body": ("POST", JOIN, {**JSON, "Content-Length": str(1 << 20)}, 413),
    "no JSON": ("POST", JOIN, JSON, 422),
}


@pytest.mark.parametrize("case", CLOSED)
def test_other_doors_are_closed(served, case):
    method, path, headers, status = CLOSED[case]
    body = "no json" if status == 422 else None
    assert ask(served.port, method, path, body, **headers).status == status


def test_a_full_line_is_a_message_and_a_browser_that_leaves_frees_its_place(served):
    first = Browser(served, **LONG)
    first.listen("Sampling: ")  # and hangs up
    left = served.jobs[-1]
    second = Browser(served, **LONG)
    until(lambda: left.look().phase == "ended", "the end of the first")
    assert left.look().ending.kind == "gone" and left.look().steps_run < LONG["steps"]
    second.listen("Sampling: ")
    until(lambda: not served.studio.desk.running, "the end of the second")
    browsers = [Browser(served, **LONG) for _ in range(PLACES + 2)]
    heard = [each for each in browsers if "Too busy." in each.listen("<b>").heard]
    assert len(heard) <= 1
    until(lambda: not served.studio.desk.running, "the end")


def test_two_users_see_their_own_videos(served, home, tmp_path):
    rows = [row for row, bad in home.unsafe.items() if not bad][:2]
    asked = [home.asked[row] for row in rows]
    browsers = [Browser(served, prompt=prompt, seed=seed) for prompt, seed in asked]
    for each, row, (_, seed) in zip(browsers, rows, asked):
        each.listen()
        assert f"Seed {seed}." in each.banner
        assert (frames_of(each.clip, tmp_path) == home.frames[row]).all()


def test_the_page_in_a_browser(served, browser, safe, unsafe):  # noqa: F811
    with quiet_page(browser, viewport={"width": 390, "height": 844}, color_scheme="dark") as page:
        page.goto(served.url)
        for (prompt, seed), end in ((safe[:2], "Safe."), (unsafe, "Stopped after")):
            page.fill("#prompt textarea", prompt)
            _set(page, seed)
            page.click("#sample")
            page.wait_for_selector(f".lvd-banner b:has-text('{end}')")
            if end == "Safe.":
                page.wait_for_function("document.querySelector('.lvd-large video')?.videoWidth > 0")
                assert page.locator(".lvd-strip img").count() == 4
        page.wait_for_selector(".lvd-large:has-text('No frame of this video was shown')")
        assert not page.locator(".lvd-stage img, video, canvas").count()
        assert "base64" not in page.inner_html(".lvd-stage")
        assert page.locator(".js-plotly-plot .scatterlayer .trace").count() == 4
        _cancel(page)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390  # nothing sticks out on a phone


def _cancel(page):
    """Begin a long video without the guard, see its x0, cancel it: nothing of it stays."""
    page.locator("#guard input").uncheck()
    page.fill("#steps input", "200")
    page.click("#sample")
    page.wait_for_selector(".lvd-large img")
    page.click("#cancel")
    page.wait_for_selector(".lvd-banner b:has-text('Cancelled.')")
    page.wait_for_timeout(200)  # no late update undoes it
    assert page.inner_text(".lvd-banner b") == "Cancelled."
    assert not page.locator(".lvd-stage img, video, canvas").count()


def _set(page, seed):
    if not page.locator("#seed input").is_visible():
        page.get_by_text("Rule and sampling").click()
    page.fill("#seed input", str(seed))
    page.fill("#steps input", "4")
    page.locator("#steps input").blur()


REFUSED = {
    "no config": (["--config", "missing.yaml"], ["missing.yaml"]),
    "a config without a guard": (["--config", "sample_configs/ToonYou.yaml"], ["--guard"]),
    "no guard": (["--guard", "missing"], ["--guard ", "missing: no detectors"]),
    "no port": (["--port", "70000"], ["--port 70000", "from 0 to 65535"]),
    "no place": (["--queue", "-1"], ["--queue -1"]),
    "no host": (["--host", "no.such.host.invalid", "--dry-run"], ["--host"]),
    "two rules": (["--rule", "rule.yaml", "--eta", "3"], ["--eta"]),
    "an odd dtype": (["--dtype", "int8"], ["--dtype"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_flags(case, capsys):
    flags, words = REFUSED[case]
    refused(app.main(flags), capsys, *words)


def test_a_port_that_is_taken_is_named(served, capsys):
    status = app.main(["--port", str(served.port), "--gpu_num", "-1"])
    refused(status, capsys, f"--port {served.port}", "in use")


def test_without_gradio_its_requirements_are_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(app.main([]), capsys, "gradio is not installed", "requirements-app.txt")


def test_the_guard_can_be_required(served, monkeypatch):
    monkeypatch.setattr(served.studio, "need_guard", True)
    heard = Browser(served, guard=False).listen()
    assert "guard: this page samples under the guard alone" in heard.banner


@pytest.mark.parametrize("host, is_risk", [("0.0.0.0", True), ("localhost", False)])
def test_a_page_for_everybody_is_named_a_risk(capsys, host, is_risk):
    flags = ["--dry-run", "--port", "0", "--gpu_num", "-1", "--host", host]
    assert app.main(flags) == 0
    assert ("there is no login" in capsys.readouterr().out) == is_risk


def test_a_dry_run_says_what_would_be_served(capsys):
    assert app.main(["--dry-run", "--port", "0", "--gpu_num", "-1", "--require_guard"]) == 0
    said = capsys.readouterr().out
    assert "would serve" in said and "confidence" in said and "always on" in said
