"""report.html in a browser: its numbers are those of the scripts, and it can be used by anyone."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import test_accuracy
from lvd.evaluation import vote_report
from lvd.evaluation.page import write
from lvd.evaluation.rule_of_scores import load_recording, rule_for
from lvd.evaluation.rule_report import report_of
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.file import load_rule
from lvd.rules.rule import NEVER
from lvd.rules.vote import VoteRule
from tests.worlds.browser import browser, quiet_page  # noqa: F401
from tests.worlds.recorded_scores import identity, write_recording
from tests.worlds.report_pages import (
    HOSTILE,
    NAME,
    STEPS,
    content_of,
    report,
    write_recordings,
    write_votes,
)
from tools import closing_report

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
MEASURED = """(makes) => makes.map((one) => {
  const set = DETECTORS[0];
  const isVote = one.bound === undefined;
  const rule = isVote ? voteRule(set, one.hundredths, one.eta) : boundRule(set, one.bound);
  const counted = (places) => {
    const { accuracy, tpr, tnr, cost } = measure(set, rule, places);
    return [accuracy, tpr, tnr, cost];
  };
  return { stops: rule.stops, all: counted(EVERYONE), balanced: counted(DATA.balanced) };
})"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    results, rule = write_votes(root)
    recordings = write_recordings(root)
    page = root / "page.html"
    assert report(results, page, "--rule", rule, "--recordings", recordings) == 0
    recording = load_recording(results)
    chosen = rule_for(load_rule(rule), recording)
    return SimpleNamespace(
        page=page, recording=recording, chosen=chosen, results=results, recordings=recordings
    )


@pytest.fixture(scope="module")
def opened(browser, world):
    """The page, opened once; tests leave it as they found it."""
    with quiet_page(browser, viewport=DESKTOP) as page:
        page.goto(world.page.as_uri())
        yield page


def slide(page, name, value):
    """Move a slider as a hand does."""
    script = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }"
    page.locator(f"#{name}").evaluate(script, value)


def wait_until(page, what):
    """Wait for a condition. The page forbids eval, which playwright's own wait needs."""
    for _ in range(600):
        if page.evaluate(f"Boolean({what})"):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"never true: {what}")


def rates(report):
    right, total = report.rates()["accuracy"]
    return [right / total, report.found / report.unsafe, 1 - report.false / report.normal]


def test_votes_of_the_sliders_equal_the_scripts(opened, world):
    """Every lambda in hundredths at every eta: decisions, rates and cost."""
    makes = [{"hundredths": h, "eta": eta} for h in range(101) for eta in range(1, STEPS + 1)]
    videos = vote_report.balanced(world.recording.results)
    for make, told in zip(makes, opened.evaluate(MEASURED, makes), strict=True):
        rule = VoteRule(f"{make['hundredths'] / 100:.2f}", make["eta"])
        judged = report_of(rule, world.recording.videos)
        assert told["stops"] == judged.stops.tolist(), make
        assert np.allclose(told["all"], [*rates(judged), judged.cost()], atol=1e-12, rtol=0)
        if make["hundredths"] % 10 == 0:
            balanced = vote_report.counts(*vote_report.verdicts(videos, rule.lambda_, rule.eta))
            assert np.allclose(told["balanced"][:3], list(balanced.values()), atol=1e-12, rtol=0)


def test_bounds_of_the_slider_equal_the_scripts(opened, world):
    """All bounds of the slider, and those that lie on a score itself."""
    scores = np.unique(world.recording.videos.evidence.calibrated)
    own = content_of(world.page)["detectors"][0]["bounds"]
    assert own == sorted(own) and own[0] == 0.5 and own[-1] == 0.999999
    makes = [{"bound": float(bound)} for bound in [*own, *scores[::25]]]
    for make, told in zip(makes, opened.evaluate(MEASURED, makes), strict=True):
        judged = report_of(ConfidenceRule(make["bound"], STEPS), world.recording.videos)
        assert told["stops"] == judged.stops.tolist(), make
        assert np.allclose(told["all"], [*rates(judged), judged.cost()], atol=1e-12, rtol=0)


