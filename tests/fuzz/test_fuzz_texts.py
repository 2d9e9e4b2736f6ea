"""Label files, prompt files and words after the flags, as texts that hypothesis thinks up.

What is accepted is compared with a plain reading of the same text.
"""

import csv
import io
import json
import string
from argparse import Namespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvd.data.config import read_data_config
from lvd.data.labels import read_labels
from lvd.errors import InputError
from lvd.training.recipes import read_settings
from lvd.utils.config import parse_overrides
from MagicTime.utils.prompt_tables import read_csv, read_json
from MagicTime.utils.prompts import read_prompts
from tests.fuzz import shapes
from tests.fuzz.oracle import TIMES, append_to_report, fault, run_loader

ROWS = 10
EXAMPLES = 100  # of each test


def examples(function):
    """Deterministic, without a database of examples, and without a clock of its own."""
    return settings(
        max_examples=EXAMPLES * TIMES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )(function)


texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)
words = st.text(alphabet=string.ascii_letters + string.digits + " _-.", min_size=1, max_size=12)
rows = st.integers(-2, 12).map(str)
odd_rows = st.sampled_from(
    [
        "",
        " ",
        "1.0",
        "01",
        "1e1",
        "٣",
        "9" * 30,
        "9" * 5000,
        "nan",
        "-0",
        "+1",
        "x" * 3000,
        '"',
        "1\t",
    ]
)
cells = st.one_of(rows, rows, rows, odd_rows, texts)
lines = st.lists(cells, min_size=1, max_size=4).map(",".join)
OTHER_ENDS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # of lines, to some readers
ends = st.sampled_from(["\n", "\n", "\r\n", "\n\n", "\r", *OTHER_ENDS])


SEPARATORS = ",;\t"
headers = st.one_of(words, words, words, st.sampled_from(["notes", "Comment", "", "a;b", '"a;b"']))


@st.composite
def tables(draw):
    """A label file: a header and lines, most of them of its length."""
    names = draw(st.lists(headers, min_size=1, max_size=4))
    separator = draw(st.sampled_from("," + SEPARATORS))
    end = draw(st.sampled_from(["", "", separator, separator * 2]))
    table = [separator.join(names) + draw(st.sampled_from(["", end]))]
    for _ in range(draw(st.integers(0, 6))):
        line = st.lists(cells, min_size=len(names), max_size=len(names)).map(separator.join)
        table.append(draw(st.one_of(line, line, line, lines)) + end)
    return draw(ends).join(table)


VIDEOS = [None, None, "cat", "dog.run", "cat.mp4", "7", None, "a b", None, None]  # of ROWS videos
long_headers = st.permutations(["video", "category", "rater"]).map(list)
names_of_videos = st.sampled_from(["0001.mp4", "x/dog.run.mp4", "a b", "7", "cat", "0009", "1.0"])
categories = st.sampled_from(["red", "blue", "Red", "none", "1", "2", "a,b", "", "safe", "x y"])


@st.composite
def long_tables(draw):
    """A label file with a video and its category on each line."""
    header = draw(long_headers)[: draw(st.sampled_from([2, 3, 3]))]
    names = [
        draw(st.sampled_from([name, name.upper(), "row" if name == "video" else name]))
        for name in header
    ]
    table = [names]
    for _ in range(draw(st.integers(0, 6))):
        video = draw(st.one_of(names_of_videos, names_of_videos, rows, cells))
        values = {"video": video, "category": draw(categories), "rater": draw(texts)}
        table.append([values[name] for name in header])
    file = io.StringIO()
    csv.writer(file, delimiter=draw(st.sampled_from(SEPARATORS))).writerows(table)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


seen = []  # a mark for each example of the running test


@pytest.fixture(autouse=True)
def reported(request):
    """Append the number of examples of a test to the report, and whether it failed."""
    seen.clear()
    failed = request.session.testsfailed
    yield
    kind = request.node.name.removeprefix("test_").replace("_", " ")
    faults = request.session.testsfailed - failed
    if seen:
        append_to_report([(f"texts: {kind}", f"{len(seen)} cases", f"{faults} faults")])


def check(load, path, *names):
    """Run a loader; returns what it read, None where it refused the file in good order."""
    seen.append(1)
    outcome = run_loader(load)
    outcome.err = outcome.err.replace(str(path.parent), "~")
    found = fault(outcome, [(path.name, *names)])
    assert found is None, found
    return outcome.value if outcome.status == 0 else None


@examples
@given(text=st.one_of(tables(), tables(), tables(), texts))
def test_label_files(folder, text):
    path = folder / "label.csv"
    path.write_bytes(text.encode())
    labels = check(lambda: read_labels(path, ROWS), path)
    if labels is None:
        return
    if not set(text) & set(OTHER_ENDS):
        assert labels.columns in [plain_columns(text, separator) for separator in SEPARATORS]
    need_labels(labels)


