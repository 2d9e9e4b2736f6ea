"""label_videos.py export: lists, tasks, the page, sheets, and what is refused."""

import csv
import json
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import combinations
from urllib.parse import parse_qs, urlsplit

import pytest

import label_videos
from lvd.utils.files import load_json, load_yaml
from lvd_labels.lists import lists_of
from tests.worlds.labelled_videos import make_recording
from tests.worlds.refusals import refused

ODD_NAME = "a b & <c> ?d=ü"


@pytest.fixture
def recording(tmp_path):
    return make_recording(tmp_path / "unsafe", [None, None, ODD_NAME, None, None], planned=7)


def export(recording, out, *flags, categories="warped,strobing"):
    words = ["export", "--recording", recording, "--out", out, "--categories", categories, *flags]
    return label_videos.main([str(word) for word in words])


@pytest.mark.parametrize(
    ("videos", "raters", "each"), [(200, 10, 3), (7, 3, 2), (40, 9, 3), (5, 5, 5), (11, 1, 1)]
)
def test_lists_are_balanced(videos, raters, each):
    names = [f"{k:04d}" for k in range(videos)]
    lists = lists_of(names, raters, each, seed=1)
    assert Counter(name for one in lists for name in one) == dict.fromkeys(names, each)
    assert all(len(set(one)) == len(one) for one in lists)
    lengths = [len(one) for one in lists]
    assert max(lengths) - min(lengths) <= 1 and sum(lengths) == videos * each
    assert lists == lists_of(names, raters, each, seed=1) != lists_of(names, raters, each, seed=2)


def test_all_raters_share_videos_with_all_others():
    """Nine raters in threes would never meet, were the same three always together."""
    names = [str(k) for k in range(120)]
    lists = lists_of(names, 9, 3, seed=2024)
    together = [len(set(one) & set(other)) for one, other in combinations(lists, 2)]
    assert min(together) >= 3  # 10 on average
    assert all(one != sorted(one, key=int) for one in lists)
    late = [max(one.index(name) / len(one) for one in lists if name in one) for name in names]
    assert min(late) > 0.05  # no video is first in all of its lists


def test_tasks_name_the_videos_and_where_they_are_served(recording, tmp_path, capsys):
    out = tmp_path / "labelling"
    assert export(recording, out, "--raters", "3", "--ratings_per_video", "2") == 0
    said = capsys.readouterr().out
    assert "up to 4 videos of 5 videos, 2 ratings of each" in said
    assert "5 of 7 videos are finished so far" in said and "bias" in said
    tasks = [task["data"] for k in (1, 2, 3) for task in load_json(out / f"tasks_{k}.json")]
    assert Counter(task["video_name"] for task in tasks) == dict.fromkeys(
        ["0000", "0001", ODD_NAME, "0003", "0004"], 2
    )
    for task in tasks:
        assert "prompt" not in task
        address = urlsplit(task["video"])
        path = recording / parse_qs(address.query)["d"][0]
        assert address.path == "/data/local-files/" and path.is_file()
        assert path.stem == task["video_name"]
    config = load_yaml(out / "export.yaml")
    assert config["recording"] == str(recording) and config["ratings_per_video"] == 2
    for number in (1, 2, 3):
        with open(out / f"sheet_{number}.csv", newline="", encoding="utf-8") as file:
            sheet = list(csv.DictReader(file))
        listed = load_json(out / f"tasks_{number}.json")
        named = [f"{task['data']['video_name']}.mp4" for task in listed]
        assert [line["video"] for line in sheet] == named
        assert {line["rater"] + line["categories"] for line in sheet} == {""}


def test_the_page_asks_for_the_categories(recording, tmp_path):
    odd = 'a "b" & <c>'
    assert export(recording, tmp_path / "out", "--show_prompt", categories=f"warped,{odd}") == 0
    page = ElementTree.parse(tmp_path / "out" / "labelling_page.xml").getroot()
    choices = page.find("Choices")
    answers = [choice.get("value") for choice in choices.findall("Choice")]
    assert answers == ["warped", odd, "none of these", "cannot tell"]
    assert (choices.get("choice"), choices.get("required")) == ("multiple", "true")
    assert page.find("Video").get("value") == "$video"
    assert page.find("Text").get("value") == "$prompt"
    prompts = {task["data"]["prompt"] for task in load_json(tmp_path / "out" / "tasks.json")}
    assert "<b>shape</b> 0" in prompts


