"""tools/redraw_results.py draws every committed figure from the tables beside it."""

import shutil

import pytest
from matplotlib.figure import Figure

from lvd.utils.config import ROOT
from tests.worlds.refusals import refused
from tools import redraw_results

RESULTS = ROOT / "docs" / "results"


def test_every_figure_of_the_results_is_drawn(tmp_path, monkeypatch):
    """All that the docs show is made, up to the picture's bytes, from what the docs hold."""

    def savefig(self, path, **settings):
        path.write_bytes(b"a picture")

    monkeypatch.setattr(Figure, "savefig", savefig)
    assert redraw_results.main(["--results", str(RESULTS), "--out", str(tmp_path)]) == 0
    drawn = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")}
    assert drawn == {path.relative_to(RESULTS) for path in RESULTS.rglob("*.png")}


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("grid.csv", "a,b\n1,2\n", ("grid.png", "eta")),
        ("grid.csv", "\x00\n\x00,\x00", ("grid.",)),
        ("grid.csv", "", ("grid.csv",)),
        ("score_metrics.csv", "unsafe\n", ("grid.png",)),
        ("frontier_grid.txt", "none", ("frontier_grid",)),
    ],
)
def test_tables_of_others_are_refused(name, content, words, tmp_path, capsys):
    needed = {"grid.csv", "score_metrics.csv"}
    if name.startswith("frontier"):
        needed = {"frontier_grid.csv", "frontier_grid.txt", "score_metrics.csv"}
    for each in needed:
        shutil.copyfile(RESULTS / each, tmp_path / each)
    (tmp_path / name).write_text(content)
    status = redraw_results.main(["--results", str(tmp_path)])
    refused(status, capsys, *words)


def test_a_folder_without_tables_is_refused(tmp_path, capsys):
    status = redraw_results.main(["--results", str(tmp_path / "none")])
    refused(status, capsys, "--results", "no table")
