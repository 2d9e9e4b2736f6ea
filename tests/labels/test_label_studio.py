"""The whole way through a real Label Studio; LVD_LABEL_STUDIO names its executable.

    LVD_LABEL_STUDIO=/somewhere/bin/label-studio bash run_tests.sh tests/labels/test_label_studio.py

With LVD_LABEL_STUDIO_KEEP=1 what it exports becomes the one that the other tests read.
"""

import json
import os

import pytest

import label_videos
from lvd.utils.files import load_json, save_json
from tests.worlds.label_studio import EXECUTABLE, Person, label_studio
from tests.worlds.labelled_videos import CATEGORIES, EXPORT, RATED, check_labels, make_recording
from tests.worlds.refusals import refused

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(EXECUTABLE not in os.environ, reason=f"{EXECUTABLE} is not set"),
]
KEEP = "LVD_LABEL_STUDIO_KEEP"


def test_three_raters_label_the_videos(tmp_path, monkeypatch, capsys):
    recording = make_recording(tmp_path / "a recording", list(RATED))
    out = tmp_path / "labelling"
    flags = ["--recording", str(recording), "--categories", CATEGORIES, "--out", str(out)]
    assert label_videos.main(["export", *flags, "--raters", "3"]) == 0
    with label_studio(out / "start_server.sh", tmp_path / "data") as url:
        lead = Person(url, "lead@example.org")
        upload = ["upload", "--labelling", str(out), "--url", url]
        monkeypatch.setenv("LABEL_STUDIO_TOKEN", "wrong")
        refused(label_videos.main(upload), capsys, "LABEL_STUDIO_TOKEN", "refuses it")
        monkeypatch.setenv("LABEL_STUDIO_TOKEN", lead.send("/api/token/", {})["token"])
        assert label_videos.main(upload) == 0
        before = lead.get("/api/projects")
        assert label_videos.main(upload) == 0  # again: nothing is made twice
        assert json.loads(lead.get("/api/projects"))["count"] == 3 == json.loads(before)["count"]
        invitation = json.loads(lead.get("/api/invite"))["invite_url"]
        tasks = []
        for number in (1, 2, 3):
            rater = Person(url, f"rater{number}@example.org", invitation)
            _rate_all(rater, number, recording)
            exported = lead.get(f"/api/projects/{number}/export?exportType=JSON")
            (tmp_path / f"project-{number}.json").write_bytes(exported)
            tasks += json.loads(exported)
        users = json.loads(lead.get("/api/users"))
        assert {user["email"] for user in users} >= {f"rater{k}@example.org" for k in (1, 2, 3)}
        for kind in ("JSON_MIN", "CSV"):
            _need_same_labels(lead, kind, recording, tmp_path)
    if os.environ.get(KEEP):
        save_json(_without_what_nobody_reads(tasks), EXPORT)
    files = [str(tmp_path / f"project-{number}.json") for number in (1, 2, 3)]
    flags = ["--recording", str(recording), "--categories", CATEGORIES]
    assert label_videos.main(["import", *files, *flags, "--out", str(tmp_path / "label.csv")]) == 0
    check_labels(tmp_path / "label.csv", recording)


def _rate_all(rater, project, recording):
    """Take the tasks as the page hands them out, look at each video, and answer."""
    listed = load_json(recording.parent / "labelling" / f"tasks_{project}.json")
    for task in listed:
        shown = json.loads(rater.get(f"/api/projects/{project}/next"))
        assert shown["data"] == task["data"]  # in the order of the list
        name = shown["data"]["video_name"]
        video = rater.get(shown["data"]["video"])
        assert video == (recording / "videos" / f"{name}.mp4").read_bytes()
        choices = RATED[name][project - 1]
        rater.rate(shown["id"], choices or [], skip=choices is None)


def _need_same_labels(lead, kind, recording, folder):
    """The other forms of an export give the same label file."""
    suffix = ".csv" if kind == "CSV" else ".json"
    files = []
    for number in (1, 2, 3):
        path = folder / f"{kind}_{number}{suffix}"
        path.write_bytes(lead.get(f"/api/projects/{number}/export?exportType={kind}"))
        files.append(str(path))
    out = folder / f"{kind}.csv"
    flags = ["--recording", str(recording), "--categories", CATEGORIES, "--out", str(out)]
    assert label_videos.main(["import", *files, *flags]) == 0
    check_labels(out, recording)


def _without_what_nobody_reads(tasks):
    """An annotation's random number says nothing; the rest stays as it was given."""
    for task in tasks:
        for annotation in task["annotations"]:
            annotation["unique_id"] = annotation["unique_id"] and "0"
    return tasks
