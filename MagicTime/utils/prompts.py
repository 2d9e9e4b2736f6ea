"""Which prompts, which negative prompts, and what the videos are called.

The first source that is given counts: a CSV (column name has the prompt, videoid the video's name),
a JSON (caption, video_id, sen_id; the video is called {video_id}-{sen_id}, as in MagicTime), a text
file with one prompt a line (quotes around every line are none of the prompts), the YAML's own list
(videos 0000, 0001, ...). A prompt's place in its source is its row in pred_x0.pth; labels refer to
it.
"""

import csv
import hashlib
import io
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from lvd.errors import InputError, shorten
from lvd.utils.files import load_json, need_file, read_text
from lvd.x0.sidecar import numbered_name
from MagicTime.utils import config as cfg
from MagicTime.utils.quotes import say, take_quotes_off

MAX_FILE = 64 << 20  # bytes; half a million prompts fit, a weight file named by mistake does not
MAX_NAME = 200  # bytes; file systems allow 255, with suffix and the mark of an unfinished file


@dataclass(frozen=True)
class Prompt:
    """A prompt (one line of text) and its video's file name without suffix.

    written: how its file has it, where quotes around it were taken off; None: just so.
    """

    text: str
    name: str
    written: str | None = field(default=None, compare=False)


def read_source(settings, path, run_csv=None, run_json=None):
    """Read the prompts of a run.

    Args:
        settings: SamplingSettings (file_path, prompt).
        path: of the YAML, for messages.
        run_csv, run_json: files that win over the settings; one of them at most.

    Returns:
        [Prompt], one a video.
    """
    if run_csv and run_json:
        raise InputError("--run-csv and --run-json: one of them is needed, not both")
    if run_csv:
        return read_csv(cfg.find(run_csv))
    if run_json:
        return read_json(cfg.find(run_json))
    if settings.file_path:
        return read_text_file(cfg.find(settings.file_path))
    prompts = settings.prompt
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if (
        not isinstance(prompts, list)
        or not prompts
        or not all(isinstance(p, str) and p.strip() for p in prompts)
    ):
        raise InputError(
            f"{path}: file_path or a list of prompts is needed (key 'prompt', or --file_path, "
            "--run-csv, --run-json)"
        )
    return numbered(
        [clean(text, f"{path}: prompt {row} (from 0)") for row, text in enumerate(prompts)]
    )


def numbered(texts):
    """Return Prompts whose videos are called by their row: 0000, 0001, ..."""
    return [Prompt(text, numbered_name(row)) for row, text in enumerate(texts)]


def digest(prompts):
    """Return the hex sha256 of the prompts, and of the names that are not just the row."""
    lines = []
    for row, prompt in enumerate(prompts):
        named = prompt.name != numbered_name(row)
        lines.append(f"{prompt.text}\0{prompt.name}" if named else prompt.text)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def as_recorded(prompts, before):
    """Return the prompts of a folder that is filled, as they were when its first video was made.

    Earlier versions took the quotes around prompts for a part of them. Such a folder keeps them.

    Args:
        prompts: [Prompt].
        before: the folder's config, {"prompts": number, "prompts_sha256": hash, ...}.

    Returns:
        [Prompt], with their quotes where the folder's were sampled with them.
    """
    written = [Prompt(p.written or p.text, p.name) for p in prompts]
    count = before.get("prompts")
    if written == prompts or type(count) is not int or count < 1:
        return prompts
    if digest(written[:count]) != before.get("prompts_sha256"):
        return prompts
    say("the folder's first videos were sampled with the quotes around their prompts: they stay on")
    return written


def read_prompts(path):
    """Read the texts of a file; see `read_text_file`."""
    return [prompt.text for prompt in read_text_file(path)]


