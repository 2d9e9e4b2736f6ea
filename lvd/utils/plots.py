"""What every figure shares: no display, the same style everywhere, names as they are written.

A figure is the last and the least part of a result: `drawn` never lets one end a run.
"""

import os
import sys
import warnings
from functools import cache

from lvd.errors import words_of
from lvd.utils.partials import atomic

LONGEST_NAME = 40  # characters of a name in a figure
DEFAULT_FONT = "DejaVu Sans"  # comes with matplotlib
NO_FONT = "Last Resort"  # comes with matplotlib too: it has a box for every letter

_told = set()  # letters without a font that a line on stderr has named


def subplots(rows=1, columns=1, **settings):
    """Return (figure, axes) as `matplotlib.pyplot.subplots` does.

    No pyplot is needed, so the backend of a notebook, or one that is not installed, does not
    matter, and nothing of it is changed.

    Args:
        rows, columns: of the axes.
        settings: `figsize`, and what `Figure.subplots` takes.
    """
    _matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=settings.pop("figsize", None), layout="constrained")
    return figure, figure.subplots(rows, columns, **settings)


def save_figure(figure, path):
    """Write a figure atomically, the same bytes for the same figure."""
    text = _text_of(figure)
    with _matplotlib().rc_context({"font.sans-serif": [DEFAULT_FONT, *_fonts_for(text)]}):
        with atomic(path) as partial, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of letters without a font: told by _fonts_for
            figure.savefig(partial, dpi=110, metadata={"Software": None})


def drawn(save, content, path, *args):
    """Draw a figure, if that is possible.

    Args:
        save: function of (content, path, *args) that draws and writes a figure.
        content: what it draws.
        path: of the picture.
        args: what else the function takes.

    Returns:
        [path], or [] where drawing failed. One line on stderr then says why.
    """
    try:
        with _matplotlib().style.context("default"):  # whatever matplotlibrc this user has
            save(content, path, *args)
    except Exception as error:  # of any kind: all that is worth something is written already
        why = f"{type(error).__name__}: {words_of(error)}"
        print(f"{path}: not drawn ({why}); run the command again to draw it", file=sys.stderr)
        return []
    return [path]


def shown(name):
    """Return a name from outside as matplotlib shows it, letter by letter.

    A `$` would begin a formula, and a legend leaves out names that begin with `_`.
    """
    name = "".join(letter if letter.isprintable() else " " for letter in str(name))
    if len(name) > LONGEST_NAME:
        name = name[: LONGEST_NAME - 3] + "..."
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


@cache
def _matplotlib():
    """Import matplotlib, whatever backend MPLBACKEND names: a wrong name ends the import."""
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        import matplotlib
        import matplotlib.style
    finally:
        del os.environ["MPLBACKEND"]
        if before is not None:
            os.environ["MPLBACKEND"] = before
    return matplotlib


def _text_of(figure):
    """Return all letters of a figure, each once and sorted."""
    from matplotlib.text import Text

    letters = set().union(*(text.get_text() for text in figure.findobj(Text)))
    return "".join(sorted(letters))


def _fonts_for(text):
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
