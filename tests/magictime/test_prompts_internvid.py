"""MagicTime/prepare_weights/prompts.py: the draw, the filters, files, and a hub of our own."""

import csv
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.stats import chisquare

from lvd.utils.files import load_yaml, sha256
from MagicTime.prepare_weights import prompt_draw, prompt_filters, prompts
from MagicTime.prepare_weights.prompt_draw import Caption, Draw
from MagicTime.utils.prompts import read_prompts
from tests.worlds import hub_server, magictime_world
from tests.worlds.refusals import refused

SCRIPT = magictime_world.ROOT / "MagicTime" / "prepare_weights" / "prompts.py"
TOKENIZER = magictime_world.ROOT / "MagicTime/ckpts/Tiny/Base_Model/stable-diffusion-v1-5/tokenizer"
REPOSITORY = "datasets/OpenGVLab/InternVid"
CARD = b"""---
license: cc-by-nc-sa-4.0
configs:
- config_name: InternVid-10M
  data_files: [{split: FLT, path: InternVid-10M-flt.jsonl}]
---
"""


def meta(count=300):
    """Rows as InternVid has them: three clips of each video."""
    return [
        {
            "YoutubeID": f"-v{row // 3}",
            "Start_timestamp": f"00:00:{row % 60:02d}.000",
            "End_timestamp": f"00:01:{row % 60:02d}.000",
            "Caption": f"a dog number {row} runs",
            "UMT_Score": (row % 10) / 10,
            "Aesthetic_Score": 4.5,
        }
        for row in range(count)
    ]


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "meta.jsonl"
    path.write_bytes(json_lines(meta()))
    return path


def run(out, *flags, count=20, what="internvid"):
    words = ["--count", count, "--out", out, *(("--what", what) if what else ()), *flags]
    return prompts.main([str(word) for word in words])


# ---- the draw


def drawn(captions, count, seed=0, once=True):
    draw = Draw(count, seed, once)
    for caption in captions:
        draw.offer(caption)
    return draw.captions()


def test_every_caption_has_the_same_chance():
    captions = [Caption(f"caption {row}", row, f"video {row}") for row in range(60)]
    times, pairs = np.zeros(60), np.zeros(60)
    for seed in range(1000):
        rows = [caption.row for caption in drawn(captions, 12, seed)]
        times[rows] += 1
        pairs[rows[0]] += 1  # and each is as likely to come first
    assert times.sum() == 12_000
    assert chisquare(times).pvalue > 1e-3 and chisquare(pairs).pvalue > 1e-3


def by_definition(captions, count, seed):
    """The sample as the class describes it, with all captions in memory."""
    number = Draw(count, seed)._number
    first, found = {}, {}
    for caption in captions:
        first.setdefault(caption.id, caption)
    for caption in sorted(first.values(), key=lambda one: number(f"video {one.id}")):
        found.setdefault(prompt_draw.folded(caption.text), caption)
    return list(found.values())[:count]


def test_repeats_never_change_what_is_drawn(monkeypatch):
    monkeypatch.setattr(prompt_draw, "PRUNE", 0)
    for seed in range(150):
        chance = random.Random(seed)
        size, words, videos = chance.randrange(1, 80), chance.randrange(1, 30), 25
        captions = [
            Caption(chance.choice("aA") * chance.randrange(1, words + 1), row, f"{row % videos}")
            for row in range(size)
        ]
        chance.shuffle(captions)
        assert drawn(captions, 6, seed) == by_definition(captions, 6, seed)


def test_the_order_does_not_matter_and_a_larger_sample_goes_on():
    captions = [Caption(f"caption {row}", row, f"video {row}") for row in range(500)]
    small, large = drawn(captions, 50), drawn(captions[::-1], 80)
    assert large[:50] == small and len({caption.row for caption in large}) == 80
    assert drawn(captions, 50, seed=1) != small


# ---- the filters


