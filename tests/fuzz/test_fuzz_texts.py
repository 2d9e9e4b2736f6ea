"""Label files, prompt files and words after the flags, as texts that hypothesis thinks up.

What is accepted is compared with a plain reading of the same text.
"""

import csv
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
from MagicTime.utils.prompts import read_csv, read_json, read_prompts
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


@st.composite
def tables(draw):
    """A label file: a header and lines, most of them of its length."""
    names = draw(st.lists(words, min_size=1, max_size=4))
    table = [",".join(names)]
    for _ in range(draw(st.integers(0, 6))):
        line = st.lists(cells, min_size=len(names), max_size=len(names)).map(",".join)
        table.append(draw(st.one_of(line, line, line, lines)))
    return draw(ends).join(table)


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
        table = [line for line in csv.reader(text.splitlines()) if any(map(str.strip, line))]
        columns = [[cell.strip() for cell in column if cell.strip()] for column in zip(*table[1:])]
        assert [[int(float(cell)) for cell in column] for column in columns] == labels.columns
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
