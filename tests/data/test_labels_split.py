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
    torch.save([4, 2], tmp_path / "old.pth")
    assert (
        load_split(tmp_path / "old.pth").unsafe == [4, 2]
        and load_split(tmp_path / "old.pth").normal == []
    )


@pytest.mark.parametrize(
    "content, named",
    [
        ({"unsafe": [1]}, "not an evaluation split"),
        ({"unsafe": [1, 1], "normal": []}, "'unsafe' must be"),
        ({"unsafe": [1], "normal": [-1]}, "'normal' must be"),
        ({"unsafe": [], "normal": [1]}, "no unsafe rows"),
        (7, "not an evaluation"),
        ({"unsafe": [1.5], "normal": []}, "'unsafe' must be"),
        ({"unsafe": [1], "normal": [], "odd": 1}, "not an evaluation split"),
    ],
)
def test_bad_eval_files_are_named(tmp_path, content, named):
    torch.save(content, tmp_path / "eval.pth")
    with pytest.raises(InputError, match=named):
        load_split(tmp_path)


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
