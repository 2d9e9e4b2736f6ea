"""One text file that several commands write, each its own section."""

import re
from pathlib import Path

from lvd.utils.files import read_text, save_text


def write_section(path, name, text):
    """Write a section into a file, in the place of the one of that name; the others stay.

    Args:
        path: of the file, which need not exist.
        name: of the section, in the line `== name ==` above it.
        text: its lines.
    """
    path = Path(path)
    before = read_text(path) if path.exists() else ""
    sections = {}
    for part in re.split(r"(?m)^(?=== )", before):
        if part.strip():
            sections[part.splitlines()[0]] = part.rstrip()
    title = f"== {name} =="
    sections[title] = f"{title}\n{text.rstrip()}"
    save_text("\n\n".join(sections.values()) + "\n", path)
