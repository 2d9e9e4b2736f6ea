"""Where captions come from: prompts.yaml, a dataset of the hub as a stream, files of this disk.

Rows come one after the other, as {column: value}. Neither the stream nor a file is ever in memory
as a whole.
"""

import gzip
import json
import re
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lvd.errors import InputError, shorten, typed, words_of
from lvd.utils.config import check_keys
from lvd.utils.files import load_yaml, need_file
from lvd.utils.libraries import OF_DATA, import_library

REGISTRY = Path(__file__).with_name("prompts.yaml")
KEYS = ("what", "repository", "subset", "split", "revision", "columns", "licence", "page")
SCORES = ("umt_score", "aesthetic_score")
COLUMNS = ("caption", "id", "start", "end", *SCORES)
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
LONGEST = 1 << 20  # bytes of a line of JSON lines
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
TRIES = 2  # of datasets, each with some 25 s of huggingface_hub's own: then the network is down


@dataclass(frozen=True)
class Dataset:
    """A dataset of captions.

    Attributes:
        name: in prompts.yaml, or the repository's.
        what: it is.
        repository: owner/name on the hub; "" of files without one.
        subset, split: as datasets.load_dataset takes them; None: its only one, or its first.
        revision: branch, tag or commit.
        columns: {what we call a column: what the dataset calls it}.
        licence, page: "not known" where they are not.
    """

    name: str
    what: str = ""
    repository: str = ""
    subset: str | None = None
    split: str | None = "train"
    revision: str = "main"
    columns: dict = field(default_factory=dict)
    licence: str = "not known"
    page: str = "not known"


def read_registry(path=REGISTRY):
    """Read {name: Dataset} of a file like prompts.yaml."""
    entries = load_yaml(path)
    check_keys(entries, entries, (), path)
    found = {}
    for name, entry in entries.items():
        where = f"{path} ({name})"
        check_keys(entry, KEYS, ("repository", "columns", "licence", "page"), where)
        check_keys(entry["columns"], COLUMNS, ("caption",), f"{where}, columns")
        columns = entry["columns"].values()
        texts = [value for key, value in entry.items() if key != "columns" and value is not None]
        if not all(isinstance(text, str) for text in (*texts, *columns)):
            raise InputError(f"{where}: texts are needed for all keys (null for no subset)")
        if not REPOSITORY.fullmatch(entry["repository"]):
            raise InputError(f"{where}: repository={shorten(entry['repository'])}, not owner/name")
        found[name] = Dataset(name, **entry)
    return found


def choose(name, registry, changes, columns):
    """Return the Dataset that --what names: one of the registry, or any of the hub.

    Args:
        name: of --what.
        registry: {name: Dataset}.
        changes: {attribute: value} of flags; None: not given.
        columns: {what we call a column: name}, of flags; None: not given.
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    columns = {key: value for key, value in columns.items() if value is not None}
    known = registry.get(name)
    if known is None and not REPOSITORY.fullmatch(name):
        raise InputError(
            f"--what {name}: one of {', '.join(registry)} is needed, or a dataset of the hub "
            "(owner/name) with --column"
        )
    if known is None and "caption" not in columns:
        raise InputError(f"--what {name}: --column is needed, the name of its column of captions")
    dataset = known or Dataset(
        name, repository=name, page=f"https://huggingface.co/datasets/{name}"
    )
    return replace(dataset, **changes, columns={**dataset.columns, **columns})


def of_files(columns):
    """Return the Dataset of files without --what."""
    return Dataset("files", split=None, columns={k: v for k, v in columns.items() if v is not None})


# ---- the hub


def commit_of(dataset):
    """Ask the hub which commit the dataset's revision is.

    Raises:
        InputError: the hub does not say, or a folder here has the dataset's name: the library
            datasets would read that folder instead.
    """
    if Path(dataset.repository).exists():
        raise InputError(
            f"{dataset.repository}: a folder of this name lies in the current folder, and datasets "
            "would read that; name its files with --file, or run the command elsewhere"
        )
    from MagicTime.prepare_weights import hub

    try:
        return hub.dataset_info(dataset.repository, dataset.revision).sha
    except hub.Unavailable as error:
        raise InputError(
            f"{dataset.repository} @ {dataset.revision}: {error}; see {dataset.page}"
        ) from error


def stream(dataset, commit):
    """Yield the rows of a dataset of the hub, from its first.

    Raises:
        InputError: it cannot be read, or the network is down.
    """
    datasets = import_library("datasets", OF_DATA)
    from huggingface_hub.utils import logging

    # Both libraries would tell of each try; what cannot be read in the end is told in one line.
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    logging.set_verbosity_error()
    datasets.config.STREAMING_READ_MAX_RETRIES = TRIES
    datasets.config.STREAMING_OPEN_MAX_RETRIES = TRIES
    row = 0
    with _explained(dataset, lambda: row):
        found = datasets.load_dataset(
            dataset.repository, dataset.subset, split=dataset.split, streaming=True, revision=commit
        )
        for values in found:
            yield values
            row += 1


@contextmanager
def _explained(dataset, row):
    """Turn what datasets and the libraries below it raise into an InputError of one line."""
    from MagicTime.prepare_weights import hub

    try:
        with hub.translated(), _no_data():
            yield
    except InputError as error:
        raise InputError(f"{dataset.repository}, row {row()}: {error}") from error
    except hub.Unavailable as error:
        raise InputError(f"{dataset.repository}: {error}; see {dataset.page}") from error
    except (GeneratorExit, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # what a library makes of a file that is not what it expects
        raise InputError(
            f"{dataset.repository} (subset {dataset.subset}, split {dataset.split}), row {row()}: "
            f"datasets cannot read it ({words_of(error)})"
        ) from error


@contextmanager
def _no_data():
    """Tell a dataset without files that datasets can read from a hub that is not reached."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"datasets finds nothing to read in it ({words_of(error)})") from error


