"""The project's Markdown pages, taken apart: commands, links, and names of files."""

import re
import shlex

from lvd.utils.config import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docs" / "tiny_training" / "README.md",
    ROOT / "MagicTime" / "prepare_weights" / "README.md",
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_SUFFIXES = "py|sh|yaml|yml|md|cff|toml|txt|csv|json|jsonl|pth|pt|png|mp4|ckpt|safetensors"
FILE_NAME = re.compile(rf"[\w.{{}}*-]*\.({FILE_SUFFIXES})")


def blocks(page, language):
    """Return the fenced blocks of a language, as they stand."""
    return [text for name, text in FENCE.findall(page.read_text()) if name == language]


def prose(page):
    """Return the page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def spans(page):
    """Return the code spans of the prose: what stands between single backquotes."""
    return [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", prose(page))]


def commands(page):
    """Return every command of the `bash` blocks and of the code spans, as lists of words.

    Lines that end in a backslash are joined, pipes are taken apart, comments are dropped.
    """
    lines = []
    for block in blocks(page, "bash"):
        lines += block.replace("\\\n", " ").splitlines()
    lines += [span for span in spans(page) if span.startswith(("python ", "bash ", "pip "))]
    found = []
    for line in lines:
        words = shlex.shlex(line, posix=True, punctuation_chars="|")
        words.whitespace_split = True
        command = []
        for word in [*words, "|"]:
            if word != "|":
                command.append(word)
            elif command:
                found.append(command)
                command = []
    return found


def links(page):
    """Return the targets of the links and pictures that do not lead to another site."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in targets if not target.startswith("http")]


def anchors(page):
    """Return the anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def paths(page):
    """Return what reads like a path of a file or folder, in code spans and in commands."""
    words = [word for span in spans(page) for word in span.split()]
    words += [word for command in commands(page) for word in command]
    return sorted({word.rstrip(",;:") for word in words if _is_path(word.rstrip(",;:"))})


def _is_path(word):
    if not re.fullmatch(r"[\w./{}*-]+", word) or word.startswith("-"):
        return False
    return "/" in word.strip("/") or bool(FILE_NAME.fullmatch(word)) or word.endswith("/")