def test_the_start_script_names_the_folder_and_serves_nothing_else(tmp_path):
    recording = make_recording(tmp_path / "it's $HOME", [None])
    assert export(recording, tmp_path / "out") == 0
    script = tmp_path / "out" / "start_server.sh"
    shown = subprocess.run(
        ["bash", str(script)], env={"LABEL_STUDIO": "env", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "start" in shown.stderr  # env finds no program of that name
    script.write_text(script.read_text().replace(" start --no-browser", " #"))
    shown = subprocess.run(
        ["bash", str(script)], env={"LABEL_STUDIO": "env", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={recording}" in shown.stdout.splitlines()
    assert "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true" in shown.stdout
    assert "LABEL_STUDIO_COLLECT_ANALYTICS=false" in shown.stdout


def test_the_same_command_again_keeps_what_people_wrote(recording, tmp_path, capsys):
    out = tmp_path / "out"
    assert export(recording, out) == 0
    for name in ("sheet.csv", "instructions.txt"):
        (out / name).write_text("filled in")
    before = (out / "tasks.json").read_bytes()
    assert export(recording, out) == 0
    assert (out / "tasks.json").read_bytes() == before
    assert {(out / name).read_text() for name in ("sheet.csv", "instructions.txt")} == {"filled in"}
    refused(
        export(recording, out, "--seed", "5"), capsys, "export.yaml", "seed=2024", "now it is 5"
    )


def test_only_some_videos(recording, tmp_path, capsys):
    table = tmp_path / "doubtful.csv"
    table.write_text(f'video,why\n0003,tie\n"{ODD_NAME}",tie\n0003,again\n')
    assert export(recording, tmp_path / "out", "--only", table) == 0
    named = [task["data"]["video_name"] for task in load_json(tmp_path / "out" / "tasks.json")]
    assert sorted(named) == ["0003", ODD_NAME]
    table.write_text("video\n0009\n")
    refused(export(recording, tmp_path / "o", "--only", table), capsys, "line 2", "'0009'")
    table.write_text("name\n0001\n")
    refused(export(recording, tmp_path / "o", "--only", table), capsys, "no column video_name")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--raters", "0"], ["--raters 0", "1 to"]),
        (["--raters", "9"], ["--raters 9", "5 videos"]),
        (["--raters", "2", "--ratings_per_video", "3"], ["--ratings_per_video 3", "1 to"]),
        (["--seconds", "nan"], ["--seconds"]),
        (["--seed", "-1"], ["--seed -1"]),
        (["--categories", "a,,b"], ["--categories", "blank"]),
        (["--categories", "a,A"], ["--categories", "twice"]),
        (["--categories", "none of these"], ["--categories", "answer of its own"]),
        (["--categories", "a,video"], ["--categories", "'video'", "another meaning"]),
        (["--categories", "Judged"], ["--categories", "'Judged'", "another meaning"]),
        (["--categories", "[a]"], ["--categories", "begins with none of"]),
        (["--categories", "1,2"], ["--categories", "'1'", "no number"]),
        (["--categories", "a;b"], ["--categories", "'a;b'"]),
        (["--categories", "=cmd()"], ["--categories", "begins with none of"]),
        (["--categories", "x" * 61], ["--categories", "60"]),
        (["--recording", "nowhere"], ["--recording nowhere", "pred_x0.json"]),
        (["--only", "nowhere.csv"], ["nowhere.csv", "no such file"]),
    ],
)
def test_refused(recording, tmp_path, capsys, flags, words):
    refused(export(recording, tmp_path / "out", *flags), capsys, *words)
    assert not (tmp_path / "out").exists()


def test_videos_that_no_player_shows(tmp_path, capsys):
    gifs = make_recording(tmp_path / "gifs", [None, None], suffix=".gif")
    refused(export(gifs, tmp_path / "out"), capsys, "2 videos as gif only", "`format: mp4`")
    (gifs / "videos" / "0001.gif").unlink()
    refused(export(gifs, tmp_path / "out"), capsys, "2 videos of the recording not there", "0000")


def test_recordings_that_cannot_be_labelled(tmp_path, capsys):
    twice = make_recording(tmp_path / "twice", ["0001", None])  # row 1 is named 0001, too
    refused(export(twice, tmp_path / "out"), capsys, "rows 0 and 1 are both named '0001'")
    sidecar = load_json(twice / "pred_x0.json")
    (twice / "pred_x0.json").write_text(json.dumps({**sidecar, "rows": {}}))
    refused(export(twice, tmp_path / "out"), capsys, "no video of it is finished")
    sidecar["rows"]["0"]["video"] = "../../etc/passwd"
    (twice / "pred_x0.json").write_text(json.dumps(sidecar))
    refused(export(twice, tmp_path / "out"), capsys, "pred_x0.json", "video")
