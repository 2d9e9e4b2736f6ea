"""Figures: no legend lies on data, grids carry their values, hostile names do no harm."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.legend import Legend

from benchmarks.common import figures as benchmark_figures
from benchmarks.detectors import learning_curve, recipes
from lvd.evaluation import figures, frontier_figure, score_figures
from lvd.evaluation.vote_report import grid_text, some_etas
from lvd.training import curves
from lvd.utils import plots
from lvd.utils.config import ROOT

MODULES = (figures, score_figures, frontier_figure, curves, benchmark_figures)
NAMES = ["Ba$$in", "_hidden", "$x^$", "Ünïcode Жить", "x" * 300, r"\frac{", "all", "wide: 漢字仮名"]
pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # save_figure chooses fonts for them
RATES = ["accuracy", "tpr", "tnr"]


def names(count):
    return [NAMES[k] if k < len(NAMES) else f"category {k}" for k in range(count)]


@pytest.fixture
def drawn_by(monkeypatch):
    """A function that draws as the scripts do, without a file: returns the Figure, laid out."""
    kept = []
    for module in (*MODULES, learning_curve, recipes):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: kept.append(figure))

    def draw(save, *args):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "Glyph")
            with plots.style():
                save(*args)
                kept[-1].draw_without_rendering()
        return kept[-1]

    return draw


def legends_of(figure):
    return [legend for legend in figure.findobj(Legend) if legend.get_texts()]


def check(figure):
    """No legend lies over an axis, or beyond the figure; the letters can be read at half size."""
    boxes = [axis.bbox for axis in figure.axes if axis.get_visible() and axis.axison]
    for legend in legends_of(figure):
        box = legend.get_window_extent()
        assert not any(box.overlaps(other) for other in boxes)
        assert box.x0 >= -1 and box.y0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
    for axis in figure.axes:
        labels = [*axis.get_xticklabels(), *axis.get_yticklabels(), axis.title, *axis.texts]
        assert all(text.get_fontsize() >= plots.SMALL for text in labels)
    assert plots.SMALL / 72 * plots.DPI / 2 >= 7  # pixels


def values(*shape):
    return np.random.default_rng(0).uniform(0.6, 1, shape)


SIZES = [(1, 1), (2, 4), (5, 50), (20, 4)]  # categories, steps


@pytest.mark.parametrize("categories, steps", SIZES)
def test_step_figures(drawn_by, categories, steps):
    columns = [*RATES, "auroc any", *(f"auroc {name}" for name in names(categories))]
    table = pd.DataFrame(values(steps, len(columns)), columns=columns)
    table.insert(0, "step", range(steps))
    figure = drawn_by(figures.save_step_figure, table, "x.png", "title")
    check(figure)
    votes, scores = figure.axes
    assert len(votes.get_legend().get_texts()) == 3
    assert len(scores.get_legend().get_texts()) == 1 + categories
    looks = [(line.get_color(), line.get_linestyle()) for line in scores.get_lines()]
    assert len(set(looks)) == 1 + categories
    any_line = scores.get_legend().get_texts()[0].get_text()
    assert any_line == "any: the largest\nraw probability"


@pytest.mark.parametrize("categories, steps", [(1, 1), (20, 50)])
def test_metrics_figures(drawn_by, categories, steps):
    metrics = ("auroc", "average_precision", "fpr_at_recall_0.9")
    rows = [
        {"score": "calibrated probability", "category": name, "step": step}
        for name in ("any", *names(categories))
        for step in range(steps)
    ]
    rows += [{"score": "votes", "category": "any", "eta": eta + 1} for eta in range(steps)]
    table = pd.DataFrame(rows)
    for metric in metrics:
        table[metric] = values(len(table))
        table[f"{metric}_low"], table[f"{metric}_high"] = table[metric] - 0.1, table[metric]
    report = SimpleNamespace(metrics=table, fixed_recalls=["0.9"])
    figure = drawn_by(score_figures.save_metrics_figure, report, "x.png", "title")
    check(figure)
    told = [text.get_text() for legend in legends_of(figure) for text in legend.get_texts()]
    assert "any: the largest\ncalibrated probability" in told and len(told) == 2 + categories


@pytest.mark.parametrize("categories", [1, 8])
def test_reliability_figures(drawn_by, categories):
    kinds = ("raw", "calibrated")
    places = [(name, kind) for name in names(categories) for kind in kinds]
    errors = [{"category": name, "probabilities": kind} for name, kind in places]
    calibration = pd.DataFrame(errors).assign(log_loss=0.1, ece=0.01)
    bins = [{**about, "mean": 0.1 * k, "unsafe": 0.1 * k} for about in errors for k in range(10)]
    table = pd.DataFrame(bins).assign(low=0.0, high=1.0)
    report = SimpleNamespace(reliability=table, calibration=calibration)
    figure = drawn_by(score_figures.save_reliability_figure, report, "x.png", "title")
    check(figure)
    assert len(legends_of(figure)) == categories


@pytest.mark.parametrize("epochs", [1, 16])
def test_curves_of_trainings(drawn_by, epochs):
    losses = {"train_loss": 0.3, "val_loss": 0.2, "val_auroc": 0.9}
    rows = [{"epoch": epoch, **losses} for epoch in range(1, epochs + 1)]
    figure = drawn_by(figures.save_curve_figure, rows, "x.png", "shared detector")
    check(figure)
    (legend,) = legends_of(figure)
    assert len(legend.get_texts()) == 3
    rows = [
        {**row, "group": k, "category": name} for k, name in enumerate(names(20)) for row in rows
    ]
    figure = drawn_by(curves._save_figure, pd.DataFrame(rows), "x.png")
    check(figure)
    (legend,) = legends_of(figure)
    assert len(legend.get_texts()) == 20


def test_frontier_figures(drawn_by):
    table = pd.read_csv(ROOT / "docs" / "results" / "frontier_grid.csv")
    figure = drawn_by(frontier_figure.save_frontier_figure, table, "x.png", "title", 50)
    check(figure)
    assert len(legends_of(figure)) == 1


@pytest.mark.parametrize("categories, steps", [(1, 1), (5, 50)])
def test_lines_of_benchmarks(drawn_by, categories, steps):
    keys = ["accuracy", "auroc any", *(f"auroc {name}" for name in names(categories))]
    row = dict.fromkeys(keys, 0.9) | {f"{key} sd": 0.2 for key in keys}
    cases = {"first": "first", "on it": "$on_it"}
    rows = [{**row, "case": case, "step": step} for case in cases for step in range(steps)]
    figure = drawn_by(benchmark_figures.save_lines, rows, "x.png", cases, "title")
    check(figure)
    first, second = figure.axes[0].get_lines()  # one lies on the other
    assert first.get_linewidth() > second.get_linewidth() + 1
    seen = [axis for axis in figure.axes if axis.get_visible()]
    assert all(axis.xaxis.get_tick_params()["labelbottom"] for axis in seen)


def test_lines_over_labels(drawn_by):
    about = {"auroc": 0.9, "auroc sd": 0.2}
    rows = [
        {**about, "case": case, "labels": labels, "category": category}
        for case in NAMES[:4]
        for labels in (5, 20)
        for category in names(5)
    ]
    check(drawn_by(benchmark_figures.save_label_lines, rows, "x.png", "title"))
    row = {key: 0.5 for name in learning_curve.QUANTITIES for key in (name, f"{name} sd")}
    rows = [{**row, "labels": labels} for labels in (5, "all")]
    check(drawn_by(learning_curve.draw_figure, rows, "x.png", "title"))


@pytest.mark.parametrize("count, steps", [(1, 1), (20, 50)])
def test_recipes_are_a_table(drawn_by, count, steps):
    rows = [
        {"recipe": name, "seed": 1, "step": step, "auroc": 0.8 + 0.001 * k, "accuracy": 0.7}
        for k, name in enumerate(names(count))
        for step in range(steps)
    ]
    figure = drawn_by(recipes.draw_figure, pd.DataFrame(rows), "x.png", "title")
    check(figure)
    columns = min(steps, recipes.COLUMNS)
    told = [float(text.get_text()) for text in figure.axes[0].texts]
    assert told == [round(0.8 + 0.001 * k, 3) for k in range(count) for _ in range(columns)]


# ---- the grid


def grid_of(steps):
    etas = range(1, steps + 1)
    places = [(k / 10, eta) for k in range(1, 11) for eta in etas]
    table = pd.DataFrame(places, columns=["lambda", "eta"])
    table[RATES] = values(len(table), 3)
    return table


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_the_grid_is_that_of_the_text(drawn_by, steps):
    """The same rates at the same places as in grid.txt, and the same colours in all three maps."""
    table = grid_of(steps)
    figure = drawn_by(figures.save_grid_figure, table, "x.png", "title")
    check(figure)
    *maps, _ = figure.axes
    for rate, axis in zip(RATES, maps, strict=True):
        head, *lines = grid_text(table, rate, some_etas(steps)).splitlines()
        assert axis.yaxis_inverted(), "the first lambda is at the top"
        lambdas = [label.get_text() for label in axis.get_yticklabels()]
        assert lambdas == [line.split()[0] for line in lines]
        etas = [label.get_text() for label in axis.get_xticklabels()]
        assert etas == head.split()[2::2]
        told = {text.get_position(): text.get_text() for text in axis.texts}
        for row, line in enumerate(lines):
            for column, cell in enumerate(line.split()[1:]):
                assert told[column, row] == cell
    limits = {axis.images[0].get_clim() for axis in maps}
    assert limits == {(table[table["eta"].isin(some_etas(steps))][RATES].min().min(), 1.0)}


def test_letters_are_seen_on_every_cell(drawn_by):
    figure = drawn_by(figures.save_grid_figure, grid_of(4), "x.png", "title")
    (image,) = figure.axes[0].images
    for text in figure.axes[0].texts:
        ground = np.mean(image.cmap(image.norm(float(text.get_text())))[:3])
        assert abs(ground - np.mean(to_rgb(text.get_color()))) > 0.35


def test_the_same_data_give_the_same_bytes(tmp_path):
    paths = [tmp_path / "1.png", tmp_path / "2.png"]
    rows = [{"epoch": 1, "train_loss": 0.3, "val_loss": 0.2}]
    for path in paths:
        assert plots.drawn(figures.save_curve_figure, rows, path, "title") == [path]
    assert paths[0].read_bytes() == paths[1].read_bytes()
