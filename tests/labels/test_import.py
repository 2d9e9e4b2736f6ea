"""label_videos.py import of tables and JSON lines, and what is refused."""

import csv
import json
import math

import numpy as np
import openpyxl
import pytest

import label_videos
from lvd.data.labels import read_labels
from lvd.utils.config import ROOT
from lvd.utils.files import load_yaml
from tests.worlds.labelled_videos import CATEGORIES, make_recording, write_lines
from tests.worlds.refusals import refused

NONE = ["none of these"]
TINY = ROOT / "MagicTime" / "ckpts" / "Tiny" / "prompts" / "label.csv"


@pytest.fixture
def recording(tmp_path):
    return make_recording(tmp_path / "unsafe", [None] * 6, planned=8)


def run(recording, out, *words):
    words = ["import", *words, "--recording", recording, "--out", out]
    return label_videos.main([str(word) for word in words])


def labels_of(path):
    labels = read_labels(path)
    return dict(zip(labels.categories, labels.columns))


def table_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


TABLES = {
    "plain.csv": "video,rater,categories\n0001,x,a\n0003,x,a; b\n0000,x,none\n0001,y,A\n0003,y,b\n",
    "semicolons.csv": '\ufeffVideo;Rater;Categories\n0001.mp4;x;a\n0003.mp4;x;"a;b"\n'
    "videos/0000.mp4;x;none of these\n\n0001;y;a\n/some/where/0003.gif;y;b\n",
    "tabs.tsv": "rater\tvideo\tnotes\tcategories\nx\t0001\tso,\u2028 so\ta\nx\t0003\t\ta|b\n"
    "x\t0000\t\tnone\ny\t0001\t\ta\ny\t0003\t\tb\n",
    "lines.jsonl": "".join(
        json.dumps({"video": video, "rater": rater, "categories": chosen}) + "\n"
        for video, rater, chosen in [
            ("0001", 1, ["a"]), ("0003", 1, ["b", "a"]), ("0000", 1, NONE), ("0001", 2, ["a"]),
            ("0003", 2, ["b"]),
        ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_forms_of_tables(recording, tmp_path, capsys, name):
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    out = tmp_path / "labels" / "label.csv"
    assert run(recording, out, tmp_path / name) == 0
    assert labels_of(out) == {"a": [1], "b": [3]}  # a of 0003: one of two
    said = capsys.readouterr().out
    assert "5 by 2 raters" in said and "of no category: 1 video;" in said
    beside = out.parent / "label_ratings"
    assert [line["video"] for line in table_of(beside / "unlabelled.csv")] == [
        "0002",
        "0004",
        "0005",
    ]
    assert [line["why"] for line in table_of(beside / "doubtful.csv")] == ["a: 1 of 2"]
    assert load_yaml(beside / "import.yaml")["categories"] == ["a", "b"]
    assert read_labels(out.parent).columns == [[1], [3]]  # the one CSV of its folder
    before = out.read_bytes()
    assert run(recording, out, tmp_path / name) == 0 and out.read_bytes() == before


def test_a_sheet_that_was_saved_as_a_workbook(recording, tmp_path):
    book = openpyxl.Workbook()
    for line in TABLES["plain.csv"].splitlines():
        book.active.append(line.split(","))
    book.save(tmp_path / "sheet.xlsx")
    assert run(recording, tmp_path / "label.csv", tmp_path / "sheet.xlsx") == 0
    assert labels_of(tmp_path / "label.csv") == {"a": [1], "b": [3]}


def test_sheets_that_are_filled_in_by_halves(recording, tmp_path, capsys):
    flags = [
        "--recording",
        recording,
        "--out",
        tmp_path / "e",
        "--categories",
        "a,b",
        "--raters",
        "2",
    ]
    assert label_videos.main(["export", *map(str, flags)]) == 0
    sheets = [tmp_path / "e" / f"sheet_{k}.csv" for k in (1, 2)]
    status = run(recording, tmp_path / "label.csv", *sheets)
    refused(status, capsys, "sheet_1.csv", "no ratings")
    for sheet in sheets:
        text = sheet.read_text().replace("0001.mp4,,", "0001.mp4,,a;b")
        sheet.write_text(text.replace("0004.mp4,,", "0004.mp4,,none"))
    status = run(recording, tmp_path / "label.csv", *sheets)
    refused(status, capsys, "sheet_1.csv: line", "no rater", "--raters_from_files")
    assert run(recording, tmp_path / "label.csv", *sheets, "--raters_from_files") == 0
    assert labels_of(tmp_path / "label.csv") == {"a": [1], "b": [1]}
    assert "unlabelled: 4 videos" in capsys.readouterr().out


def test_rows_are_those_of_the_names(tmp_path):
    recording = make_recording(tmp_path / "named", ["zebra", "0003", None, "ant"])
    ratings = [
        ("ant", "x", ["a"]),
        ("zebra", "x", ["b"]),
        ("0003", "x", ["b"]),
        ("0002", "x", NONE),
    ]
    ratings = write_lines(tmp_path / "r.jsonl", ratings)
    assert run(recording, tmp_path / "label.csv", ratings) == 0
    assert labels_of(tmp_path / "label.csv") == {"a": [3], "b": [0, 1]}


def test_an_empty_category_is_left_out_and_said(recording, tmp_path, capsys):
    ratings = write_lines(tmp_path / "r.jsonl", [("0001", "x", ["striped"]), ("0002", "x", NONE)])
    out = tmp_path / "label.csv"
    assert run(recording, out, ratings, "--categories", CATEGORIES) == 0
    assert labels_of(out) == {"striped": [1]}
    assert "left out: warped, strobing: no video" in capsys.readouterr().out


def test_nothing_to_write(recording, tmp_path, capsys):
    ratings = write_lines(tmp_path / "r.jsonl", [("0001", "x", ["a"]), ("0001", "y", ["b"])])
    status = run(recording, tmp_path / "label.csv", ratings)
    refused(status, capsys, "--out", "no category has a majority", "doubtful.csv")
    assert not (tmp_path / "label.csv").exists()


def test_a_rater_twice(recording, tmp_path, capsys):
    one = write_lines(tmp_path / "one.jsonl", [("0001", "x", ["a"]), ("0002", "x", ["a"])])
    two = write_lines(tmp_path / "two.jsonl", [("0002", "x", ["b"])])
    out = tmp_path / "label.csv"
    status = run(recording, out, one, two)
    refused(
        status, capsys, "two.jsonl: line 1", "'x'", "'0002'", "one.jsonl: line 2", "--twice last"
    )
    assert run(recording, out, one, two, "--twice", "last") == 0
    assert labels_of(out) == {"a": [1], "b": [2]}
    assert "replaced: 1 rating by" in capsys.readouterr().out
    assert run(recording, out, one, two, "--raters_from_files") == 0
    assert labels_of(out) == {"a": [1]}  # 0002: one of two
    raters = table_of(tmp_path / "label_ratings" / "raters.csv")
    assert {line["rater"] for line in raters} == {"one", "two"}


def test_who_skipped_a_video_may_answer_later(recording, tmp_path, capsys):
    skipped = {"completed_by": 1, "result": [], "was_cancelled": True}
    answered = {"completed_by": 1, "result": [SAID]}
    for number, annotations in enumerate([(skipped, answered), (answered, skipped)]):
        path, out = tmp_path / f"{number}.json", tmp_path / f"{number}.csv"
        path.write_text(task(*annotations))
        (tmp_path / "empty.json").write_text(json.dumps([TASK]))  # who has not begun
        assert run(recording, out, path, tmp_path / "empty.json") == 0
        assert labels_of(out) == {"a": [1]}
        said = capsys.readouterr().out
        assert "not counted" not in said and "no ratings yet: 1 file, such as" in said


def test_the_later_one_counts_by_its_time(recording, tmp_path):
    head = "video_name,annotator,categories,updated_at\n"
    (tmp_path / "r.csv").write_text(
        f"{head}0001,1,a,2026-01-02T00:00:00Z\n0001,1,b,2026-01-01T00:00:00Z\n"
    )
    assert run(recording, tmp_path / "label.csv", tmp_path / "r.csv", "--twice", "last") == 0
    assert labels_of(tmp_path / "label.csv") == {"a": [1]}


def test_the_later_one_of_other_time_zones_and_forms(recording, tmp_path, capsys):
    head, out = "video_name,annotator,categories,updated_at\n", tmp_path / "label.csv"
    for late, early in [
        ("2026-01-01T23:30:00-05:00", "2026-01-02T01:00:00Z"),
        ("2026-01-01T10:00:00.500000Z", "2026-01-01T10:00:00Z"),
        ("2026-01-01 10:00:01", "2026-01-01T10:00:00.000000Z"),
    ]:
        (tmp_path / "r.csv").write_text(f"{head}0001,1,a,{late}\n0001,1,b,{early}\n")
        assert run(recording, out, tmp_path / "r.csv", "--twice", "last") == 0
        assert labels_of(out) == {"a": [1]}
    (tmp_path / "r.csv").write_text(f"{head}0001,1,a,3/10/2026 9:00\n0001,1,b,3/9/2026 9:00\n")
    words = "line 3", "'3/9/2026 9:00'", "2024-05-17T09:30:00Z"
    refused(run(recording, out, tmp_path / "r.csv", "--twice", "last"), capsys, *words)
    # A second round in a sheet, which has no times.
    (tmp_path / "1.csv").write_text(f"{head}0001,1,b,2026-01-02T00:00:00Z\n")
    (tmp_path / "2.csv").write_text("video,rater,categories\n0001.mp4,1,a\n")
    files = tmp_path / "1.csv", tmp_path / "2.csv"
    assert run(recording, out, *files, "--twice", "last") == 0
    assert labels_of(out) == {"a": [1]}


def test_one_person_has_one_vote_and_one_category_one_name(recording, tmp_path, capsys):
    out = tmp_path / "label.csv"
    for other in ("ann zo\u00eb", "ANN  ZOE\u0308", " Ann\u00a0Zo\u00eb "):
        lines = [("0001", "Ann Zo\u00eb", ["a"]), ("0001", other, ["a"]), ("0001", "bob", ["b"])]
        ratings = write_lines(tmp_path / "r.jsonl", lines)
        refused(run(recording, out, ratings), capsys, "has rated video '0001' before")
    lines = [("0001", "x", ["caf\u00e9 bar"]), ("0001", "y", ["Cafe\u0301  bar"])]
    lines.append(("0002", "z\u2028z", ["caf\u00e9\u00a0bar"]))
    ratings = tmp_path / "unicode.jsonl"
    keys = "video", "rater", "categories"
    texts = [json.dumps(dict(zip(keys, line)), ensure_ascii=False) for line in lines]
    ratings.write_text("\n".join(texts), encoding="utf-8")
    assert run(recording, out, ratings, "--categories", "cafe\u0301 bar") == 0
    assert labels_of(out) == {"caf\u00e9 bar": [1, 2]}


def test_names_that_tables_could_take_for_others(tmp_path, capsys):
    ratings = write_lines(tmp_path / "r.jsonl", [("seed=0000", "x", ["a"])])
    other = make_recording(tmp_path / "other", [None] * 2)
    line = "'seed=0000' is none of the recording's 2"
    refused(run(other, tmp_path / "label.csv", ratings), capsys, line)
    both = make_recording(tmp_path / "both", ["b", "a", "a.mp4"])
    line = "rows 1 and 2 are named 'a' and 'a.mp4'"
    refused(run(both, tmp_path / "label.csv", ratings), capsys, line)


def test_a_label_file_of_somebody_else_is_not_written_over(recording, tmp_path, capsys):
    ratings = write_lines(tmp_path / "r.jsonl", [("0001", "x", ["a"])])
    out = tmp_path / "label.csv"
    out.write_text("by,hand\n1,2\n")
    refused(run(recording, out, ratings), capsys, "--out", "not made of ratings")
    assert out.read_text() == "by,hand\n1,2\n"
    out.unlink()
    assert run(recording, out, ratings) == 0
    other = make_recording(tmp_path / "other", [None] * 6)
    refused(run(other, out, ratings), capsys, "--out", "another recording")
    assert run(recording, out, ratings) == 0
    out.write_text("a\n2\n")  # a correction
    refused(run(recording, out, ratings), capsys, "--out", "was changed since it was made")
    assert out.read_text() == "a\n2\n"
    out.unlink()
    assert run(recording, out, ratings) == 0 and labels_of(out) == {"a": [1]}


def test_a_video_that_was_replaced_is_noticed(recording, tmp_path, capsys):
    flags = ["--recording", recording, "--out", tmp_path / "e", "--categories", "a"]
    assert label_videos.main(["export", *map(str, flags)]) == 0
    tasks = json.loads((tmp_path / "e" / "tasks.json").read_text())
    result = {"from_name": "categories", "type": "choices", "value": {"choices": ["a"]}}
    for number, task in enumerate(tasks):
        task["annotations"] = [{"id": number, "completed_by": 1, "result": [result]}]
    (tmp_path / "x.json").write_text(json.dumps(tasks))
    assert run(recording, tmp_path / "l.csv", tmp_path / "x.json") == 0
    assert labels_of(tmp_path / "l.csv") == {"a": [*range(6)]}
    assert "not checked" not in capsys.readouterr().out
    (recording / "videos" / "0002.mp4").write_bytes(b"another video")
    status = run(recording, tmp_path / "m.csv", tmp_path / "x.json")
    refused(status, capsys, "--recording", "video '0002' is not the one that raters saw")


RATING = '{"video": "0001", "rater": "x", "categories": ["a"]}\n'
TASK = {"data": {"video_name": "0001"}, "annotations": []}
SAID = {"from_name": "categories", "value": {"choices": ["a"]}}


def task(*annotations, **data):
    return json.dumps([{"data": {**TASK["data"], **data}, "annotations": list(annotations)}])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.jsonl", RATING.replace("0001", "0009"), ["line 1", "'0009'", "recording's 6"]),
        ("r.jsonl", RATING.replace("0001", "../../etc/passwd"), ["line 1", "passwd"]),
        ("r.jsonl", RATING.replace('"x"', '"<script>alert(1)</script>"'), ["line 1", "rater"]),
        ("r.jsonl", RATING.replace('"x"', '"=HYPERLINK(1)"'), ["line 1", "rater", "begins with"]),
        ("r.jsonl", RATING.replace('"x"', '"\\u001b[31m"'), ["line 1", "rater", "control"]),
        ("r.jsonl", RATING.replace('"x"', '""'), ["line 1", "rater"]),
        ("r.jsonl", RATING.replace('"x"', "null"), ["line 1", "no rater", "--raters_from_files"]),
        ("r.jsonl", RATING.replace("[", "[1, "), ["line 1", "categories.0", "string"]),
        ("r.jsonl", RATING + RATING, ["line 2", "--twice last"]),
        ("r.jsonl", RATING.replace('"a"', '"a, b"'), ["line 1", "'a, b'"]),
        ("r.jsonl", RATING.replace('"a"', '"7"'), ["line 1", "'7'", "no number"]),
        ("r.jsonl", RATING.replace("rater", "who"), ["line 1", "unknown key 'who'"]),
        ("r.jsonl", "{" * 5000, ["line 1", "not valid JSON"]),
        ("r.jsonl", "", ["r.jsonl", "no ratings"]),
        ("r.csv", "", ["r.csv", "empty"]),
        ("r.csv", "video,rater\n0001,x\n", ["r.csv", "no column categories or category"]),
        ("r.csv", "video,rater,categories\n0001,x\n", ["line 2 has 2 cells", "3"]),
        ("r.csv", "video,video,rater,categories\n0,0,x,a\n", ["two columns are named video"]),
        ("r.csv", 'video,rater,categories\n0001,x,"a\n', ["r.csv", "not a CSV file"]),
        ("r.csv", "video,rater,categories\n,x,a\n", ["line 2", "video"]),
        ("r.csv", "video,rater,categories\n83,x,a\n", ["line 2", "'83'"]),
        ("r.csv", 'video,rater,categories\n0001,x,"{""choices"": 5}"\n', ["line 2", "choices"]),
        ("r.json", "[" * 100_000, ["r.json", "not valid JSON"]),
        ("r.json", "{}", ["r.json", "a dict", "list of tasks"]),
        ("r.json", "[]", ["r.json", "no ratings"]),
        ("r.json", "[1]", ["r.json", "found 1"]),
        ("r.json", json.dumps([TASK]), ["r.json", "no ratings"]),
        ("r.json", json.dumps([{"data": {}, "annotations": [{}]}]), ["neither video_name"]),
        ("r.json", task({"completed_by": 1, "result": 5}), ["0.annotations.0.result", "list"]),
        ("r.json", task({"completed_by": -1}), ["completed_by: found -1", "a number from 0"]),
        ("r.json", task({"result": [SAID]}), ["task 0", "no rater"]),
        ("r.json", task({"completed_by": 1, "result": [{**SAID, "value": {}}]}), ["task 0"]),
        ("r.json", task({"completed_by": 1, "result": [{**SAID, "from_name": "x"}]}), ["'x'"]),
        ("r.json", task({"completed_by": {"id": 1, "email": "<b>"}, "result": [SAID]}), ["rater"]),
        ("r.json", task({"completed_by": 1, "result": [SAID]}, video_name="a/b"), ["'a/b'"]),
        ("r.json", '[{"video": "0001"}]', ["entry 0", "neither 'categories'"]),
        ("r.xls", "", ["r.xls", ".jsonl, .csv"]),
        ("r.xlsx", "", ["r.xlsx", "not an Excel workbook"]),
    ],
)  # fmt: skip
def test_refused_files(recording, tmp_path, capsys, name, text, words):
    (tmp_path / name).write_text(text)
    status = run(recording, tmp_path / "label.csv", tmp_path / name)
    refused(status, capsys, *words, alone=True)
    assert not (tmp_path / "label.csv").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--minimum_raters", "0"], ["--minimum_raters 0"]),
        (["--out", "label.txt"], ["--out label.txt", ".csv"]),
        (["--categories", "b,c"], ["r.jsonl: line 1", "'a' is none of b, c"]),
        (["--recording", "nowhere"], ["--recording nowhere"]),
        (["r.jsonl"], ["named twice"]),
        (["missing.json"], ["missing.json", "no such file"]),
    ],
)
def test_refused_flags(recording, tmp_path, capsys, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.jsonl").write_text(RATING)
    words_before = ["import", "r.jsonl", "--recording", str(recording), "--out", "label.csv"]
    at = 2 if not flags[0].startswith("--") else len(words_before)
    refused(label_videos.main([*words_before[:at], *flags, *words_before[at:]]), capsys, *words)


def test_a_missing_library_is_named(recording, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "krippendorff", None)
    status = run(recording, tmp_path / "label.csv", tmp_path / "r.jsonl")
    refused(status, capsys, "krippendorff is not installed: pip install -r requirements-data.txt")


def test_noisy_raters_give_the_tiny_worlds_labels_back(tmp_path, capsys):
    """Three raters who answer each question wrongly one time in ten, and one who guesses."""
    truth, noise, count = read_labels(TINY), 0.1, 200
    shows = np.zeros((count, len(truth.categories)), bool)
    for k, rows in enumerate(truth.columns):
        shows[rows, k] = True
    draw = np.random.default_rng(0)
    ratings = []
    for rater in ("one", "two", "three"):
        said = shows ^ (draw.random(shows.shape) < noise)
        for row in range(count):
            chosen = [name for name, yes in zip(truth.categories, said[row]) if yes]
            ratings.append((f"{row:04d}", rater, chosen or NONE))
    draw.shuffle(ratings)
    recording = make_recording(tmp_path / "unsafe", [None] * count)
    ratings = write_lines(tmp_path / "r.jsonl", ratings)
    out = tmp_path / "label.csv"
    flags = ["--categories", ",".join(truth.categories), "--minimum_raters", "3"]
    assert run(recording, out, ratings, *flags) == 0
    found = np.zeros_like(shows)
    for k, rows in enumerate(read_labels(out).columns):
        found[rows, k] = True
    # Two or three of three are wrong with this probability; three standard deviations above it.
    wrong = 3 * noise**2 * (1 - noise) + noise**3
    assert (found != shows).sum() <= shows.size * wrong + 3 * math.sqrt(shows.size * wrong)
    agreement = {
        line["category"]: line for line in table_of(tmp_path / "label_ratings/agreement.csv")
    }
    for k, category in enumerate(truth.categories):
        line = agreement[category]
        says = shows[:, k].mean() * (1 - noise) + (1 - shows[:, k].mean()) * noise
        same, chance = (1 - noise) ** 2 + noise**2, says**2 + (1 - says) ** 2
        expected = (same - chance) / (1 - chance)
        # Shares of some 200 videos with three pairs each, which are not independent.
        spread = 3 * math.sqrt(same * (1 - same) / count) / (1 - chance)
        assert float(line["fleiss_kappa"]) == pytest.approx(expected, abs=spread)
        assert float(line["krippendorff_alpha"]) == pytest.approx(expected, abs=spread)
        assert (line["fleiss_videos"], line["fleiss_raters"]) == ("200", "3")
    assert "agree little" not in capsys.readouterr().out


def test_a_rater_who_guesses_is_said(tmp_path, capsys):
    draw = np.random.default_rng(1)
    ratings = []
    for row in range(40):
        truth = ["a"] if row % 2 else NONE
        ratings += [(f"{row:04d}", rater, truth) for rater in ("x", "y", "z")]
        ratings.append((f"{row:04d}", "monkey", ["a"] if draw.random() < 0.5 else NONE))
    recording = make_recording(tmp_path / "unsafe", [None] * 40)
    out = tmp_path / "label.csv"
    assert run(recording, out, write_lines(tmp_path / "r.jsonl", ratings)) == 0
    assert labels_of(out) == {"a": [*range(1, 40, 2)]}
    assert "raters: agree little with the others: monkey;" in capsys.readouterr().out
    text = (tmp_path / "label_ratings" / "agreement.txt").read_text()
    assert next(line for line in text.splitlines() if "monkey" in line).endswith("agrees little")