@pytest.mark.parametrize(
    "caption, text",
    [
        ("  a man\n walks\t away ", "a man walks away"),
        ('"a man walks"', "a man walks"),
        ("a \x07man walks", prompt_filters.CONTROLS),
        ("a man \ud800 walks", prompt_filters.CONTROLS),
        (" \n", prompt_filters.NO_CAPTION),
        (None, prompt_filters.NO_CAPTION),
        (5, prompt_filters.NO_CAPTION),
        ("two words", prompt_filters.FEW_WORDS),
        ("a " * 76, prompt_filters.TOO_LONG),
        ("a " * 75, ("a " * 75).strip()),
        ("abc " * (1 << 19), prompt_filters.TOO_LONG),
        ("a GUN on a table", prompt_filters.LISTED),
        ("a g\u200bu\u00adn on a table", prompt_filters.LISTED),  # with marks that nobody sees
        ("a gunsmith's table", "a gunsmith's table"),
        ("die STRASSE im Regen", prompt_filters.LISTED),  # the list has it as Straße
        ("someone walks, red-handed away", prompt_filters.LISTED),  # and "red handed"
        ("someone walks red and handed", "someone walks red and handed"),
    ],
)
def test_filters(tmp_path, caption, text):
    (tmp_path / "words.txt").write_text("gun\n\nStraße\nRed  handed\n")
    words = prompt_filters.read_words(tmp_path / "words.txt")
    filters = prompt_filters.Filters(min_words=3, without=words)
    found = filters.clean(caption, {})
    assert (found or next(iter(filters.dropped))) == text
    assert filters.passed + filters.dropped.total() == 1


@pytest.mark.parametrize(
    "score, passes", [(0.5, 1), ("0.7", 1), (0.49, 0), (None, 0), ("x", 0), (10**400, 0)]
)
def test_scores(score, passes):
    filters = prompt_filters.Filters(minima={"umt_score": 0.5})
    filters.clean("a man walks", {"umt_score": score})
    assert filters.passed == passes


def test_a_tokenizer_counts_what_the_text_encoder_reads():
    tokenizer = prompt_filters.read_tokenizer(TOKENIZER)
    text = "a red circle moves up in a meadow, exploding into pieces"
    tokens = len(tokenizer(text).input_ids)
    for limit, passes in ((tokens, 1), (tokens - 1, 0)):
        filters = prompt_filters.Filters(max_tokens=limit, tokenizer=tokenizer)
        filters.clean(text, {})
        assert filters.passed == passes
    assert prompt_filters.estimated_tokens("abcd e 12, 漢") == 2 + 2 + 1 + 3 + 3


# ---- files


def test_prompts_of_a_file(file, tmp_path, capsys):
    out = tmp_path / "normal.txt"
    flags = ("--file", file, "--min_umt_score", 0.3, "--seed", 4)
    assert run(out, *flags) == 0
    said = capsys.readouterr().out
    assert "CC BY-NC-SA 4.0" in said and "less than --min_umt_score: 90" in said
    texts = out.read_text().splitlines()
    about = load_yaml(tmp_path / "normal.yaml")
    assert about["rows"]["read"] == 300 and about["rows"]["passed"] == 210
    assert about["sha256"]["prompts"] == sha256(out) and about["settings"]["seed"] == 4
    with open(tmp_path / "normal.csv", newline="") as table:
        sources = list(csv.DictReader(table))
    rows = meta()
    assert len(texts) == len(sources) == len(read_prompts(out)) == 20
    for text, source in zip(texts, sources):
        row = rows[int(source["dataset_row"])]
        assert (text, source["id"]) == (row["Caption"], row["YoutubeID"])
        assert source["start"] == row["Start_timestamp"] and row["UMT_Score"] >= 0.3
    assert len({source["id"] for source in sources}) == 20

    before = out.stat().st_mtime_ns
    assert run(out, *flags) == 0 and "there already" in capsys.readouterr().out
    assert out.stat().st_mtime_ns == before
    larger = tmp_path / "larger.txt"
    assert run(larger, *flags, count=30) == 0
    assert larger.read_bytes().startswith(out.read_bytes())


