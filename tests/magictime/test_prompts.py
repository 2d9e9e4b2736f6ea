"""Every source of prompts, as a user gives it: text file, CSV, JSON, the YAML's list, --human."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from lvd.errors import InputError
from lvd.utils.processes import one_thread
from lvd.x0.file import open_x0_file
from MagicTime.utils import prompt_tables, prompts
from MagicTime.utils.config import SamplingSettings, read_config
from MagicTime.utils.prompt import MAX_FILE, Prompt
from MagicTime.utils.sampling_plan import make_plan
from tests.worlds import forked, magictime_world
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import command, sample

SCRIPT = magictime_world.ROOT / "MagicTime" / "inference_magictime.py"
EXAMPLES = magictime_world.ROOT / "MagicTime" / "sample_configs" / "examples"
CSV = 'videoid,page,name\nv.1,x,"a red, big square"\nZ 2,,two dots\n0003,y,a wave\n'
ITEMS = [
    {"caption": "two dots", "video_id": "video7", "sen_id": 12, "more": 1},
    {"caption": " a wave\nat sea ", "video_id": 7, "sen_id": "b"},
]


@pytest.fixture(scope="module")
def from_csv(world, tmp_path_factory):
    """(folder, config, CSV) of a finished run of three named prompts."""
    folder = tmp_path_factory.mktemp("csv")
    config = magictime_world.write_config(folder / "c.yaml", world[0], steps=2)
    (folder / "p.csv").write_text(CSV)
    assert sample(config, folder / "out", "--run-csv", folder / "p.csv", "--filmstrips", 1) == 0
    return folder / "out", config, folder / "p.csv"


# ---- CSV and JSON runs


def test_a_csv_run_is_in_file_order_under_its_own_names(from_csv):
    out, _, _ = from_csv
    assert sorted(p.name for p in (out / "videos").iterdir()) == ["0003.mp4", "Z 2.mp4", "v.1.mp4"]
    assert [p.name for p in (out / "filmstrips").iterdir()] == ["v.1.png"]
    x0 = open_x0_file(out / "pred_x0.pth")
    assert x0.rows == [0, 1, 2]
    assert [(i["prompt"], i["seed"], i["video"]) for i in x0.info.values()] == [
        ("a red, big square", 7, "v.1"),
        ("two dots", 8, "Z 2"),
        ("a wave", 9, "0003"),
    ]


def test_a_row_is_what_the_yaml_list_gives_for_that_prompt(from_csv, world, tmp_path):
    """The source changes names only: same prompts, same rows, same bytes."""
    out, _, _ = from_csv
    config = magictime_world.write_config(
        tmp_path / "c.yaml", world[0], steps=2, prompt=["a red, big square", "two dots", "a wave"]
    )
    assert sample(config, tmp_path / "out") == 0
    assert (tmp_path / "out" / "pred_x0.pth").read_bytes() == (out / "pred_x0.pth").read_bytes()
    assert (tmp_path / "out" / "videos" / "0000.mp4").read_bytes() == (
        out / "videos" / "v.1.mp4"
    ).read_bytes()


def test_a_csv_run_goes_on_and_a_repeat_makes_nothing(from_csv, tmp_path, capsys):
    out, config, path = from_csv
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "videos" / "Z 2.mp4").unlink()
    assert sample(config, copy, "--run-csv", path) == 0
    assert "1 new, 3 of 3" in capsys.readouterr().out
    assert (copy / "videos" / "Z 2.mp4").read_bytes() == (out / "videos" / "Z 2.mp4").read_bytes()
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}
    assert sample(config, copy, "--run-csv", path) == 0
    assert "0 new, 3 of 3" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()} == before


def test_renamed_videos_do_not_mix_with_those_that_are_there(from_csv, tmp_path, capsys):
    out, config, _ = from_csv
    (tmp_path / "p.csv").write_text(CSV.replace("v.1", "v.9"))
    said = refused(sample(config, out, "--run-csv", tmp_path / "p.csv"), capsys)
    assert "was recorded with video name 'v.1', now it is 'v.9'" in said


def test_a_json_run(world, tmp_path):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], steps=1, format="gif")
    (tmp_path / "p.json").write_text(json.dumps(ITEMS))
    assert sample(config, tmp_path / "out", "--run-json", tmp_path / "p.json") == 0
    assert sorted(p.name for p in (tmp_path / "out" / "videos").iterdir()) == [
        "7-b.gif",
        "video7-12.gif",
    ]
    info = open_x0_file(tmp_path / "out" / "pred_x0.pth").info
    assert [(info[row]["prompt"], info[row]["video"]) for row in (0, 1)] == [
        ("two dots", "video7-12"),
        ("a wave at sea", "7-b"),
    ]


# ---- reading


def test_json_in_msrvtts_layout(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({"info": {}, "videos": [], "sentences": ITEMS}))
    assert prompt_tables.read_json(tmp_path / "p.json") == [
        Prompt("two dots", "video7-12"),
        Prompt("a wave at sea", "7-b"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "name,videoid\nab,x\n",
        "\ufeffname,videoid\r\nab,x\r\n\r\n",
        ' videoid , name\n x , "ab"',
        "i,name,videoid\n0, ab ,x",
        '"name","videoid"\n"ab","x"\n',
    ],
)
def test_good_csv(tmp_path, text):
    (tmp_path / "p.csv").write_bytes(text.encode())
    assert prompt_tables.read_csv(tmp_path / "p.csv") == [Prompt("ab", "x")]


def test_the_flag_wins_over_file_path_and_that_over_the_list(tmp_path):
    (tmp_path / "p.csv").write_text(CSV)
    (tmp_path / "p.json").write_text(json.dumps(ITEMS))
    (tmp_path / "p.txt").write_text("from the file\n")
    settings = SamplingSettings(file_path=str(tmp_path / "p.txt"), prompt="from the list")
    assert prompts.read_source(settings, "c.yaml", run_csv=tmp_path / "p.csv")[1] == Prompt(
        "two dots", "Z 2"
    )
    assert prompts.read_source(settings, "c.yaml", run_json=tmp_path / "p.json")[0] == Prompt(
        "two dots", "video7-12"
    )
    assert prompts.read_source(settings, "c.yaml") == [Prompt("from the file", "0000")]
    settings.file_path = ""
    assert prompts.read_source(settings, "c.yaml") == [Prompt("from the list", "0000")]


def test_the_digest_tells_texts_order_and_names_apart():
    base = [Prompt("a", "0000"), Prompt("b", "0001")]
    others = [
        base[::-1],
        base[:1],
        [Prompt("a", "x"), base[1]],
        [Prompt("ab", "0000"), Prompt("", "0001")],
    ]
    assert len({prompts.digest(p) for p in [base, *others]}) == 5
    assert prompts.digest(base) == prompts.digest(prompts.numbered(["a", "b"]))


def test_the_shipped_examples_are_the_first_normal_prompts():
    normal = prompts.read_prompts(
        magictime_world.ROOT / "MagicTime" / "ckpts" / "Tiny" / "prompts" / "normal.txt"
    )[:4]
    table, listed = (
        prompt_tables.read_csv(EXAMPLES / "normal.csv"),
        prompt_tables.read_json(EXAMPLES / "normal.json"),
    )
    assert [p.text for p in table] == [p.text for p in listed] == normal
    assert [p.name for p in listed] == ["snow-0", "sea-0", "sea-1", "sea-2"] and table[
        0
    ].name == "snow_circle"


# ---- bad input

HEAD = "name,videoid\n"


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "empty, a header"),
        ("name;videoid\na;b", "'name' is missing from the header (name;videoid)"),
        ("name,id\na,b", "'videoid' is missing"),
        ("name,name,videoid\na,b,c", "'name' stands twice"),
        (HEAD, "no prompts"),
        (HEAD + "a,b,c", "line 2 has 3 columns"),
        (HEAD + "a", "line 2 has 1 columns"),
        (HEAD + "\na,b", "line 2 is blank"),
        (HEAD + '"a\nb",c\n ,d', "line 4, column 'name': blank"),
        (HEAD + "a,", "line 2, column 'videoid': blank"),
        (HEAD + 'a,b\n"c,d', "line 3: not valid CSV"),
        (HEAD + '"a"b,c', "line 2: not valid CSV"),
        (HEAD + "a,../b", "line 2, column 'videoid': '../b'"),
        (HEAD + "a,b/c", "'b/c'"),
        (HEAD + "a,b\\c", "cannot be"),
        (HEAD + "a,.", "'.' cannot be"),
        (HEAD + "a,.hidden", "'.hidden'"),
        (HEAD + "a,b\x07", "U+0007"),
        (HEAD + "a\0b,c", "line 2, column 'name': holds the character U+0000"),
        (HEAD + "a," + "é" * 101, "has 202 bytes"),
        (
            HEAD + "a,v1\nb,v2\nc,V1",
            "line 4, column 'videoid': the video's name 'V1' is that of line 2",
        ),
        (HEAD + "a,e\u0301\nb,\u00e9", "line 3"),
        (HEAD + "a" * 200_000 + ",b", "line 2: not valid CSV"),
    ],
)
def test_bad_csv(tmp_path, text, said):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError) as error:
        prompt_tables.read_csv(tmp_path / "p.csv")
    assert said in str(error.value) and "p.csv" in str(error.value) and "\n" not in str(error.value)


def changed(**change):
    return [ITEMS[0], {k: v for k, v in (ITEMS[1] | change).items() if v is not ...}]


@pytest.mark.parametrize(
    "content, said",
    [
        ({"a": 1}, "a list of objects"),
        ("text", "a list of objects"),
        ([], "no prompts"),
        ([1], "item 0 (from 0)"),
        (changed(caption=...), "item 1 (from 0), key 'caption': a text is needed, it is missing"),
        (changed(caption=3), "key 'caption': a text is needed, found 3"),
        (changed(caption=" \n"), "item 1 (from 0), key 'caption'"),
        (changed(caption="a\ud800"), "U+D800"),
        (changed(video_id=...), "key 'video_id'"),
        (changed(video_id=""), "blank"),
        (changed(video_id="../v"), "'../v-b' cannot be"),
        (changed(sen_id=1.5), "key 'sen_id'"),
        (changed(sen_id=True), "True"),
        (changed(sen_id=None), "key 'sen_id'"),
        (changed(video_id="VIDEO7", sen_id="12"), "'VIDEO7-12' is that of item 0"),
    ],
)
def test_bad_json(tmp_path, content, said):
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        prompt_tables.read_json(tmp_path / "p.json")
    assert (
        said in str(error.value) and "p.json" in str(error.value) and "\n" not in str(error.value)
    )


def test_bad_sources_are_one_line_and_leave_no_folder(world, tmp_path, capsys):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    files = {
        "p.csv": b"name,videoid\na,../up\n",
        "b.csv": b"name,videoid\n\xff,b\n",
        "p.json": b"[" * 100_000,
        "p.txt": b"a\0b\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with open(tmp_path / "huge.txt", "wb") as f:
        f.truncate(MAX_FILE + 1)
    for flag, name, said in (
        ("--run-csv", "p.csv", "'../up'"),
        ("--run-csv", "b.csv", "UTF-8"),
        ("--run-csv", "none.csv", "no such file"),
        ("--run-json", "p.json", "not valid JSON"),
        ("--run-json", "huge.txt", "64 MiB"),
        ("--file_path", "huge.txt", "64 MiB"),
        ("--file_path", "p.txt", "line 1: holds the character U+0000"),
    ):
        message = refused(sample(config, tmp_path / "out", flag, tmp_path / name), capsys)
        assert said in message and name in message
    both = ("--run-csv", tmp_path / "p.csv", "--file_path", tmp_path / "p.txt")
    assert "--run-csv" in refused(sample(config, tmp_path / "out", *both), capsys)
    assert not (tmp_path / "out").exists()


# ---- --human


def start(config, out, *flags):
    """A session of the script, whose keyboard is a pipe."""
    return forked.start(SCRIPT, *command(config, out, "--human", *flags))


def told(config, out, typed, *flags):
    """(exit status, stdout, stderr) after typing `typed`."""
    process = start(config, out, *flags)
    process.stdin.write(typed)
    shown, errors = process.communicate()
    return process.returncode, shown, errors


def told_by_an_interpreter(config, out, typed):
    """As `told`, of a process that is no fork: its interpreter decodes what is typed."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *command(config, out, "--human")],
        input=typed,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"},
        timeout=120,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.slow