def test_what_is_shown_is_what_the_script_prints(opened, world, capsys):
    """After a slider has moved, with as many of each kind as the script counts."""
    opened.select_option("#counted", "balanced")
    for hundredths, eta in ((60, 5), (34, 3), (100, 6)):
        slide(opened, "lambda", hundredths)
        slide(opened, "eta", eta)
        words = ["--data_dir", str(world.results), "--eta", str(eta)]
        assert test_accuracy.main([*words, "--lambda", f"{hundredths / 100:.2f}"]) == 0
        said = capsys.readouterr().out
        cells = opened.locator('[data-rule="vote"] td[data-label]').all_inner_texts()
        for name, cell in zip(("accuracy", "tpr", "tnr"), cells[:3], strict=True):
            printed = re.search(rf"^  {name}: (\S+)$", said, re.M)[1]
            assert re.search(r"[01]\.\d{4}", cell)[0] == printed, (name, hundredths, eta)
    opened.select_option("#counted", "all")


def test_the_chosen_rule_and_its_mistakes(opened, world):
    """Decisions of the rule of a file; the worst mistakes first."""
    judged = report_of(world.chosen, world.recording.videos)
    assert opened.evaluate("DETECTORS[0].rules.at(-1).stops") == judged.stops.tolist()
    opened.check('[name="active"][value="rule 1"]')
    cells = opened.locator('tr[data-rule="rule 1"] td[data-value]')
    values = cells.evaluate_all("all => all.map((cell) => Number(cell.dataset.value))")
    assert np.allclose(values, [*rates(judged), judged.cost()])
    listed = opened.locator("#mistakes [data-video]").evaluate_all(
        "all => all.map((one) => Number(one.dataset.video))"
    )
    wrong = np.flatnonzero((judged.stops != NEVER) != judged.is_unsafe)
    assert sorted(listed) == wrong.tolist() and len(wrong) > 1
    evidence = world.recording.videos.evidence.of(listed)
    ahead = world.chosen.ahead(evidence)[:, : world.chosen.horizon].max((1, 2))
    assert (np.diff(np.abs(ahead)) <= 1e-6).all()
    for place in listed[:3]:
        opened.locator(f'#mistakes [data-video="{place}"]').click()
        stop = opened.locator('#decisions tr[data-rule="rule 1"]').get_attribute("data-stop")
        assert int(stop) == judged.stops[place]


def test_a_moved_bound_moves_everything(opened):
    """Table, mistakes, list, decision and the point in the chart follow at once."""
    opened.check('[name="active"][value="bound"]')

    def state():
        marks = "document.getElementById('frontier').data.at(-1).x.join()"
        texts = [opened.inner_text(f"#{name}") for name in ("table", "mistakes", "decisions")]
        return [*texts, opened.evaluate(marks)]

    slide(opened, "bound", 0)
    low = state()
    slide(opened, "bound", 60)
    assert all(before != after for before, after in zip(low, state(), strict=True))


def test_hostile_texts_are_texts(opened, world):
    opened.evaluate("select(0)")
    assert opened.text_content("#prompt") == HOSTILE
    assert NAME in opened.text_content("#truth")
    assert NAME in opened.locator("#category").text_content()
    assert opened.locator("body b b, body img[onerror], .prompt *").count() == 0
    assert opened.title() == "LVD report: 9 unsafe and 12 normal videos"


def test_search_and_filters(opened):
    count = opened.locator("#list [data-video]").count
    assert count() == 21
    opened.fill("#search", "ROW 20")
    assert count() == 2
    opened.select_option("#kind", "normal")
    assert opened.inner_text("#list .row") == "normal 20"
    opened.fill("#search", "")
    assert count() == 12
    opened.select_option("#kind", "all")
    opened.select_option("#category", "1")
    assert count() == 4
    opened.select_option("#category", "")
    opened.check("#wrong-only")
    assert count() == opened.locator("#mistakes [data-video]").count()
    opened.uncheck("#wrong-only")


def test_the_keyboard_is_enough(opened):
    """j, k and arrows choose videos, left and right steps, space plays; fields keep their keys."""
    opened.evaluate("document.activeElement.blur(); select(0)")

    def pressed(key, what):
        opened.keyboard.press(key)
        return opened.evaluate(what)

    video, step, playing = "player.video", "player.step", "player.playing"
    assert pressed("j", video) == 1 and pressed("ArrowDown", video) == 2
    assert pressed("k", video) == 1 and pressed("ArrowUp", video) == 0
    before = opened.evaluate(step)
    assert pressed("ArrowRight", step) == min(before + 1, STEPS - 1)
    was = opened.evaluate(playing)
    assert pressed(" ", playing) is not was and pressed(" ", playing) is was
    opened.focus("#search")
    assert pressed("j", video) == 0
    opened.fill("#search", "")
    opened.focus("#eta")
    eta = opened.evaluate("byId('eta').value")
    assert pressed("ArrowLeft", "byId('eta').value") == str(int(eta) - 1)
    assert pressed("ArrowRight", "byId('eta').value") == eta
    opened.focus("#list [aria-current=true]")
    assert pressed("j", "document.activeElement.dataset.video") == "1"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert opened.evaluate(outline) == "solid"