# ---- files


def rows_of_files(paths):
    """Yield the rows of JSON lines and parquet files, one file after the other."""
    for path in paths:
        yield from (_parquet if path.name.lower().endswith(".parquet") else _json_lines)(path)


def need_files(paths):
    """InputError unless these are files of a kind that is read."""
    for path in paths:
        need_file(path)
        if not path.name.lower().endswith(SUFFIXES):
            raise InputError(f"--file {path}: {', '.join(SUFFIXES)} are read")
        if path.name.lower().endswith(".parquet"):
            import_library("pyarrow.parquet", OF_DATA)


def _json_lines(path):
    number = 0
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
            while line := file.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise InputError(
                        f"{path}: line {number} has more than {LONGEST >> 20} MiB; JSON lines are "
                        "needed, one row a line"
                    )
                if line.strip():
                    yield _object(line, f"{path}: line {number}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged after line {number} ({words_of(error)})") from error


def _object(line, where):
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({words_of(error, 60)}), a row is needed") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: found {typed(row)}; an object with the columns is needed")
    return row


def _parquet(path):
    parquet = import_library("pyarrow.parquet", OF_DATA)
    try:
        with parquet.ParquetFile(path) as file:
            simple = [one.name for one in file.schema_arrow if not _is_large(one.type)]
            for batch in file.iter_batches(batch_size=1024, columns=simple):
                yield from batch.to_pylist()
    except (ValueError, OSError, KeyError, NotImplementedError) as error:  # pyarrow's are these
        raise InputError(f"{path}: not a readable parquet file ({words_of(error)})") from error


def _is_large(kind):
    """Whether a column may hold pictures or videos: they are not read."""
    types = import_library("pyarrow", OF_DATA).types
    return types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind)


def need_columns(dataset, row, minima, once):
    """Check that the first row has the columns that this run asks for.

    Args:
        dataset: Dataset.
        row: {column: value}.
        minima: {score: smallest value}.
        once: whether one caption a video is wanted.
    """
    there = ", ".join(map(str, row))[:120]
    caption = dataset.columns["caption"]
    if caption not in row:
        raise InputError(f"{dataset.name}: no column '{caption}' (--column); there are {there}")
    for name in minima:
        if dataset.columns.get(name) not in row:
            raise InputError(
                f"--min_{name}: {dataset.name} has no such column "
                f"({dataset.columns.get(name, 'none is known')}); there are {there}"
            )
    video = dataset.columns.get("id")
    if once and video is not None and video not in row:
        raise InputError(
            f"{dataset.name}: no column '{video}' (--id_column) to take one caption a video by; "
            f"there are {there}; or give --many_per_video"
        )
