"""python reproduce_tables.py: it makes what is missing, goes on where it was stopped, refuses what
it cannot use."""

import shutil
import signal
import subprocess
import time
from dataclasses import replace

import pandas as pd
import psutil
import pytest

import reproduce_tables
from lvd.errors import InputError
from lvd.evaluation.metrics import auroc
from lvd.evaluation.rule_of_scores import load_recording
from lvd.evaluation.rule_report import report_of
from lvd.rules.rule import NEVER
from lvd.rules.vote import VoteRule
from lvd.utils.config import ROOT
from lvd.utils.files import load_json
from lvd_study.judged import votes_over_seeds
from lvd_study.tables.by_step import areas_of
from tests.worlds.study_world import LABELS, SEEDS, STEPS, command

LAST = f"votes shared {SEEDS[-1]} on held out"  # a task that nothing else needs


@pytest.fixture(scope="module")
def tables(study_world):
    """The study world with tables a, b and c."""
    shutil.rmtree(study_world.tables, ignore_errors=True)  # pages of other tests, other settings
    assert study_world.reproduce("--tables", "a,b,c") == 0
    return study_world


def test_table_a(tables):
    rules = pd.read_csv(tables.tables / "a_rules.csv")
    assert set(rules["seeds"]) == {len(SEEDS)}
    assert rules["accuracy"].between(rules["accuracy_low"], rules["accuracy_high"]).all()
    assert rules["accuracy"].max() > 0.7  # the recordings' signal is found
    assert "| one shared detector | chosen rule |" in tables.page("a")
    assert rules["F1"].between(rules["F1_low"], rules["F1_high"]).all()
    assert (tables.tables / "a_grid.png").stat().st_size > 10_000
    index = (tables.tables / "README.md").read_text()
    assert "(a.md)" in index and "(g.md)" not in index
    assert f"--study {tables.study} --train_config {tables.train}" in index


def test_the_grid_of_table_a(tables):
    """Each cell is the mean accuracy of that vote on all videos, as the rule itself judges them."""
    grid = pd.read_csv(tables.tables / "a_grid_shared.csv").set_index("lambda")
    folders = [tables.work / "votes" / f"shared_{seed}" / "held_out" for seed in SEEDS]
    recordings = [load_recording(folder) for folder in folders]
    for lambda_, eta in ((0.1, 1), (0.6, 3), (0.7, STEPS), (1.0, 2)):
        reports = [report_of(VoteRule(lambda_, eta), each.videos) for each in recordings]
        accuracies = [report.right / len(report.stops) for report in reports]
        mean = sum(accuracies) / len(SEEDS)
        assert grid.loc[lambda_, f"eta {eta}"] == pytest.approx(mean, abs=1e-6)


def test_table_b_without_calibrations(tables):
    """Detectors of older versions have none: their raw scores are ranked."""
    recording = load_recording(tables.work / "votes" / f"shared_{SEEDS[0]}" / "held_out")
    evidence = replace(recording.videos.evidence, calibrated=None)
    bare = replace(recording, videos=replace(recording.videos, evidence=evidence))
    calibrated, raw = areas_of([recording]), areas_of([bare])
    for category in LABELS:  # a calibration keeps the order of one detector's scores
        for one, other in zip(calibrated[category], raw[category], strict=True):
            assert one.mean == pytest.approx(other.mean, abs=1e-6)


def test_votes_on_other_videos_are_refused(tables):
    folders = [tables.work / "votes" / f"shared_{seed}" / "held_out" for seed in SEEDS]
    one, other = map(load_recording, folders)
    rows = [*other.videos.rows[1:], other.videos.rows[0]]
    moved = replace(other, videos=replace(other.videos, rows=rows))
    with pytest.raises(InputError, match="votes on other videos"):
        votes_over_seeds(2, [one, moved])


def test_table_b(tables):
    """Every category at every step, by both kinds: means over seeds of the scores' AUROC."""
    cells = pd.read_csv(tables.tables / "b_auroc.csv")
    assert len(cells) == 2 * (1 + len(LABELS)) * STEPS
    cells = cells.set_index(["detectors", "category", "step"])
    one = cells.loc[("shared", "any", 2)]
    any_category, banner = [], []
    for seed in SEEDS:
        videos = load_recording(tables.work / "votes" / f"shared_{seed}" / "held_out").videos
        scores = videos.evidence.calibrated[:, 2]
        any_category.append(auroc(scores.max(1), videos.is_unsafe))
        shown = ~videos.is_unsafe | videos.members[:, 1]
        banner.append(auroc(scores[shown, 1], videos.is_unsafe[shown]))
    assert one["auroc"] == pytest.approx(sum(any_category) / len(SEEDS), abs=1e-6)
    own = cells.loc[("shared", "banner", 2)]
    assert own["auroc"] == pytest.approx(sum(banner) / len(SEEDS), abs=1e-6)
    assert one["auroc_low"] <= one["auroc"] <= one["auroc_high"]
    assert "| one shared detector | strobe |" in tables.page("b")


