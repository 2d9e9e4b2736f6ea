"""tools/compare_studies.py: two folders of tables, and how far they agree."""

import pytest

from lvd_study.intervals import Estimate
from lvd_study.table import Table
from tests.worlds.refusals import refused
from tools import compare_studies


def write(folder, accuracy=0.9, seconds=1.0, rule="vote", columns=("rule", "accuracy", "seconds")):
    """Write a table of two lines; the second is the same in every study."""
    folder.mkdir(exist_ok=True)
    rows = [
        [rule, Estimate(accuracy, accuracy - 0.05, accuracy + 0.05), seconds],
        ["chosen", Estimate(0.8, 0.7, 0.9), 2.0],
    ]
    return Table("a_rules", "", "", list(columns), rows).save(folder)


def test_the_same(tmp_path, capsys):
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert compare_studies.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "| a_rules | 4 | 2 of 2 | 2 of 2 | 0 |  |" in capsys.readouterr().out


def test_means_outside(tmp_path):
    a, b = write(tmp_path / "a", 0.9), write(tmp_path / "b", 0.8, seconds=5.0)
    found = compare_studies.compare("a_rules", a, b)
    assert (found.figures, found.with_interval, found.b_in_a, found.a_in_b) == (4, 2, 1, 1)
    assert found.largest == pytest.approx(0.1) and found.where == "vote, accuracy"


def test_page(tmp_path, capsys):
    write(tmp_path / "a", 0.9)
    write(tmp_path / "b", 0.93)
    out = tmp_path / "again.md"
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]
    assert compare_studies.main(words) == 0
    assert "means of B in A's intervals: 2 of 2" in capsys.readouterr().out
    assert "| a_rules | 4 | 2 of 2 | 2 of 2 | 0.03 | vote, accuracy |" in out.read_text()


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"rule": "other"}, "other lines"),
        ({"columns": ("rule", "TPR", "seconds")}, "other columns"),
        ({"seconds": None}, "seconds"),
    ],
)
def test_other_tables(tmp_path, capsys, changes, named):
    write(tmp_path / "a")
    write(tmp_path / "b", **changes)
    refused(compare_studies.main([str(tmp_path / "a"), str(tmp_path / "b")]), capsys, named)


@pytest.mark.parametrize(
    "table", ["rule,x,x_low\na,1,0\n", "rule,x,x_high\na,1,2\n", "rule,x,x_low,x_high\na,1,z,2\n"]
)
def test_half_an_interval(tmp_path, capsys, table):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text(table)
    refused(compare_studies.main([str(tmp_path / "a"), str(tmp_path / "b")]), capsys, "a.csv: 'x'")


def test_odd_numbers_and_names(tmp_path):
    """Infinite figures are figures; what a line is called does not break the page's table."""
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, value in zip(paths, ("-9223372036854775807", "9223372036854775807")):
        path.write_text(f'rule,x,n\n"p|q\nr",inf,{value}\n')
    found = compare_studies.compare("a", *paths)
    assert found.figures == 2 and found.largest > 1e19
    assert found.cells()[-1] == "p\\|q r, n"


def test_folders_that_make_no_sense(tmp_path, capsys):
    write(tmp_path / "a")
    here = str(tmp_path / "a")
    refused(compare_studies.main([here, str(tmp_path / "no")]), capsys, "no such folder")
    (tmp_path / "b").mkdir()
    refused(compare_studies.main([here, str(tmp_path / "b")]), capsys, "no CSV files")
    (tmp_path / "b" / "b.csv").write_text("a\n1\n")
    refused(compare_studies.main([here, str(tmp_path / "b")]), capsys, "a_rules.csv")
    (tmp_path / "b" / "a_rules.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b" / "b.csv").unlink()
    refused(compare_studies.main([here, str(tmp_path / "b")]), capsys, "a_rules.csv")
