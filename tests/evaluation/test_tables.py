"""Long tables against the nested mappings of files, their CSV, and the axes of figures."""

import pandas as pd
import pytest

from lvd.evaluation import figures
from lvd.evaluation.tables import long_table, nested_lists, save_table
from lvd.utils.files import save_csv


def test_a_long_table_is_the_nested_mapping_line_by_line():
    nested = {"1": {"7": [1, 0], "10": [0, 0]}, "0": {"7": [1, 1]}}  # not in the order of the rows
    table = long_table(nested, ["label", "row", "step", "vote"])
    assert list(table.itertuples(index=False, name=None)) == [
        ("1", "7", 0, 1),
        ("1", "7", 1, 0),
        ("1", "10", 0, 0),
        ("1", "10", 1, 0),
        ("0", "7", 0, 1),
        ("0", "7", 1, 1),
    ]
    again = nested_lists(table, ["label", "row"], "vote")
    assert again == nested and list(again["1"]) == ["7", "10"]
    assert all(type(vote) is int for rows in again.values() for v in rows.values() for vote in v)
    assert all(type(row) is str for rows in again.values() for row in rows)


def test_csv_is_that_of_save_csv(tmp_path):
    """Six decimals as Python rounds them, blanks where nothing is known, whole numbers as such."""
    rows = [
        {"name": "a, b", "step": 3, "value": 0.0078125, "low": None},
        {"name": "c", "step": None, "value": 1.0, "low": 1 / 3},
        {"name": "d", "step": 1, "value": 1e-6, "low": 2.5e-7},
    ]
    save_csv(rows, tmp_path / "rows.csv")
    save_table(pd.DataFrame(rows).astype({"step": "Int64"}), tmp_path / "table.csv")
    text = (tmp_path / "table.csv").read_bytes()
    assert text == (tmp_path / "rows.csv").read_bytes()
    assert text.splitlines()[1:3] == [b'"a, b",3,0.007812,', b"c,,1.0,0.333333"]


@pytest.mark.parametrize("lowest, bottom", [(0.74, 0.7), (0.7, 0.6), (0.01, 0.0), (1.0, 0.9)])
def test_axes_of_steps_start_where_the_data_are(tmp_path, monkeypatch, lowest, bottom):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    rates = {"accuracy": [lowest, 1.0], "tpr": [1.0, 1.0], "tnr": [1.0, 1.0]}
    table = pd.DataFrame({"step": [0, 1], **rates, "auroc any": [1.0, lowest]})
    figures.save_step_figure(table, tmp_path / "x.png", "title")
    for axis in drawn[0].axes:
        assert axis.get_ylim() == pytest.approx((bottom, 1.02))