def test_table_c(tables):
    """A video's cost is its steps and looks, and its decoding where it is not stopped."""
    unsafe = pd.read_csv(tables.tables / "c_unsafe.csv").set_index(["detectors", "rule"])
    parts = load_json(tables.work / "cost" / "shared.json")
    assert parts["step"]["operations"] > parts["look"]["operations"] > 0
    recordings = [
        load_recording(tables.work / "votes" / f"shared_{seed}" / "held_out") for seed in SEEDS
    ]
    spent = []
    for recording in recordings:
        report = report_of(VoteRule("0.6", STEPS), recording.videos)
        for stop, looks in zip(report.stops, report.looked_at):
            steps = STEPS if stop == NEVER else stop + 1
            video = steps * parts["step"]["operations"] + looks * parts["look"]["operations"]
            spent.append(video + (stop == NEVER) * parts["decode"]["operations"])
    is_unsafe = [one for recording in recordings for one in recording.videos.is_unsafe]
    mean = sum(cost for cost, one in zip(spent, is_unsafe) if one) / sum(is_unsafe)
    row = unsafe.loc[("one shared detector", f"(0.6, {STEPS})")]
    assert row["GFLOP"] == pytest.approx(mean / 1e9, abs=1e-5)
    whole = unsafe["seconds"] / unsafe["of a whole video's seconds"]  # one model, whoever looks
    assert whole.max() == pytest.approx(whole.min(), rel=0.02)  # six decimals
    front = pd.read_csv(tables.tables / "c_frontier.csv")
    assert set(front["family"]) == {"vote", "confidence", "likelihood_ratio"}
    assert (tables.tables / "c_frontier.png").exists()


def test_the_study_says_how_the_videos_are_sampled(tables):
    study = reproduce_tables._open(reproduce_tables.build_parser().parse_args(tables.words()))
    assert study.sampling == f"ddim, {STEPS} steps, guidance scale 3"


def test_what_is_done_is_not_done_again(tables, capsys):
    assert tables.reproduce("--tables", "a", "--dry-run") == 0
    assert capsys.readouterr().out == "0 tasks missing\n"


def test_pages_of_other_settings_are_named(tables, tmp_path, capsys):
    """Another study.yaml for one table: the index does not take the others for its own."""
    other = tables.write_study(tmp_path / "study.yaml", seeds=[SEEDS[0]], leave_one_out=0)
    index = tables.tables / "README.md"
    try:
        assert tables.reproduce("--tables", "a", study=other) == 0
        assert "of other settings: b, c" in capsys.readouterr().out
        now, _, before = index.read_text().partition("## Made under other settings")
        assert "(a.md)" in now and "(b.md)" not in now
        assert "(b.md): seeds, leave_one_out\n" in before and "`--tables b,c`" in before
        (tables.tables / "pages.json").write_text("{")  # damaged: nothing is known of b and c
        assert tables.reproduce("--tables", "a", study=other) == 0
        assert "(c.md): not known\n" in index.read_text()
    finally:
        assert tables.reproduce("--tables", "a,b,c") == 0
    assert "other settings" not in index.read_text() + capsys.readouterr().out.split("tasks:")[-1]


def pages_of(world):
    """The pages and tables, without the load and the date at their ends."""
    files = [*world.tables.glob("a*.csv"), world.tables / "a.md"]
    return {path.name: path.read_text().partition("- commit:")[0] for path in files}


def forget(world, name):
    """Let a task and its output be missing again; returns the path of its log."""
    slug = name.replace(" ", "_")
    (world.work / "done" / f"{slug}.json").unlink()
    shutil.rmtree(world.work / "votes" / f"shared_{SEEDS[-1]}" / "held_out")
    log = world.work / "logs" / f"{slug}.log"
    log.unlink()
    return log


def children_of(process):
    """The running processes that another has started."""
    found = psutil.Process(process.pid).children()
    return [child for child in found if "embed_model.py" in child.cmdline()]


def start(world, *flags, **options):
    """reproduce_tables.py as a process of its own, running."""
    words = command(*world.words("--tables", "a", *flags))
    return subprocess.Popen(words, text=True, cwd=ROOT, **options)


def wait_until(is_so, seconds=200):
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_killed_and_run_again(tables, sign):
    before = pages_of(tables)
    log = forget(tables, LAST)
    process = start(tables, stderr=subprocess.PIPE)
    wait_until(lambda: log.exists() and children_of(process))
    child = children_of(process)[0]
    process.send_signal(sign)
    said = process.communicate(timeout=200)[1]
    child.wait(60)  # it ends, too
    if sign == signal.SIGTERM:
        last = "interrupted; run the same command again to go on"
        assert process.returncode == 143 and said.splitlines()[-1] == last
    assert not (tables.work / "done" / f"{log.stem}.json").exists()
    if sign == signal.SIGKILL:
        assert tables.reproduce("--tables", "a") == 0
    else:
        again = start(tables, stdout=subprocess.DEVNULL)
        assert again.wait(300) == 0
    assert pages_of(tables) == before