def test_a_session_and_its_continuation(world, tmp_path):
    """Each prompt has a folder that a run of that prompt alone would have made; blank lines and the
    end of input end."""
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], steps=2)
    out = tmp_path / "out"
    code, shown, _ = told(config, out, "two dots\nä wave that is far too long\n\nnever\n".encode())
    assert code == 0 and "2 new" in shown
    assert "too long, these words" in shown and f"wrote {out / '0001' / 'videos'}" in shown
    code, shown, _ = told(config, out, b"a wave", "--seed", "30")
    assert code == 0 and sorted(p.name for p in out.iterdir()) == ["0000", "0001", "0002"]
    assert "too long" not in shown
    for number, text, seed in (
        (0, "two dots", 7),
        (1, "ä wave that is far too long", 8),
        (2, "a wave", 32),
    ):
        folder = out / f"{number:04d}"
        x0 = open_x0_file(folder / "pred_x0.pth")
        assert x0.tensor.shape == (1, 2, 4, 4, 4, 4) and x0.rows == [0]
        assert (x0.info[0]["prompt"], x0.info[0]["seed"]) == (text, seed)
        assert (folder / "videos" / "0000.mp4").is_file() and (
            folder / "prompt.txt"
        ).read_text() == text + "\n"
        assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == [seed]
    alone = magictime_world.write_config(
        tmp_path / "alone.yaml", world[0], steps=2, seed=[32], prompt=["a wave"]
    )
    with one_thread():  # as the session: sums of other numbers of threads differ in the last bits
        assert sample(alone, tmp_path / "alone") == 0
    for name in ("pred_x0.pth", "videos/0000.mp4"):
        assert (tmp_path / "alone" / name).read_bytes() == (out / "0002" / name).read_bytes()


