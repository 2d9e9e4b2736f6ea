"""Fonts for the letters of a figure: names from outside may be in any script."""

import sys
from functools import cache

DEFAULT_FONT = "DejaVu Sans"  # comes with matplotlib
NO_FONT = "Last Resort"  # comes with matplotlib too: it has a box for every letter

_told = set()  # letters without a font that a line on stderr has named


def fonts_for(text):
    """Return the names of fonts that have the letters which the default font lacks.

    One line on stderr names the letters that no font here has, each letter once.
    """
    from matplotlib import font_manager

    default = font_manager.findfont(DEFAULT_FONT)
    missing = {letter for letter in text if not letter.isspace()} - _letters_of(default)
    chosen = []
    for entry in font_manager.fontManager.ttflist if missing else []:
        has = missing & _letters_of(entry.fname) if NO_FONT not in entry.name else set()
        if has:
            chosen.append(entry.name)
            missing -= has
    if missing - _told:
        some = "".join(sorted(missing - _told))[:20]
        print(f"figures: no font here has {some}; they show boxes in its place", file=sys.stderr)
        _told.update(missing)
    return chosen


@cache
def _letters_of(font):
    from matplotlib import font_manager

    return {chr(code) for code in font_manager.get_font(font).get_charmap()}
