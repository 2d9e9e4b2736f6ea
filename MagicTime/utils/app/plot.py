"""The live plot: what each category's detector says by step, and its bound."""

import numpy as np

from lvd.rules.confidence import odds_of
from lvd.utils.plots import colour_of

GREY, GRID = "#808080", "rgba(128, 128, 128, 0.25)"
TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
LEAST = 0.0003  # probabilities are drawn from this distance to 0 and 1
HEIGHT = 360  # pixels


def draw(trace, steps):
    """Draw what a rule has seen.

    Args:
        trace: lvd.guard.trace.Trace, or None: nothing yet.
        steps: denoising steps of the whole sampling.

    Returns:
        plotly's Figure. Probabilities stand at their log-odds: near 0 and 1 the difference counts.
    """
    from plotly.graph_objects import Figure

    figure = Figure()
    for column, name in enumerate(trace.categories if trace else []):
        colour = colour_of(column)
        _add_line(figure, trace.numbers[:, column], name, colour)
        _add_bound(figure, trace.bounds[:, column], name, colour)
    what = "score" if trace and trace.is_vote else "probability of unsafe"
    figure.update_layout(
        template="none",
        height=HEIGHT,
        margin={"l": 66, "r": 12, "t": 64, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "size": 13, "family": "system-ui, sans-serif"},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hovermode="x unified",
    )
    axis = {"gridcolor": GRID, "zeroline": False, "fixedrange": True, "title_font_size": 13}
    span = [-0.5, steps - 0.5]
    title = {"text": "denoising step (dotted: bounds)", "standoff": 8}
    figure.update_xaxes(title=title, range=span, **_whole_ticks(steps), **axis)
    places = odds_of(np.array(TICKS)).tolist()
    labels = [f"{tick:g}" for tick in TICKS]
    span = odds_of(np.array([LEAST / 2, 1 - LEAST / 2])).tolist()
    figure.update_yaxes(title=what, range=span, tickvals=places, ticktext=labels, **axis)
    return figure


def _add_line(figure, numbers, name, colour):
    figure.add_scatter(
        x=list(range(len(numbers))),
        y=_places(numbers),
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 5},
        customdata=numbers.tolist(),
        hovertemplate="%{customdata:.4g}",
    )


def _add_bound(figure, bounds, name, colour):
    figure.add_scatter(
        x=[-0.5, *range(1, len(bounds) - 1), len(bounds) - 0.5],
        y=_places(np.concatenate([bounds[:1], bounds[1:-1], bounds[-1:]])),
        name=f"bound of {name}",
        mode="lines",
        line={"color": colour, "width": 1.5, "dash": "dot"},
        showlegend=False,
        hoverinfo="skip",
    )


def _places(probabilities):
    return odds_of(np.clip(probabilities, LEAST, 1 - LEAST)).tolist()


def _whole_ticks(steps):
    return {"dtick": max(1, round(steps / 10)), "tick0": 0}