def plain_columns(text, separator):
    """The columns of a wide label file, without those of notes; None where it is none."""
    lines = csv.reader(text.removeprefix("\ufeff").splitlines(), delimiter=separator)
    header, *table = [
        [cell.strip() for cell in line] for line in lines if any(map(str.strip, line))
    ]
    columns = [[line[k] for line in table if k < len(line)] for k in range(len(header))]
    columns = [[cell for cell in column if cell] for column in columns]
    kept = [(name, column) for name, column in zip(header, columns) if name or column]
    kept = [column for name, column in kept if name.casefold() not in ("notes", "comment")]
    try:
        return [[int(float(cell)) for cell in column] for column in kept]
    except ValueError:
        return None


@examples
@given(text=long_tables(), named=st.booleans())
def test_label_files_by_video(folder, text, named):
    path = folder / "label.csv"
    path.write_bytes(text.encode())
    labels = check(lambda: read_labels(path, ROWS, VIDEOS if named else None), path)
    if labels is None:
        return
    need_labels(labels)
    mark = next(mark for mark in SEPARATORS if mark in text.splitlines()[0])
    header, *table = [line for line in csv.reader(text.splitlines(), delimiter=mark) if line]
    place = [name.casefold() for name in header].index("category")
    said = [line[place].strip() for line in table if any(map(str.strip, line))]
    wanted = [name for name in said if name not in ("none", "safe")]
    assert sum(map(len, labels.columns)) == len(wanted)
    counts = {name: wanted.count(name) for name in wanted}
    found = dict(zip(labels.categories, map(len, labels.columns), strict=True))
    assert found == {f"group{k}" if k.isdecimal() else k: n for k, n in counts.items()}


def need_labels(labels):
    assert all(map(shapes.name, labels.categories))
    assert all(0 <= row < ROWS for column in labels.columns for row in column)
    assert all(len(set(column)) == len(column) for column in labels.columns)


@examples
@given(text=st.one_of(st.lists(texts, max_size=5).map("\n".join), texts))
def test_prompt_files(folder, text):
    path = folder / "prompts.txt"
    path.write_bytes(text.encode())
    prompts = check(lambda: read_prompts(path), path)
    if prompts is not None:
        assert len(prompts) == len(text.removeprefix("\ufeff").rstrip("\r\n").split("\n"))
        assert all(prompt.strip() and "\n" not in prompt for prompt in prompts)


@examples
@given(
    header=st.sampled_from(["name,videoid", "videoid,name,other", " name , videoid", "name", ""]),
    table=st.lists(st.lists(texts, min_size=1, max_size=3), max_size=4),
)
def test_prompt_tables(folder, header, table):
    path = folder / "prompts.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(table)
    prompts = check(lambda: read_csv(path), path)
    if prompts is not None:
        names = [prompt.name for prompt in prompts]
        assert len(set(map(str.casefold, names))) == len(names)
        assert not any("/" in name or name.startswith(".") for name in names)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
captions = st.fixed_dictionaries(
    {},
    optional={
        "caption": st.one_of(words, words, json_values),
        "video_id": st.one_of(words, st.integers(), json_values),
        "sen_id": st.one_of(st.integers(0, 99), json_values),
    },
)


@examples
@given(content=st.one_of(st.lists(captions, max_size=4), json_values))
def test_prompt_lists(folder, content):
    path = folder / "prompts.json"
    path.write_text(json.dumps(content))
    prompts = check(lambda: read_json(path), path)
    if prompts is not None:
        assert all(prompt.text.strip() and prompt.name for prompt in prompts)


keys = st.sampled_from(
    [
        "lr",
        "epoch",
        "seed",
        "size",
        "flip",
        "pred_x0",
        "out_dir",
        "representation",
        "shared.lr",
        "a",
    ]
)
values = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    json_values.map(json.dumps),
    texts,
    st.sampled_from(["[", "{", "&a [*a]", "!!python/object:os.system", "${seed}", "9" * 5000, "~"]),
)


@examples
@given(key=keys, value=values)
def test_words_after_the_flags(folder, key, value):
    word = f"{key}={value}"
    config = folder / "build_x0.yaml"
    config.write_text("{}")
    named = (word[:20].strip(), key.split(".")[-1], "key=value", "flag")
    args = Namespace(overrides=[word])
    check(lambda: parse_overrides([word]), config, *named)
    check(lambda: read_data_config(config, args), config, *named)
    for kind in ("grid", "shared", "pretrain"):
        read = check(lambda kind=kind: read_settings(None, args, kind), config, *named)
        assert read is None or read.lr > 0


def test_the_loaders_refuse_by_input_errors(folder):
    """What `check` takes for a refusal is one."""
    with pytest.raises(InputError):
        read_labels(folder / "missing.csv")
