"""What every figure shares: a backend without a display, and files that are whole."""

from lvd.utils.files import atomic


def pyplot():
    """Return matplotlib.pyplot, set up to need no display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save_figure(figure, path):
    """Write a figure atomically, the same bytes for the same figure, and close it."""
    with atomic(path) as partial:
        figure.savefig(partial, dpi=110, metadata={"Software": None})
    pyplot().close(figure)
