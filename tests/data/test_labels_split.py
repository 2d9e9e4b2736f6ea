"""Label files and the held-out split: what is read, what is drawn, what is refused; and the tiny
world's own prompts."""

import random
import re
from pathlib import Path

import pytest
import torch

from lvd.data.labels import Labels, read_labels
from lvd.data.split import load_split, make_split, save_split
from lvd.errors import InputError
from lvd.utils.cli import parse_numbers

ROOT = Path(__file__).resolve().parents[2]
PAPER_FORMS = ROOT / "tests" / "paper_forms"


def write(tmp_path, text):
    path = tmp_path / "label.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_are_groups_and_rows_may_stand_in_several(tmp_path):
    labels = read_labels(write(tmp_path, "weird, gory\r\n0,7\r\n7,\r\n12.0,3\r\n\r\n"), rows=13)
    assert labels.categories == ["weird", "gory"]
    assert labels.columns == [[0, 7, 12], [7, 3]]
    assert labels.rows() == [0, 3, 7, 12]
    assert (
        labels.groups_of(7) == [1, 2] and labels.groups_of(3) == [2] and labels.groups_of(5) == []
    )


def test_the_papers_label_file_is_read_as_it_is():
    labels = read_labels(PAPER_FORMS / "label.csv", rows=11)
    assert labels.categories == ["group1", "group2", "group3", "group4", "group5"]
    assert labels.columns == [[0, 3, 7], [1, 4, 8, 9], [2, 3], [5, 10], [6]]


def test_a_header_of_numbers_says_which_group_a_column_is(tmp_path):
    labels = read_labels(write(tmp_path, " 3,1,2\n7.0,8,9\n,0,\n"))
    assert labels.categories == ["group1", "group2", "group3"]
    assert labels.columns == [[8, 0], [9], [7]]
    alone = read_labels(write(tmp_path, "1\n2\n"))
    assert alone.categories == ["group1"] and alone.columns == [[2]]


def test_a_folder_stands_for_its_one_label_file(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    with pytest.raises(InputError, match="labels: a folder with one label file .* it has 0"):
        read_labels(folder)
    (folder / "readme.txt").write_text("")
    (folder / "Some.CSV").write_text("a\n3\n")
    labels = read_labels(folder)
    assert labels.path == folder / "Some.CSV" and labels.columns == [[3]]
    (folder / "other.csv").write_text("a\n4\n")
    with pytest.raises(InputError, match="it has 2 .Some.CSV, other.csv.; name the file"):
        read_labels(folder)


def test_a_hundred_thousand_rows(tmp_path):
    """Each row is looked up in a set: a list would take minutes here."""
    rows = range(100_000)
    text = "a,b\n" + "".join(f"{row},{row + 1}.0\n" for row in rows)
    labels = read_labels(write(tmp_path, text), rows=100_001)
    assert labels.columns == [list(rows), list(range(1, 100_001))]
    assert [labels.groups_of(row) for row in (0, 1, 100_000)] == [[1], [1, 2], [2]]
    assert sum(len(labels.groups_of(row)) for row in labels.rows()) == 200_000
    with pytest.raises(InputError, match="line 100002, column 'b': 7 stands twice"):
        read_labels(write(tmp_path, text + ",7\n"))


@pytest.mark.parametrize(
    "text, named",
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("a,b\n1,x\n", "line 2, column 'b': 'x' is not a row index"),
        ("a,b\n1,2.5\n", "'2.5' is not a row index"),
        ("a\n1e3\n", "'1e3' is not"),
        ("a\n" + "9" * 5000 + "\n", "is not a row index"),
        ("a,b\n1,-2\n", "line 2, column 'b': -2 is negative"),
        ("a,b\n1,2\n20,3\n", "line 3, column 'a': 20 is out of range"),
        ("a,b\n1,2\n3,2\n", "line 3, column 'b': 2 stands twice"),
        ("a,b\n1,\n2,\n", "column 'b' is empty"),
        ("a,b\n", "column 'a' is empty"),
        ("0,1\n2,3\n", "no header"),
        ("1,3\n2,3\n", "no header"),
        ("1,1\n2,3\n", "no header"),
        ("1.0,2.0\n2,3\n", "no header"),
        ("a\n9999999999\n", "is not a row index"),
        ("a,\n1,2\n", "column 2 has no name"),
        ("a,a\n1,2\n", "two columns are named 'a'"),
        ("a,b\n1\n", "line 2 has 1 cells, the header has 2"),
        ("a,b\n1,2,3\n", "line 2 has 3 cells"),
        (b"a,\xff\n1,2\n", "not UTF-8"),
        ('a,b\n"1,2\n', "not a CSV"),
    ],
)
def test_bad_label_files_are_named(tmp_path, text, named):
    with pytest.raises(InputError, match=re.escape(named)) as error:
        read_labels(write(tmp_path, text), rows=20)
    assert "\n" not in str(error.value) and "label.csv" in str(error.value)


def random_labels(seed=0, rows=300, sizes=(60, 50, 40, 20, 5)):
    draw = random.Random(seed)
    return Labels(
        Path("label.csv"),
        list("abcde")[: len(sizes)],
        [draw.sample(range(rows), size) for size in sizes],
    )


