"""Quotes around the prompts of a text file, as spreadsheets and word processors write them.

Where every line is quoted, the quotes are none of the prompt. Where some are, they may be.
"""

import os
import sys

PAIRS = {  # how a quoted text begins: how it ends
    '"': '"',
    "'": "'",
    "\u201c": "\u201d",  # English, double and single
    "\u2018": "\u2019",
    "\u201e": "\u201c",  # German
    "\u201a": "\u2018",
    "\u201d": "\u201d",  # Swedish
    "\u00ab": "\u00bb",  # French, and the other way round
    "\u00bb": "\u00ab",
    "\u300c": "\u300d",  # Japanese
}
NAMED = 5  # lines that a message names


def without_quotes(text):
    """Return the text between the quotes of a line; None where it is not quoted as a whole.

    Quotes within are doubled by spreadsheets: "a ""big"" cat". Other ones within, as in "one" and
    "two", belong to the text.
    """
    begin, end = text[:1], PAIRS.get(text[:1])
    if end is None or len(text) < 2 or not text.endswith(end):
        return None
    within = text[1:-1]
    if begin == '"':
        if '"' in within.replace('""', ""):
            return None
        return within.replace('""', '"')
    return None if begin != "'" and (begin in within or end in within) else within


def take_quotes_off(texts, path):
    """Take the quotes off the prompts of a file when all of them are quoted, and say so on stderr.

    Args:
        texts: the lines of the file.
        path: of the file.

    Returns:
        [text, ...], without the quotes or as they are.
    """
    bare = [without_quotes(text) for text in texts]
    quoted = [line for line, text in enumerate(bare, 1) if text is not None]
    if not quoted:
        return texts
    if len(quoted) == len(texts):
        lines = "its line is" if len(texts) == 1 else f"all {len(texts)} lines are"
        say(f"{path}: {lines} in quotes, which are taken off")
        return bare
    named = ", ".join(map(str, quoted[:NAMED]))
    more = f" and {len(quoted) - NAMED} more" if len(quoted) > NAMED else ""
    say(
        f"{path}: {len(quoted)} of {len(texts)} lines are in quotes (line {named}{more}), which "
        "stay part of these prompts; in all lines they would be taken off"
    )
    return texts


def say(line):
    """Print a line on stderr, by one of the processes that sample together."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr)