def test_the_same_rows_in_other_files_give_the_same_prompts(file, tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = meta()
    packed, table = tmp_path / "meta.jsonl.gz", tmp_path / "meta.parquet"
    packed.write_bytes(gzip.compress(json_lines(rows)))
    parquet.write_table(pyarrow.Table.from_pylist(rows), table, row_group_size=70)
    halves = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    halves[0].write_bytes(json_lines(rows[:111]))
    halves[1].write_bytes(json_lines(rows[111:]))
    found = set()
    for number, files in enumerate(([file], [packed], [table], halves)):
        out = tmp_path / f"{number}.txt"
        assert run(out, "--file", *files) == 0
        found.add((out.read_bytes(), out.with_suffix(".csv").read_bytes()))
    assert len(found) == 1
    out = tmp_path / "part.txt"
    assert run(out, "--file", table, "--read", 100) == 0 and out.read_bytes() not in found
    assert load_yaml(tmp_path / "part.yaml")["rows"]["read"] == 100


def test_what_is_there_is_not_overwritten(file, tmp_path, capsys):
    out = tmp_path / "normal.txt"
    flags = ("--file", file)
    out.write_text("a prompt of mine\n")
    refused(run(out, *flags), capsys, "normal.txt", "another --out")
    assert out.read_text() == "a prompt of mine\n"
    out.unlink()
    (tmp_path / "normal.yaml").write_text("mine: 1\n")
    refused(run(out, *flags), capsys, "normal.yaml", "not a file of prompts.py")
    (tmp_path / "normal.yaml").unlink()
    assert run(out, *flags) == 0
    text = out.read_bytes()
    refused(run(out, *flags, "--seed", 1), capsys, "--seed 0, now it is 1")
    (tmp_path / "words.txt").write_text("dog\n")
    words = ("--without", tmp_path / "words.txt")
    refused(run(out, *flags, *words), capsys, "after it was made, the words of --without changed")
    other = tmp_path / "other" / file.name  # of the same name
    other.parent.mkdir()
    other.write_bytes(json_lines(meta(299)))
    refused(run(out, "--file", other, file), capsys, "other files: 1 meta.jsonl is not the same")
    file.write_bytes(json_lines(meta(299)))
    refused(run(out, *flags), capsys, "meta.jsonl")
    file.write_bytes(json_lines(meta()))
    out.unlink()  # as after a kill just before the last file
    assert run(out, *flags) == 0 and out.read_bytes() == text
    out.write_bytes(text[:-1])
    refused(run(out, *flags), capsys, "was changed since")


def test_names_of_videos_that_no_file_can_hold_are_written_as_escapes(tmp_path):
    rows = [{**row, "YoutubeID": f"\ud800{place}"} for place, row in enumerate(meta(2))]
    (tmp_path / "meta.jsonl").write_bytes(json_lines(rows))
    out = tmp_path / "normal.txt"
    assert run(out, "--file", tmp_path / "meta.jsonl", count=2) == 0
    assert {line.split(",")[1] for line in out.with_suffix(".csv").read_text().splitlines()} == {
        "id",
        r"\ud8000",
        r"\ud8001",
    }


@pytest.mark.parametrize(
    "flags, said",
    [
        (("--count", "101"), "100 prompts found in all 300 rows"),
        (("--count", "101", "--read", "30"), "a larger --read is needed"),
        (("--min_umt_score", "2"), "most were left out by: less than --min_umt_score (300)"),
        (("--column", "text"), "no column 'text' (--column); there are YoutubeID, Start"),
        (("--id_column", "name"), "no column 'name' (--id_column)"),
        (("--count", "0"), "--count 0"),
        (("--read", "-5"), "--read -5: a number of rows from 1, or all"),
        (("--min_umt_score", "nan"), "--min_umt_score nan"),
        (("--split", "FLT"), "--file goes without"),
        (("--what", "intervid"), "--what intervid: one of internvid, internvid_full is needed"),
        (("--tokenizer", "."), "no vocab.json there"),
        (("--without", "gone.txt"), "gone.txt: no such file"),
        (("--file", "meta.csv"), "meta.csv: no such file"),
        (("--out", "normal.csv"), "the name of a .txt file"),
        (("--out", "meta.jsonl/normal.txt"), "meta.jsonl is a file, a folder is needed"),
        (("--registry", "my.yaml"), "my.yaml: no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(file, tmp_path, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    refused(run("normal.txt", "--file", file, *flags), capsys, said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meta.jsonl"]


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.jsonl", b'{"Caption": "a man walks"}\n[1]\n', "line 2: found [1]"),
        ("a.jsonl", b'{"Caption": \n', "line 1: not JSON"),
        ("a.jsonl", b"\xff\xfe", "line 1: not JSON"),
        ("a.jsonl", b"", "0 prompts found in all 0 rows"),
        ("a.jsonl.gz", gzip.compress(json_lines(meta()))[:-30], "damaged after line"),
        ("a.jsonl.gz", b"plain", "damaged after line 0"),
        ("a.parquet", b"PAR1", "not a readable parquet file"),
        ("a.txt", b"a man walks\n", ".jsonl, .jsonl.gz, .parquet are read"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, capsys, name, content, said):
    (tmp_path / name).write_bytes(content)
    flags = ("--file", tmp_path / name, "--column", "Caption")
    refused(run(tmp_path / "normal.txt", *flags, what=None), capsys, said)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_missing_library_is_one_line(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    table = tmp_path / "a.parquet"
    table.write_bytes(b"PAR1")
    line = refused(
        run(tmp_path / "normal.txt", "--file", table), capsys, "pyarrow is not installed"
    )
    assert "pip install -r requirements-data.txt" in line


# ---- the hub


def parquet_bytes(rows, folder):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "x.parquet", row_group_size=50)
    return (folder / "x.parquet").read_bytes()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with InternVid and a dataset of somebody else's, which this process takes for the real
    one: its libraries read HF_ENDPOINT when they are imported."""
    import datasets
    import huggingface_hub

    own = [{"text": f"a cat number {row} sleeps", "n": row} for row in range(100)]
    hub = hub_server.Hub(
        {
            f"{REPOSITORY}/README.md": CARD,
            f"{REPOSITORY}/InternVid-10M-flt.jsonl": json_lines(meta()),
            "datasets/own/cats/data.parquet": parquet_bytes(own, tmp_path),
            "datasets/own/bad/data.jsonl": json_lines(meta(30)) + b'{"Caption": \n',
            "datasets/own/none/README.md": b"# nothing\n",
        }
    )
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(datasets.config, "STREAMING_READ_RETRY_INTERVAL", 0)
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)
    yield hub
    hub.close()


def test_prompts_of_the_hub(hub, file, tmp_path):
    """The same as of the file; a connection that breaks half way is taken up again."""
    here, there = tmp_path / "here.txt", tmp_path / "there.txt"
    assert run(here, "--file", file) == 0
    hub.faults["flt.jsonl"] = "cut"
    assert run(there) == 0 and not hub.faults
    assert here.read_bytes() == there.read_bytes()
    about = load_yaml(tmp_path / "there.yaml")["dataset"]
    assert about["revision"] == hub_server.COMMIT and about["licence"] == "CC BY-NC-SA 4.0"
    assert hub.tokens == {"Bearer hf_secret"}  # and it never left the hub, see hub_server
    hub.files.clear()
    assert run(there) == 0  # the hub is not even asked


def test_another_dataset(hub, tmp_path, capsys, monkeypatch):
    out = tmp_path / "cats.txt"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "cats").mkdir(parents=True)
    refused(run(out, "--column", "text", what="own/cats"), capsys, "a folder of this name lies")
    (tmp_path / "own" / "cats").rmdir()
    refused(run(out, what="own/cats"), capsys, "--column is needed")
    assert run(out, "--column", "text", what="own/cats") == 0
    assert len(set(out.read_text().splitlines())) == 20
    assert load_yaml(tmp_path / "cats.yaml")["dataset"]["licence"] == "not known"


@pytest.mark.parametrize(
    "fault, what, flags, said",
    [
        ({"flt.jsonl": "gated"}, "internvid", (), "access is gated"),
        ({REPOSITORY: "private"}, "internvid", (), "HF_TOKEN"),
        ({"flt.jsonl": "500"}, "internvid", (), "row 0: http"),
        ({}, "internvid", ("--subset", "All"), "InternVid-10M"),
        ({}, "internvid", ("--split", "DIV"), "FLT"),
        ({}, "internvid", ("--revision", "v9"), "no such revision"),
        ({}, "own/gone", ("--column", "text"), "no such repository"),
        ({}, "own/cats", ("--column", "txt"), "no column 'txt' (--column); there are text, n"),
        ({}, "own/bad", ("--column", "Caption"), "datasets cannot read it"),
        ({}, "own/none", ("--column", "Caption"), "own/none"),
        ("closed", "internvid", (), "is not reached"),
        ("offline", "internvid", (), "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    hub, tmp_path, capsys, monkeypatch, fault, what, flags, said
):
    hub.revisions = {"main"}
    if fault == "closed":
        hub.close()
    elif fault == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        hub.faults = dict(fault)
    refused(run(tmp_path / "normal.txt", *flags, what=what), capsys, said)
    assert not list(tmp_path.glob("normal*")) and not list(tmp_path.glob(".normal*"))


def test_a_stopped_run_leaves_nothing_and_begins_again(hub, tmp_path):
    """In a process of its own: the libraries read the environment when they are imported."""
    out = tmp_path / "normal.txt"
    hub.faults["flt.jsonl"] = "stall"
    names = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "--what", "internvid", "--count", "20", "--out", out],
        env={**names, **settings},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not hub.bodies[f"{REPOSITORY}/InternVid-10M-flt.jsonl"] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "run the same command again" in error
    assert "Traceback" not in error and not list(tmp_path.glob("*normal*"))
    hub.resume.set()
    hub.faults.clear()
    assert run(out) == 0 and len(out.read_text().splitlines()) == 20