def test_split_follows_the_released_rule():
    """Walk the columns 5, 2, 1, 3, 4; of each, 20% (at least one) of what is not held out yet."""
    labels = random_labels()
    split = make_split(labels, list(range(300)), 0.2, seed=5)
    held, left = set(split.unsafe), set(split.unsafe)
    assert split.unsafe == sorted(held) and held <= set(labels.rows())
    counts, taken = [], set()
    for group in (5, 2, 1, 3, 4):
        # what this column drew is not known from outside; replay it with the same seeded draw
        free = sorted(set(labels.columns[group - 1]) - taken)
        counts.append(max(1, len(free) * 2 // 10))
        drawn = random.Random(f"5/group{group}").sample(free, counts[-1])
        assert set(drawn) <= left
        left -= set(drawn)
        taken |= set(drawn)
    assert not left and sum(counts) == len(held) and counts[0] == 1


@pytest.mark.parametrize("fraction, held_out", [(0.1, 10), (0.29, 29), (0.3, 30), (0.001, 1)])
def test_the_fraction_is_exact_and_at_least_one(fraction, held_out):
    labels = Labels(Path("l"), ["a"], [list(range(100))])
    assert len(make_split(labels, list(range(100)), fraction).unsafe) == held_out


def test_normal_rows_balance_but_never_exceed_half():
    labels = random_labels()
    many, few = (make_split(labels, list(range(n)), 0.2, seed=1) for n in (300, 31))
    assert len(many.normal) == len(many.unsafe) and set(many.normal) <= set(range(300))
    assert len(few.normal) == 15 and len(set(few.normal)) == 15
    assert set(make_split(labels, [7, 11, 90], 0.2).normal) <= {7, 11, 90}


def test_seeds_decide_and_nothing_else():
    one, same, other = (
        make_split(random_labels(), list(range(30)), 0.2, seed) for seed in (1, 1, 2)
    )
    assert one == same and one.unsafe != other.unsafe
    assert len(one.normal) == len(other.normal) == 15 and one.normal != other.normal


def test_other_numbers_of_columns_work():
    labels = random_labels(sizes=(30, 12))
    split = make_split(labels, list(range(50)), 0.2)
    assert all(set(split.unsafe) & set(column) for column in labels.columns)


def test_too_few_videos_are_refused():
    for columns, normal, named in (
        ([[1], [2, 3]], 10, "category 'a' has 1 video"),
        ([[1, 2], [3, 4]], 1, "normal videos: 1 recorded"),
    ):
        with pytest.raises(InputError, match=named):
            make_split(Labels(Path("l"), ["a", "b"], columns), list(range(normal)))
    for fraction in (0, 1, -0.2, float("nan")):
        with pytest.raises(InputError, match="--fraction"):
            make_split(random_labels(), list(range(9)), fraction)


def test_eval_files_come_back_and_the_old_form_is_read(tmp_path):
    split = make_split(random_labels(), list(range(300)), 0.2, label_sha256="ab")
    save_split(split, tmp_path / "eval.pth")
    assert load_split(tmp_path) == load_split(tmp_path / "eval.pth") == split
    plain = torch.load(tmp_path / "eval.pth", weights_only=True)
    assert (
        plain["unsafe"] == split.unsafe
        and plain["normal"] == split.normal
        and plain["seed"] == split.seed
    )
    paper = load_split(PAPER_FORMS / "eval.pth")
    assert paper.unsafe == [6, 4, 0, 2, 10] and paper.normal == []
    assert all(type(row) is int for row in paper.unsafe)
    torch.save([4, 2], tmp_path / "old.pth")
    assert (
        load_split(tmp_path / "old.pth").unsafe == [4, 2]
        and load_split(tmp_path / "old.pth").normal == []
    )


@pytest.mark.parametrize(
    "content, named",
    [
        ({"unsafe": [1]}, "key 'normal' is missing"),
        ({"unsafe": [1, 1], "normal": []}, "unsafe: found [1, 1]; a list of different row indices"),
        ({"unsafe": [1], "normal": [-1]}, "normal.0: found -1;"),
        ({"unsafe": [], "normal": [1]}, "unsafe: found []; at least one row index"),
        (7, "not an evaluation split"),
        (None, "not an evaluation split"),
        ({"unsafe": [1.5], "normal": []}, "unsafe.0: found 1.5;"),
        ({"unsafe": [2.0], "normal": []}, "unsafe.0: found 2.0;"),
        ({"unsafe": [True], "normal": []}, "unsafe.0: found True;"),
        ({"unsafe": [10**12], "normal": []}, "unsafe.0: found 1000000000000;"),
        ({"unsafe": [None], "normal": []}, "unsafe.0: found None;"),
        ({"unsafe": {1: 2}, "normal": []}, "unsafe: found {1: 2};"),
        ({"unsafe": torch.ones(2), "normal": []}, "unsafe: found a tensor of shape [2];"),
        ({"unsafe": [1], "normal": [], "odd": 1}, "unknown key 'odd'"),
        ({"unsafe": [1], "normal": [], "seed": "x"}, "seed: found 'x';"),
        ({"unsafe": [1], "normal": [], "fraction": float("nan")}, "fraction: found nan;"),
        ({"unsafe": [1], "normal": [], "normal_rows": -1}, "normal_rows: found -1;"),
        ({"unsafe": [1], "normal": [], "label_sha256": 3}, "label_sha256: found 3;"),
        ([1.5], "unsafe.0: found 1.5;"),
        ([float("nan")], "unsafe.0: found nan;"),
        ([float("inf")], "unsafe.0: found inf;"),
        ([-1.0], "unsafe.0: found -1;"),
        ([1e300], "unsafe.0: found a number of about 301 digits;"),
        ([3.0, 3], "different row indices"),
        ([], "unsafe: found []; at least one row index"),
        (["1"], "unsafe.0: found '1';"),
    ],
)
def test_bad_eval_files_are_named(tmp_path, content, named):
    torch.save(content, tmp_path / "eval.pth")
    with pytest.raises(InputError, match=re.escape(named)) as error:
        load_split(tmp_path)
    said = str(error.value)
    assert "\n" not in said and len(said) < 300 and "eval.pth" in said


def test_missing_and_truncated_eval_files(tmp_path):
    with pytest.raises(InputError, match="gen_eval_set.py"):
        load_split(tmp_path)
    (tmp_path / "eval.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="not a readable torch file"):
        load_split(tmp_path)


@pytest.mark.parametrize(
    "text, numbers",
    [("3", [3]), ("0,2", [0, 2]), ("1-3", [1, 2, 3]), ("all", [0, 1, 2, 3]), ("0, 2-3", [0, 2, 3])],
)
def test_number_lists(text, numbers):
    assert parse_numbers(text, range(4), "--steps") == numbers


@pytest.mark.parametrize("text", ["4", "-1", "x", "", "1-", "3-1", "2-9", "1,,2", "1.5"])
def test_bad_number_lists_are_named(text):
    with pytest.raises(InputError, match="--steps"):
        parse_numbers(text, range(4), "--steps")


def test_tiny_prompts(tmp_path):
    from MagicTime.prepare_weights.tiny import make_prompts
    from MagicTime.prepare_weights.tiny.world import CATEGORIES, EFFECT_WORDS, GROW_WORDS

    for folder in ("a", "b"):
        assert make_prompts.main(["--out", str(tmp_path / folder)]) == 0
    shipped = ROOT / "MagicTime" / "ckpts" / "Tiny" / "prompts"
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert path.read_bytes() == (shipped / path.name).read_bytes(), path.name
    lines = {p.stem: p.read_text().splitlines() for p in shipped.glob("*.txt")}
    counts = {"unsafe": 200, "normal": 200, "reworded": 60, "reworded_normal": 60}
    assert {name: len(text) for name, text in lines.items()} == counts
    everything = sum(lines.values(), [])
    assert len(set(everything)) == len(everything)
    assert sum(any(word in line for word in GROW_WORDS) for line in lines["normal"]) == 20

    for name, labels, wording in (
        ("unsafe", "label.csv", 0),
        ("reworded", "reworded_label.csv", 1),
    ):
        table = read_labels(shipped / labels, rows=len(lines[name]))
        assert table.categories == list(CATEGORIES) and table.rows() == list(
            range(len(lines[name]))
        )
        for row, line in enumerate(lines[name]):
            said = [
                k
                for k, c in enumerate(CATEGORIES, 1)
                if any(words in line for words in EFFECT_WORDS[c][wording])
            ]
            assert said == table.groups_of(row), line
    assert [len(column) for column in read_labels(shipped / "label.csv").columns] == [46] * 5
    assert (
        sum(len(read_labels(shipped / "label.csv").groups_of(row)) == 2 for row in range(200)) == 30
    )


def test_reworded_prompts_share_no_keyword_with_the_plain_ones():
    from MagicTime.prepare_weights.tiny.world import EFFECT_WORDS

    shipped = ROOT / "MagicTime" / "ckpts" / "Tiny" / "prompts"
    small_words = {"a", "and", "in", "into", "with", "under"}
    keywords = {
        word for plain, _ in EFFECT_WORDS.values() for text in plain for word in text.split()
    } - small_words
    assert {"warped", "stripes", "exploding"} <= keywords
    for name in ("reworded.txt", "reworded_normal.txt", "normal.txt"):
        words = set(re.findall(r"[a-z]+", (shipped / name).read_text()))
        assert not words & keywords
    assert keywords <= set(re.findall(r"[a-z]+", (shipped / "unsafe.txt").read_text()))


def test_prompts_of_another_scale_need_another_folder(tmp_path, capsys):
    from MagicTime.prepare_weights.tiny import make_prompts

    assert make_prompts.main(["--out", str(tmp_path), "--scale", "full"]) == 0
    assert len((tmp_path / "unsafe.txt").read_text().splitlines()) == 800
    assert make_prompts.main(["--out", str(tmp_path)]) == 2
    assert "scale" in capsys.readouterr().err
