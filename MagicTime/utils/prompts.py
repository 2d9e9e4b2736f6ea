"""Which prompts, which negative prompts, and what the videos are called.

Sources, the first that is given: a CSV (columns name = the prompt, videoid = the video's name), a
JSON (caption, video_id, sen_id; the video is called {video_id}-{sen_id}, as in MagicTime), a text
file with one prompt a line, the YAML's own list (videos 0000, 0001, ...). A prompt's place in its
source is its row in pred_x0.pth, so labels refer to it.
"""

import csv
import hashlib
import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.files import load_json, need_file, read_text
from MagicTime.utils import config as cfg

MAX_FILE = 64 << 20  # bytes; half a million prompts fit, a weight file named by mistake does not
MAX_NAME = 200  # bytes; file systems allow 255, with suffix and the mark of an unfinished file


@dataclass(frozen=True)
class Prompt:
    """text: one line; name: the video's file name without suffix."""

    text: str
    name: str


def read_source(settings, path, run_csv=None, run_json=None):
    """The prompts, one per video, as a list of Prompt.

    settings: of the YAML at `path`, where file_path may come from a flag; run_csv, run_json: files
    that win over it.
    """
    if run_csv and run_json:
        raise InputError("--run-csv and --run-json: one of them is needed, not both")
    if run_csv:
        return read_csv(cfg.find(run_csv))
    if run_json:
        return read_json(cfg.find(run_json))
    if settings.file_path:
        return numbered(read_prompts(cfg.find(settings.file_path)))
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
    """Prompts whose videos are called by their row: 0000, 0001, ..."""
    return [Prompt(text, f"{row:04d}") for row, text in enumerate(texts)]


def digest(prompts):
    """Hex sha256 of the prompts in order, and of the videos' names where they are not just the row."""
    lines = [
        prompt.text if prompt == plain else f"{prompt.text}\0{prompt.name}"
        for prompt, plain in zip(prompts, numbered([prompt.text for prompt in prompts]))
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_prompts(path):
    """Texts of a file, one a line; row i is line i + 1. A newline at the end is fine, a blank line
    is not."""
    lines = _read(path).rstrip("\r\n").split("\n")
    if lines == [""]:
        raise InputError(f"{path}: no prompts in this file, one a line is needed")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(
                f"{path}: line {number} is blank; rows are counted by line, so every line needs a "
                "prompt"
            )
    return [clean(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]


def read_csv(path):
    """Prompts of a CSV with a header; columns other than name (the prompt) and videoid (the video's
    name) are ignored."""
    rows = _csv_rows(path)
    if not rows:
        raise InputError(f"{path}: empty, a header with the columns name and videoid is needed")
    header = [cell.strip() for cell in rows[0][1]]
    for column in ("name", "videoid"):
        if header.count(column) != 1:
            found = "stands twice in" if column in header else "is missing from"
            raise InputError(
                f"{path}: column '{column}' {found} the header ({', '.join(header)[:120]})"
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
    """Prompts of a JSON list of {"caption", "video_id", "sen_id"}, or of the list under "sentences"
    (MSR-VTT's layout)."""
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
                f"{_shown(item)}"
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
    """A prompt as one line without space around it. InputError starting with `where` for one that
    is blank or holds control characters or broken Unicode."""
    text = re.sub(r"[\r\n]+", " ", text.strip())
    if not text:
        raise InputError(f"{where}: blank, a prompt is needed")
    _need_printable(text, where)
    return text


def words_cut(model, text):
    """The end of `text` that the text encoder's length leaves out, as the tokenizer spells it; ""
    when all fits."""
    ids = model.tokenizer(text, verbose=False).input_ids
    length = model.text_encoder.config.max_position_embeddings
    return model.tokenizer.decode(ids[length - 1 : -1]) if len(ids) > length else ""


def negatives_of(settings, count, path):
    """One negative prompt per prompt; a single one serves all."""
    negatives = settings.n_prompt
    negatives = [negatives] if isinstance(negatives, str) else negatives
    if not isinstance(negatives, list) or not all(isinstance(n, str) for n in negatives):
        raise InputError(f"{path}: n_prompt={negatives!r}, a text or a list of texts is needed")
    return one_or_each(negatives or [""], count, "n_prompt", path)


def one_or_each(values, count, key, path):
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
    """[(line the row begins at, from 1; its cells)], blank lines at the end dropped."""
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
    """item[key] as text, of one of `kinds`."""
    value = item.get(key)
    if type(value) not in kinds:
        found = f"found {_shown(value)}" if key in item else "it is missing"
        needed = "a text" if kinds == (str,) else "a text or whole number"
        raise InputError(f"{where}, key '{key}': {needed} is needed, {found}")
    return str(value)


def _file_name(name, where):
    """`name` after checking that {name}.mp4 is a plain, visible file of the folder it is put in."""
    if not name:
        raise InputError(f"{where}: blank, the video's name is needed")
    _need_printable(name, where)
    if name.startswith(".") or re.search(r'[/\\:*?"<>|]', name):
        raise InputError(
            f"{where}: {_shown(name)} cannot be a video's file name (no dot at the front, none of "
            f'/ \\ : * ? " < > |)'
        )
    if len(name.encode()) > MAX_NAME:
        raise InputError(
            f"{where}: {_shown(name)} has {len(name.encode())} bytes, a video's name has at most "
            f"{MAX_NAME}"
        )
    return name


def _need_printable(text, where):
    """InputError for control characters other than tab, and for halves of surrogate pairs."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character != "\t":
            raise InputError(
                f"{where}: holds the character U+{ord(character):04X}, plain text is needed"
            )


def _all_different(prompts, places, path):
    """`prompts` after checking that no video overwrites another, also where upper and lower case
    are one."""
    if not prompts:
        raise InputError(f"{path}: no prompts in this file")
    first = {}
    for row, prompt in enumerate(prompts):
        before = first.setdefault(unicodedata.normalize("NFC", prompt.name).casefold(), row)
        if before != row:
            raise InputError(
                f"{path}: {places[row]}: the video's name {_shown(prompt.name)} is that of "
                f"{places[before]} ({_shown(prompts[before].name)}); upper and lower case are one "
                "on some disks"
            )
    return prompts


def _shown(value):
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
