"""A prompt: one line of text, and what its video is called."""

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.files import need_file
from lvd.x0.sidecar import numbered_name

MAX_FILE = 64 << 20  # bytes; half a million prompts fit, a weight file named by mistake does not


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        text: one line.
        name: its video's file name without suffix.
        written: how its file has it, where quotes around it were taken off; None: just so.
    """

    text: str
    name: str
    written: str | None = field(default=None, compare=False)


def numbered(texts):
    """Return Prompts whose videos are called by their row: 0000, 0001, ..."""
    return [Prompt(text, numbered_name(row)) for row, text in enumerate(texts)]


def clean(text, where):
    """Return a prompt as one line without space around it.

    Raises:
        InputError: a blank prompt, control characters or broken Unicode; it begins with `where`.
    """
    text = re.sub(r"[\r\n]+", " ", text.strip())
    if not text:
        raise InputError(f"{where}: blank, a prompt is needed")
    need_printable(text, where)
    return text


def need_printable(text, where):
    """Refuse control characters other than tab, and halves of surrogate pairs."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character != "\t":
            raise InputError(
                f"{where}: holds the character U+{ord(character):04X}, plain text is needed"
            )


def need_prompt_file(path):
    """InputError unless `path` is a file of a size that prompts may have."""
    need_file(path)
    size = Path(path).stat().st_size
    if size > MAX_FILE:
        raise InputError(
            f"{path}: {size / 2**20:.0f} MiB, a file of prompts has at most {MAX_FILE >> 20} MiB"
        )