def read_text_file(path):
    """Read the Prompts of a file, one a line; row i is line i + 1.

    A newline at the end is fine, a blank line is an InputError. Quotes around every line are taken
    off.
    """
    lines = _read(path).rstrip("\r\n").split("\n")
    if lines == [""]:
        raise InputError(f"{path}: no prompts in this file, one a line is needed")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(
                f"{path}: line {number} is blank; rows are counted by line, so every line needs a "
                "prompt"
            )
    texts = [clean(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]
    bare = take_quotes_off(texts, path)
    if bare is texts:
        return numbered(texts)
    bare = [clean(text, f"{path}: line {number}") for number, text in enumerate(bare, 1)]
    pairs = zip(numbered(bare), texts, strict=True)
    return [Prompt(prompt.text, prompt.name, written) for prompt, written in pairs]


def read_csv(path):
    """Read the Prompts of a CSV with a header.

    Columns other than name (the prompt) and videoid (the video's name) are ignored.
    """
    rows = _csv_rows(path)
    if not rows:
        raise InputError(f"{path}: empty, a header with the columns name and videoid is needed")
    header = [cell.strip() for cell in rows[0][1]]
    for column in ("name", "videoid"):
        if header.count(column) != 1:
            wrong = "stands twice in" if column in header else "is missing from"
            raise InputError(
                f"{path}: column '{column}' {wrong} the header ({', '.join(header)[:120]})"
            )
    prompts, places = [], []
    for line, cells in rows[1:]:
        if not cells:
            raise InputError(
                f"{path}: line {line} is blank; rows are counted, so every line needs a prompt"
            )
        if len(cells) != len(header):
            raise InputError(
                f"{path}: line {line} has {len(cells)} columns, the header {len(header)}; a text "
                "with a comma needs double quotes"
            )
        fields = dict(zip(header, cells))
        places.append(f"line {line}, column 'videoid'")
        prompts.append(
            Prompt(
                clean(fields["name"], f"{path}: line {line}, column 'name'"),
                _file_name(fields["videoid"].strip(), f"{path}: {places[-1]}"),
            )
        )
    return _all_different(prompts, places, path)


def read_json(path):
    """Read the Prompts of a JSON list of {"caption", "video_id", "sen_id"}.

    The list may stand under "sentences", as in MSR-VTT.
    """
    _need_prompt_file(path)
    items = load_json(path)
    if isinstance(items, dict):
        items = items.get("sentences")
    if not isinstance(items, list):
        raise InputError(
            f"{path}: a list of objects with caption, video_id and sen_id is needed (or that list "
            "under 'sentences')"
        )
    prompts, places = [], []
    for row, item in enumerate(items):
        place = f"item {row} (from 0)"
        if not isinstance(item, dict):
            raise InputError(
                f"{path}: {place}: an object with caption, video_id and sen_id is needed, found "
                f"{shorten(item)}"
            )
        caption = clean(
            _value(item, "caption", (str,), f"{path}: {place}"), f"{path}: {place}, key 'caption'"
        )
        ids = [
            _value(item, key, (str, int), f"{path}: {place}").strip()
            for key in ("video_id", "sen_id")
        ]
        places.append(f"{place}, keys 'video_id' and 'sen_id'")
        if not all(ids):
            raise InputError(f"{path}: {places[-1]}: blank, both are needed for the video's name")
        prompts.append(Prompt(caption, _file_name("-".join(ids), f"{path}: {places[-1]}")))
    return _all_different(prompts, places, path)


def clean(text, where):
    """Return a prompt as one line without space around it.

    Raises:
        InputError: a blank prompt, control characters or broken Unicode; it begins with `where`.
    """
    text = re.sub(r"[\r\n]+", " ", text.strip())
    if not text:
        raise InputError(f"{where}: blank, a prompt is needed")
    _need_printable(text, where)
    return text


def words_cut(model, text):
    """Return the end of `text` that the text encoder does not read; "" when it reads all."""
    ids = model.tokenizer(text, verbose=False).input_ids
    length = model.text_encoder.config.max_position_embeddings
    return model.tokenizer.decode(ids[length - 1 : -1]) if len(ids) > length else ""


def negatives_of(settings, count, path):
    """Return [negative prompt] of `count` prompts; a single one serves all."""
    negatives = settings.n_prompt
    negatives = [negatives] if isinstance(negatives, str) else negatives
    if not isinstance(negatives, list) or not all(isinstance(n, str) for n in negatives):
        raise InputError(
            f"{path}: n_prompt={shorten(negatives)}, a text or a list of texts is needed"
        )
    return one_or_each(negatives or [""], count, "n_prompt", path)


def one_or_each(values, count, key, path):
    """Return a value for each of `count` prompts; a single one serves all.

    Raises:
        InputError: another number of values; it names the YAML at `path` and the `key`.
    """
    if len(values) not in (1, count):
        raise InputError(
            f"{path}: {key} has {len(values)} entries, 1 or {count} (one per prompt) are needed"
        )
    return values * count if len(values) == 1 else values


def _need_prompt_file(path):
    need_file(path)
    size = Path(path).stat().st_size
    if size > MAX_FILE:
        raise InputError(
            f"{path}: {size / 2**20:.0f} MiB, a file of prompts has at most {MAX_FILE >> 20} MiB"
        )


def _read(path):
    _need_prompt_file(path)
    return read_text(path)


def _csv_rows(path):
    """Return [(line at which the row begins, its cells)], without blank lines at the end."""
    reader = csv.reader(io.StringIO(_read(path).rstrip("\r\n")), skipinitialspace=True, strict=True)
    rows, line = [], 1
    try:
        for cells in reader:
            rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {line}: not valid CSV ({error})") from error
    return rows


def _value(item, key, kinds, where):
    """Return item[key] as text; its type must be one of `kinds`."""
    value = item.get(key)
    if type(value) not in kinds:
        there = f"found {shorten(value)}" if key in item else "it is missing"
        needed = "a text" if kinds == (str,) else "a text or whole number"
        raise InputError(f"{where}, key '{key}': {needed} is needed, {there}")
    return str(value)


def _file_name(name, where):
    """Return `name` if {name}.mp4 is a plain, visible file name."""
    if not name:
        raise InputError(f"{where}: blank, the video's name is needed")
    _need_printable(name, where)
    if name.startswith(".") or re.search(r'[/\\:*?"<>|]', name):
        raise InputError(
            f"{where}: {shorten(name)} cannot be a video's file name (no dot at the front, none of "
            f'/ \\ : * ? " < > |)'
        )
    if len(name.encode()) > MAX_NAME:
        raise InputError(
            f"{where}: {shorten(name)} has {len(name.encode())} bytes, a video's name has at most "
            f"{MAX_NAME}"
        )
    return name


def _need_printable(text, where):
    """Refuse control characters other than tab, and halves of surrogate pairs."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character != "\t":
            raise InputError(
                f"{where}: holds the character U+{ord(character):04X}, plain text is needed"
            )


def _all_different(prompts, places, path):
    """Return `prompts` if no video overwrites another, even where upper and lower case are one."""
    if not prompts:
        raise InputError(f"{path}: no prompts in this file")
    first = {}
    for row, prompt in enumerate(prompts):
        before = first.setdefault(unicodedata.normalize("NFC", prompt.name).casefold(), row)
        if before != row:
            raise InputError(
                f"{path}: {places[row]}: the video's name {shorten(prompt.name)} is that of "
                f"{places[before]} ({shorten(prompts[before].name)}); upper and lower case are one "
                "on some disks"
            )
    return prompts