@pytest.mark.slow
def test_a_bad_prompt_does_not_end_a_session(world, tmp_path):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], steps=1)
    typed = b"a\0b\n\xff\xfe\na wave\nexit\nnever\n"
    code, shown, errors = told_by_an_interpreter(config, tmp_path / "out", typed)
    assert code == 2 and "1 new" in shown and "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 3 and "U+0000" in lines[0] and "2 of 3 prompts" in lines[2]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["0000"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed, steps", [(b"", 1), (b"a wave\n", 999)], ids=["while asking", "while sampling"]
)
def test_ctrl_c_ends_a_session_and_leaves_nothing_half_made(world, tmp_path, typed, steps):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], steps=steps)
    process = start(config, tmp_path / "out")
    process.stdin.write(typed)
    deadline = time.time() + 100
    while (
        "prompt (" not in process.out.read_text()
        and time.time() < deadline
        and process.poll() is None
    ):
        time.sleep(0.01)
    while (
        typed
        and not (tmp_path / "out" / "0000" / "pred_x0.pth").exists()
        and time.time() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors
    assert not list(tmp_path.glob("out/*"))


def test_what_a_session_needs(world, tmp_path, capsys):
    for change, said in (
        ({"seed": [1, 2], "seed_per_prompt": False}, "seed has 2 entries"),
        ({"n_prompt": ["a", "b"]}, "n_prompt"),
    ):
        config = magictime_world.write_config(tmp_path / "c.yaml", world[0], **change)
        assert said in refused(sample(config, tmp_path / "out", "--human"), capsys)
    (tmp_path / "p.csv").write_text(CSV)
    assert "--human" in refused(
        sample(config, tmp_path / "out", "--human", "--run-csv", tmp_path / "p.csv"), capsys
    )


@pytest.mark.parametrize(
    "text, left",
    [("a dog", ""), ("abcdefghij", ""), ("abcdefghij k", "k"), ("abcdefghij kl m", "kl m")],
)
def test_words_that_the_text_encoder_does_not_see(model, text, left):
    """The world's encoder has 12 places, two of them for the marks of start and end; its tokens are
    single letters."""
    assert prompts.words_cut(model, text) == left


# ---- quotes around prompts


@pytest.mark.parametrize(
    "lines, read, said",
    [
        (['"a cat"', '"a ""big"" dog, red"'], ["a cat", 'a "big" dog, red'], "all 2 lines are in"),
        (["\u201ca cat\u201d", "\u201ea dog\u201c"], ["a cat", "a dog"], "which are taken off"),
        (["'it's red'"], ["it's red"], "its line is in quotes"),
        (['"a cat"', "a dog"], ['"a cat"', "a dog"], "1 of 2 lines are in quotes (line 1), which"),
        (['"stop" says "go"', '"a cat"'], ['"stop" says "go"', '"a cat"'], "1 of 2"),
        (['a "big" cat', '"'], ['a "big" cat', '"'], None),
    ],
)
def test_quotes_around_all_lines_are_taken_off(tmp_path, capsys, lines, read, said):
    path = tmp_path / "p.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert prompts.read_prompts(path) == read
    told = capsys.readouterr().err
    assert (told == "") if said is None else (said in told and len(told.splitlines()) == 1)


def test_a_folder_that_was_sampled_with_the_quotes_keeps_them(tmp_path, capsys):
    """Also when prompts were added; a folder without videos, or of other prompts, does not."""
    path = tmp_path / "p.txt"
    path.write_text('"a cat"\n"a dog"\n"a cow"\n')
    found = prompts.read_text_file(path)
    assert [prompt.text for prompt in found] == ["a cat", "a dog", "a cow"]
    quoted = prompts.numbered(['"a cat"', '"a dog"', '"a cow"'])
    for count in (2, 3):
        before = {"prompts": count, "prompts_sha256": prompts.digest(quoted[:count])}
        assert prompts.as_recorded(found, before) == quoted
        assert "they stay on" in capsys.readouterr().err
    for before in ({}, {"prompts": 3, "prompts_sha256": prompts.digest(found)}):
        assert prompts.as_recorded(found, before) is found


def test_a_run_with_quotes_from_before_goes_on(world, tmp_path):
    config = read_config(magictime_world.write_config(tmp_path / "c.yaml", world[0], steps=2))
    (tmp_path / "p.txt").write_text('"two dots"\n"a wave"\n')
    quoted = prompts.numbered(['"two dots"', '"a wave"'])
    device = torch.device("cpu")
    plan = make_plan(config, quoted, tmp_path / "out", device)
    plan.folder.claim(plan.identity)
    found = prompts.read_text_file(tmp_path / "p.txt")
    assert make_plan(config, found, tmp_path / "out", device).prompts == quoted
    assert make_plan(config, found, tmp_path / "new", device).prompts == found
