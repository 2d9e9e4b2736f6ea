"""lvd_plan/earlier.py: what older labels or recordings made is put aside, and nothing else."""

import shutil

import pytest

from lvd.data.split import Split, save_split
from lvd.utils.files import load_yaml, save_yaml, sha256
from lvd.x0.file import open_x0_file
from lvd_plan import earlier
from tests.worlds.refusals import refused
from tests.worlds.x0_rows import META, create, info_of, x0_of

FOLDERS = ("eval_set", "eval_normal", "detectors", "results", "shared", "results_shared")
EVERYTHING = {*FOLDERS, "eval.pth", "eval.yaml", "report.html"}


def record(home, kind, count):
    meta = {**META, "kind": kind}
    with create(home / kind / "pred_x0.pth", rows=count, meta=meta) as writer:
        for row in range(count):
            writer.write_row(row, x0_of(row), info_of(row))


@pytest.fixture
def home(tmp_path):
    """A folder with recordings and labels, and what seems to be made of them."""
    for kind, count in (("unsafe", 4), ("normal", 6)):
        record(tmp_path, kind, count)
    (tmp_path / "label.csv").write_text("a,b\n0,1\n2,3\n")
    settings = {"pred_x0": "unsafe", "normal_pred_x0": "normal"}
    settings = {key: str(tmp_path / kind / "pred_x0.pth") for key, kind in settings.items()}
    settings |= {"sample_config": "Tiny.yaml", "label_file_dir": str(tmp_path / "label.csv")}
    save_yaml({**settings, "out_dir": str(tmp_path / "data")}, tmp_path / "my.yaml")
    made_by = {
        "label_sha256": sha256(tmp_path / "label.csv"),
        "pred_x0_made_by": open_x0_file(settings["pred_x0"]).fingerprint,
        "normal_pred_x0_made_by": open_x0_file(settings["normal_pred_x0"]).fingerprint,
    }
    split = Split([0], [1], 2024, 0.2, made_by["label_sha256"], 6)
    save_split(split, tmp_path / "eval.pth")
    made_by["eval_sha256"] = sha256(tmp_path / "eval.pth")
    for name in FOLDERS:
        inner = name in ("detectors", "shared")
        save_yaml(
            {"dataset": made_by} if inner else made_by,
            tmp_path / name / ("train.yaml" if inner else "config.yaml"),
        )
    (tmp_path / "eval.yaml").touch()
    (tmp_path / "report.html").touch()
    return tmp_path


def run(home):
    return earlier.main(["--config", str(home / "my.yaml")])


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_nothing_is_moved_while_nothing_changed(home, capsys):
    before = names(home)
    assert run(home) == 0
    assert names(home) == before and capsys.readouterr().out == ""


def test_corrected_labels_put_all_aside_but_the_recordings(home, capsys):
    (home / "label.csv").write_text("a,b\n0,2\n1,3\n")
    assert run(home) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "since eval.pth was made the label file changed"
    assert second.startswith(f"moved to {home / 'earlier' / '1'}: report.html, results_shared")
    assert names(home) == {"earlier", "label.csv", "my.yaml", "unsafe", "normal"}
    assert names(home / "earlier" / "1") == {*EVERYTHING, "moved.yaml"}
    assert run(home) == 0 and capsys.readouterr().out == ""


def test_a_folder_of_somebody_else_stays(home):
    (home / "shared" / "train.yaml").rename(home / "shared" / "thesis.txt")
    (home / "label.csv").write_text("a,b\n0,2\n1,3\n")
    assert run(home) == 0
    assert names(home / "shared") == {"thesis.txt"} and not (home / "detectors").exists()


def test_more_normal_videos_are_another_split(home, capsys):
    shutil.rmtree(home / "normal")
    record(home, "normal", 8)
    assert run(home) == 0
    said = "since eval.pth was made more normal videos were recorded (6, now 8)"
    assert capsys.readouterr().out.splitlines()[0] == said


def test_of_a_recording_that_has_grown_the_split_stays(home, capsys, monkeypatch):
    """eval.pth follows from the labels; detectors and results were made from fewer prompts."""
    grown = open_x0_file(home / "unsafe" / "pred_x0.pth")
    grown.earlier.append(grown.fingerprint)
    grown.meta["more"] = True  # another fingerprint
    monkeypatch.setattr(
        earlier, "open_x0_file", lambda p: grown if p == grown.path else open_x0_file(p)
    )
    assert run(home) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"since {', '.join(earlier.CONFIGS)} were made prompts were added"
    assert (home / "eval.pth").exists() and not (home / "detectors").exists()


def test_a_split_by_hand_leaves_what_was_not_made_from_it(home, capsys):
    save_yaml({"eval_sha256": "other"}, home / "shared" / "train.yaml")
    assert run(home) == 0
    assert "since shared was made eval.pth was made anew" in capsys.readouterr().out
    assert names(home / "earlier" / "1") == {
        *("shared", "results_shared", "report.html", "moved.yaml")
    }


@pytest.mark.parametrize("moves", [0, 1, 4, 8])
def test_killed_in_the_middle_it_goes_on(home, moves, monkeypatch):
    (home / "label.csv").write_text("a,b\n0,2\n1,3\n")
    done = []

    def rename(path, target, real=earlier.Path.rename):
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(path)
        return real(path, target)

    with monkeypatch.context() as killed:
        killed.setattr(earlier.Path, "rename", rename)
        assert run(home) == 130
    assert load_yaml(home / "earlier" / "1" / "moved.yaml")["finished"] is False
    assert run(home) == 0
    assert names(home / "earlier") == {"1"}
    assert names(home / "earlier" / "1") == {*EVERYTHING, "moved.yaml"}


def test_a_damaged_list_is_refused(home, capsys):
    (home / "earlier" / "3").mkdir(parents=True)
    (home / "earlier" / "3" / "moved.yaml").write_text("finished: false\nmoved: [/etc]\nwhy: {}\n")
    refused(run(home), capsys, "moved.yaml: not the list", alone=True)