def test_all_controls_have_names(opened):
    names = """[...document.querySelectorAll("input, select, button, canvas, [role=img], video")]
      .filter((one) => one.checkVisibility() && one.ariaHidden !== "true")
      .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim() || one.alt))
      .map((one) => one.outerHTML.slice(0, 80))"""
    assert opened.evaluate(names) == []


def test_clips_play_and_x0_is_drawn(opened):
    opened.evaluate("select(3); setPlaying(true)")
    wait_until(opened, "player.clip?.readyState >= 2 && !player.clip.paused")
    wait_until(opened, "player.drawn.startsWith('3 ')")
    colours = """[...new Uint32Array(byId("x0").getContext("2d")
      .getImageData(0, 0, 320, 320).data.buffer)].length"""
    assert opened.evaluate(colours) == 320 * 320


def test_dark_and_light(opened):
    colours = """[getComputedStyle(document.body).backgroundColor,
      document.getElementById("chart").layout.font.color]"""
    found = []
    for scheme in ("dark", "light"):
        opened.emulate_media(color_scheme=scheme)
        opened.wait_for_timeout(50)
        found.append(opened.evaluate(colours))
    (dark, dark_text), (light, light_text) = found
    assert dark != light and dark_text != light_text


def test_a_phone_has_no_sideways_scroll(opened):
    """Nor with hostile names; the charts are as wide as their cards."""
    opened.set_viewport_size(PHONE)
    for place in (0, 12):
        opened.evaluate(f"select({place})")
        assert opened.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    inside = """[...document.querySelectorAll(".chart")].every((one) =>
      one.querySelector("svg").getBoundingClientRect().width <= one.clientWidth + 1)"""
    wait_until(opened, inside)
    opened.set_viewport_size(DESKTOP)


def test_a_page_of_two_detectors_whose_clips_are_linked(browser, world, monkeypatch):
    """As reproduce.sh writes it: clips play from the disk, and detectors can be chosen."""
    monkeypatch.setattr(write, "LIMIT", 10_000)
    home = world.page.parent / "a home"
    for name in ("results", "results_shared"):
        shutil.copytree(world.results, home / name)
    flags = {"--home_dir": home, "--recordings": world.recordings, "--filmstrips": home}
    flags["--steps_csv"] = home / "steps.csv"
    assert closing_report.main([str(word) for pair in flags.items() for word in pair]) == 0
    with quiet_page(browser) as page:
        page.goto((home / "report.html").as_uri())
        wait_until(page, "player.clip?.readyState >= 2")
        assert page.locator("#clip video").get_attribute("src").startswith("./../unsafe/")
        assert page.locator("#detectors option").count() == 2
        page.select_option("#detectors", "1")
        assert page.evaluate("state.set === DETECTORS[1]")


OLD = {
    "neither calibrated scores nor categories of videos": {"calibrated": None, "members": None},
    "other steps": {"trained_steps": [1, 3, 5, 7, 9, 11], "detectors": identity(12)},
}


@pytest.mark.parametrize("name", OLD)
def test_other_scores_are_shown(browser, tmp_path, name):
    _, scores = write_recording(tmp_path / "results", **OLD[name])
    assert report(tmp_path / "results", "--lambda", "0.5", "--eta", "4") == 0
    recording = load_recording(tmp_path / "results")
    with quiet_page(browser) as page:
        page.goto((tmp_path / "results" / "report.html").as_uri())
        assert page.locator("#bound").is_visible() == bool(scores.get("calibrated"))
        eta = page.evaluate("DETECTORS[0].looks[3]")
        assert page.inner_text("#needed").startswith(f"{(eta + 1) // 2} of the first {eta} votes")
        judged = report_of(VoteRule("0.5", eta), recording.videos)
        value = page.locator('[data-rule="vote"] [data-label="accuracy"]').get_attribute(
            "data-value"
        )
        assert np.isclose(float(value), judged.right / 21)


def test_votes_alone_are_shown(browser, tmp_path):
    write_recording(tmp_path / "results")
    (tmp_path / "results" / "scores.pth").unlink()
    assert report(tmp_path / "results") == 0
    with quiet_page(browser) as page:
        page.goto((tmp_path / "results" / "report.html").as_uri())
        assert "votes and no scores" in page.inner_text("#chart-note")
        assert not page.locator("#bound").is_visible()
