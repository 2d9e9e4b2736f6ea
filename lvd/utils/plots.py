"""What every figure shares: no display, one style and one palette, names as they are written.

A figure is the last and the least part of a result: `drawn` never lets one end a run.
"""

import os
import sys
import unicodedata
import warnings
from functools import cache

from lvd.errors import words_of
from lvd.utils.fonts import DEFAULT_FONT, fonts_for
from lvd.utils.partials import atomic

# Okabe and Ito's colours, which colour-blind people can tell apart, without their yellow: it is
# hardly seen on white.
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#000000",
    "grey": "#767676",
}
SEQUENTIAL = "cividis"  # of heat maps: the same to all eyes, and brighter where it is more
DIVERGING = "RdBu"  # of differences: red below zero, blue above, and white at zero

DPI = 130  # at half the size, letters of SMALL points are 8 pixels high
SMALL = 9  # points, of the smallest letters
ROW, LINE = 3.2, 0.23  # inches, of a row of axes at least and of a line of a legend
ROUND = ((0.01, 0.1), (0.05, 0.01), (0.1, 0.02), (0.25, 0.05))  # widest range, where axes may end
UNDER = 0.55  # inches from an axis to the legend under it: room for its numbers and its label
SIZES = {"font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "figure.titlesize": 13}
STYLE = {
    **SIZES,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
}
LONGEST_NAME = 40  # characters of a name in a figure

_CYCLE = ("blue", "orange", "green", "red", "purple", "sky")
_STROKES = ("-", "--", ":", "-.")
_MARKERS = "osD^vPX"


def colour_of(k):
    """Return the colour of line, bar or category k (0, 1, ...); after the last the first again."""
    return PALETTE[_CYCLE[k % len(_CYCLE)]]


def look_of(k, points=1):
    """Return how to draw line k: {"color", "linestyle", "marker", "markevery"}.

    The first 6 lines differ by colour and marker. The next 6 have other strokes as well, and so on:
    no two of 24 lines look alike. Of many points a dozen have markers, at other places in each
    line: where lines lie on each other, the markers of all are seen.

    Args:
        k: number of the line, from 0.
        points: how many points the line has.
    """
    stroke = _STROKES[k // len(_CYCLE) % len(_STROKES)]
    every = -(-points // 12) or 1
    marks = {"marker": _MARKERS[k % len(_MARKERS)], "markevery": (k % every, every)}
    return {"color": colour_of(k), "linestyle": stroke, **marks}


def style():
    """Return a context in which all text, lines and grids of a figure look the same.

    What makes a figure runs inside it. `drawn` brings it along.
    """
    return _matplotlib().style.context(["default", STYLE])


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


def legend_beside(axis):
    """Put the legend of an axis on its right, over no data; none where nothing has a label."""
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
        axis.legend(handles, labels, **place)


def legend_under(axis, handles=None):
    """Put the legend of an axis under it and its label, over no data.

    Args:
        axis: of a figure.
        handles: what the legend names; None: all that has a label.
    """
    from matplotlib.transforms import ScaledTranslation

    if handles is None:
        handles = axis.get_legend_handles_labels()[0]
    if not handles:
        return
    inches = axis.figure.get_figwidth() / axis.get_gridspec().ncols
    columns = _columns_in(inches, [handle.get_label() for handle in handles])
    _make_room(axis, len(handles), columns)
    down = ScaledTranslation(0, -UNDER, axis.figure.dpi_scale_trans)
    axis.legend(
        handles=handles,
        ncols=columns,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axis.transAxes + down,
        borderaxespad=0,
    )


def legend_below(figure, axis):
    """Put one legend for all axes of a figure below them: that of `axis`, over no data."""
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        columns = _columns_in(figure.get_figwidth(), labels)
        _make_room(axis, len(labels), columns)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _make_room(axis, count, columns):
    """Make a figure higher if a legend of so many labels would leave its axes no room."""
    lines = -(-count // columns) + 1  # one label may have two lines
    needed = ROW * axis.get_gridspec().nrows + LINE * lines
    axis.figure.set_figheight(max(needed, axis.figure.get_figheight()))


def _columns_in(inches, labels):
    """Return how many labels of a legend have room beside each other."""
    lines = [line for label in labels for line in label.split("\n")]
    longest = max(map(_width_of, lines)) + 8  # letters: the line and the space before a label
    return max(1, min(len(labels), int(12 * inches / longest)))


def _width_of(text):
    """Return how wide a text is, in letters; Chinese ones, and others like them, count two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def rate_limits(*values):
    """Return (bottom, top) of an axis of rates: round numbers around the values.

    Lines at 0 and 1 stay in sight. Values that are not finite do not count.

    Args:
        values: arrays or numbers, all of them from 0 to 1.
    """
    import numpy as np

    all_values = np.concatenate([np.ravel(np.asarray(part, float)) for part in values])
    finite = all_values[np.isfinite(all_values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    unit = next((unit for most, unit in ROUND if high - low <= most), 0.1)
    margin = unit / 5
    least = -margin if low < margin / 4 else 0.0
    bottom = max(least, unit * np.floor(round((low - margin) / unit, 6)))
    return float(bottom), float(min(1 + margin, unit * np.ceil((high + margin) / unit)))


def whole_steps(axis):
    """Let the ticks across an axis be whole numbers, as steps and epochs are."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def heat_map(axis, values, low, high, form="{:.2f}", size=SMALL, text=None, cmap=SEQUENTIAL):
    """Draw a table as coloured cells, each with its value; a cell without a value stays white.

    Args:
        axis: to draw on.
        values: array [rows, columns]. The first row is drawn at the top, as tables are read.
        low, high: values of the darkest and the brightest colour.
        form: of the value in a cell; "" writes none.
        size: of its letters, in points.
        text: array [rows, columns] of the numbers in the cells; None: `values`.
        cmap: SEQUENTIAL or DIVERGING.

    Returns:
        The image, for a colour bar.
    """
    import numpy as np

    image = axis.imshow(values, aspect="auto", cmap=cmap, vmin=low, vmax=high)
    axis.grid(False)
    values = np.asarray(values, float)
    text = values if text is None else np.asarray(text, float)
    for (row, column), number in np.ndenumerate(text):
        if form and np.isfinite(number):
            color = _letters_on(image.cmap(image.norm(values[row, column])))
            where = {"ha": "center", "va": "center"}
            axis.text(column, row, form.format(number), color=color, fontsize=size, **where)
    return image


def _letters_on(color):
    """Return the colour of letters on a cell (red, green, blue, opacity): black or white."""
    red, green, blue, _ = color
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def save_figure(figure, path):
    """Write a figure atomically, the same bytes for the same figure."""
    text = _text_of(figure)
    with _matplotlib().rc_context({"font.sans-serif": [DEFAULT_FONT, *fonts_for(text)]}):
        with atomic(path) as partial, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of letters without a font: told by fonts_for
            figure.savefig(partial, dpi=DPI, metadata={"Software": None})


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
        with style():  # whatever matplotlibrc this user has
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
    if _width_of(name) > LONGEST_NAME:
        while _width_of(name) > LONGEST_NAME - 3:
            name = name[: min(LONGEST_NAME, len(name)) - 1]
        name += "..."
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
