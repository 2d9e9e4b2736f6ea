"""Label files as people write them: separators, notes, the long form, names, workbooks."""

import zipfile

import openpyxl
import pytest

from lvd.data.label_forms import tell
from lvd.data.labels import read_labels
from lvd.errors import InputError
from lvd.utils import tables

WIDE = {"violent": [0, 4, 5], "gory": [4, 7]}
NAMED = [None, None, None, None, "cat", "dog.run", None, "7"]  # of eight videos


def write(folder, text, name="label.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def as_dict(labels):
    return dict(zip(labels.categories, labels.columns, strict=True))


def refusal(path, *arguments):
    with pytest.raises(InputError) as error:
        read_labels(path, *arguments)
    said = str(error.value)
    assert path.name in said and "\n" not in said
    assert len(said.replace(str(path), "label.csv")) < 280, said
    return said.replace(str(path), "label.csv")


@pytest.fixture(autouse=True)
def told_anew():
    tell.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        "violent,gory\n0,4\n4,7\n5,\n",
        "\ufeffviolent;gory\r\n0;4\r\n4;7\r\n5;\r\n",
        "violent\tgory\n0\t4\n4\t7\n5\t\n",
        "violent,gory,,\n0,4,,\n4,7,,\n5,,,\n,,,\n",
        "violent,gory\n0.0,4.0\n4.0,7,,\n\n5,\n",
        '"violent";"gory"\n0;4\n4;7\n5;\n',
    ],
)
def test_separators_and_blank_cells(tmp_path, capsys, text):
    assert as_dict(read_labels(write(tmp_path, text), 8)) == WIDE
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text, categories",
    [
        ("a;b,c\n1,2\n", ["a;b", "c"]),  # commas alone give lines of the header's length
        ("a,b;c\n1;2\n", ["a,b", "c"]),
        ('"a;b"\n1\n', ["a;b"]),
        ('"a;b",c\n1,2\n', ["a;b", "c"]),
    ],
)
def test_a_header_with_two_marks_is_told_by_the_lines(tmp_path, text, categories):
    assert read_labels(write(tmp_path, text)).categories == categories


@pytest.mark.parametrize(
    "text, named",
    [
        ("a;b\n1\n2\n", "the header (line 1) has semicolons: 'a;b'"),
        ("a;b,c\n1\n", "has commas and semicolons"),
        ("a;b\n1,2\n", "has semicolons"),
        ("a;b\n1;2\n3\n", "line 3 has 1 cells"),
        ("a,b\n1;2\n", "line 2 has 1 cells, the header has 2"),
        (b"PK\3\4zip", "a workbook ends in .xlsx"),
        ("a\n1\n".encode("utf-16"), "UTF-16; save it as CSV UTF-8"),
        ("\na\n1\n", "line 1 is blank; the header is needed there"),
        ("a,who\n1,Ann\n2,Bob\n", "column 'who': 'Ann' is not a row index"),
        ("a,Normal\n1,2\n", "column 'Normal' is headed as no unsafe category"),
        ("row;category\n1;=A1\n", "the formula '=A1'"),
        ("a,who\n1,Ann\n2,Bob\n", "remove it, or head it 'notes'"),
        ("a,notes\n1,2\n", "column 'notes' has row indices, its name says notes"),
        ("notes\nsome\n", "columns of notes alone"),
        ("row,violent,gory\n0,1,0\n1,0,1\n", "column 'row' names videos, and no column is headed"),
        ("a\n4\n8\n", "8 is out of range, the x0 file has 8 rows (0 to 7); do your rows count"),
    ],
)
def test_what_cannot_be_told_is_refused(tmp_path, text, named):
    assert named in refusal(write(tmp_path, text), 8)


def test_no_word_on_counting_from_1_where_row_0_is_named(tmp_path):
    assert "from 1" not in refusal(write(tmp_path, "a\n0\n8\n"), 8)
    assert "from 1" not in refusal(write(tmp_path, "a\n3\n9\n"), 8)


def test_a_column_of_notes_is_skipped_with_a_line(tmp_path, capsys):
    text = 'violent,Comments,gory\n0,"odd, but\nclear",4\n4,,7\n5,,\n'
    for _ in range(2):
        assert as_dict(read_labels(write(tmp_path, text), 8)) == WIDE
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "column 'Comments' is skipped as notes" in told[0]
    assert read_labels(write(tmp_path, "2,1,notes\n5,4,x\u2028y\n")).columns == [[4], [5]]
    assert "line 6" in refusal(write(tmp_path, text + "x,,\n"), 8)  # counts lines, not records


LONG = "row,category\n4,violent\n0,violent\n5,violent\n4,gory\n7,gory\n"


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        LONG.replace(",", ";").replace("row", "Row_Index"),
        "Category,Video Name\nviolent,0000.mp4\nviolent,cat\nviolent,clips/dog.run.mp4\ngory,7\n"
        "gory,cat.MP4\n",
    ],
)
def test_the_long_form(tmp_path, capsys, text):
    labels = read_labels(write(tmp_path, text), 8, NAMED)
    assert as_dict(labels) == WIDE and labels.categories == ["gory", "violent"]
    assert capsys.readouterr().err == ""


def test_the_long_form_does_not_depend_on_its_lines_order(tmp_path):
    header, *lines = LONG.splitlines(keepends=True)
    turned = read_labels(write(tmp_path, header + "".join(lines[::-1])), 8)
    plain = read_labels(write(tmp_path, LONG), 8)
    assert (turned.categories, turned.columns) == (plain.categories, plain.columns)


def test_what_the_long_form_leaves_out_is_told(tmp_path, capsys):
    text = "video,rater,category,x\n3,Ann,violent,1\n2,Ann,none,\n1,,Safe,\n"
    assert as_dict(read_labels(write(tmp_path, text), 8)) == {"violent": [3]}
    others, left_out = capsys.readouterr().err.splitlines()
    assert "not read: 2 columns beside video, category ('rater', 'x')" in others
    assert "2 lines of no category" in left_out


def test_categories_that_are_numbers_are_groups(tmp_path):
    labels = read_labels(write(tmp_path, "video,label\n5,2\n3,1.0\n4,2\n"), 8)
    assert labels.categories == ["group1", "group2"] and labels.columns == [[3], [4, 5]]


def test_a_number_written_as_a_name_is_not_taken_for_another_row(tmp_path):
    names = [f"{row:04d}" for row in range(1, 9)]  # counted from 1
    assert as_dict(read_labels(write(tmp_path, "a,b\n3,0004.mp4\n"), 8, names)) == {
        "a": [3],
        "b": [3],
    }
    with pytest.raises(InputError, match="'0003' is row 3, and the name of the video in row 2"):
        read_labels(write(tmp_path, "a\n0003\n"), 8, names)
    assert read_labels(write(tmp_path, "a\n0003\n"), 8, [None] * 8).rows() == [3]


@pytest.mark.parametrize(
    "lines, named",
    [
        ("4,a\n2,a\n4.0,a\n", "line 4: 4 has category 'a' twice"),
        ("bird,a\n", "line 2, column 'video': no video is named 'bird'; names are such as"),
        ("2,a\n", "no video is named '2'"),
        ("twin,a\n", "'twin' fits two videos (rows 1 and 2)"),
        (",a\n", "line 2, column 'video': blank"),
        ("cat,\n", "line 2, column 'category': blank"),
        ('cat,"a, b"\n', "one category a line is needed"),
        ("cat,A\n7,a\n", "'A' (line 2) and 'a' (line 3) differ in upper and lower case"),
        ("cat,3\n7,1\n", "category '1' is a number (line 3)"),
        ("cat,none\n", "no line names a video of an unsafe category"),
        ("cat,a,b\n", "line 2 has 3 cells"),
    ],
)
def test_bad_lines_of_the_long_form_are_named(tmp_path, lines, named):
    names = ["x", "twin", "twin.mp4", None, "cat", "4", "5", "7"]
    if "twice" in named:
        names = None
    assert named in refusal(write(tmp_path, "video,category\n" + lines), 8, names)


def test_a_long_form_by_names_needs_the_recording(tmp_path):
    path = write(tmp_path, "video,category\ncat,a\n")
    assert "their recording (pred_x0) is needed" in refusal(path)
    assert read_labels(write(tmp_path, "video,category\n0003.mp4,a\n")).columns == [[3]]
    two = write(tmp_path, "video,name,category\n3,cat,a\n")
    assert "columns 'video' and 'name' both name videos" in refusal(two)
    assert "'cat' is not a row index" in refusal(write(tmp_path, "row,category\ncat,a\n"), 8)


def test_names_of_videos_stand_where_rows_do(tmp_path):
    text = "violent,gory\n0000.mp4,cat\ncat,7\ndog.run.mp4,\n"
    assert as_dict(read_labels(write(tmp_path, text), 8, NAMED)) == WIDE
    again = write(tmp_path, "a\n4\ncat\n")
    assert "line 3, column 'a': row 4 (cat) stands twice" in refusal(again, 8, NAMED)
    beyond = refusal(write(tmp_path, "a\n70\n"), 8, [*NAMED[:7], "70"])
    assert "the video named 70 is row 7" in beyond


def workbook(path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, lines in sheets.items():
        sheet = book.create_sheet(title)
        for line in lines:
            sheet.append(line)
    book.save(path)
    return path


TABLE = [["violent", "gory", None], [0, 4.0], [], [4, "7"], [5.0, None]]


def test_workbooks(tmp_path, capsys):
    path = workbook(tmp_path / "label.xlsx", rows=TABLE, empty=[])
    assert as_dict(read_labels(path, 8)) == WIDE
    assert read_labels(tmp_path).path == path
    lines = [line.split(",") for line in LONG.splitlines()]
    assert as_dict(read_labels(workbook(path, rows=lines), 8)) == WIDE
    assert read_labels(workbook(path, rows=[[2, 1], [5, 4]])).columns == [[4], [5]]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "sheets, named",
    [
        ({"one": TABLE, "two": [["x"]]}, "2 sheets have content ('one', 'two')"),
        ({"one": []}, "empty"),
        ({"one": [["a"], ["=1+1"]]}, "line 2, column 'a': '=1+1' is not a row index"),
        ({"one": [["a"], [True]]}, "'True' is not a row index"),
        ({"one": [["a"], [1.5]]}, "'1.5' is not a row index"),
        ({"one": [["a"], *[[]] * 3, [9]]}, "line 5, column 'a': 9 is out of range"),
        ({"one": [["a"] * 300]}, "at most 200000 lines and 256 columns are read"),
    ],
)
def test_bad_workbooks_are_named(tmp_path, sheets, named):
    assert named in refusal(workbook(tmp_path / "label.xlsx", **sheets), 8)


def with_part(path, name, content):
    """The workbook with another content of one part."""
    parts = {}
    with zipfile.ZipFile(path) as old:
        parts = {one: old.read(one) for one in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for one, there in {**parts, name: content}.items():
            new.writestr(one, there)
    return path


def test_hostile_workbooks_are_refused_quickly(tmp_path, monkeypatch):
    path = tmp_path / "label.xlsx"
    assert "not an Excel workbook" in refusal(write(tmp_path, "a\n1\n", "label.xlsx"))
    assert ".xls is not read" in refusal(write(tmp_path, "x", "label.xls"))
    bomb = with_part(workbook(path, one=TABLE), "xl/media/x.bin", b"\0" * (33 << 20))
    assert "at most 1000 parts and 32 MiB" in refusal(bomb)
    sheet = "xl/worksheets/sheet1.xml"
    begin = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    far = '<row r="20000"><c r="XFD20000"><v>1</v></c></row>'
    cell = '<row r="1"><c r="A1" t="inlineStr"><is><t>a</t></is></c></row>'
    end = "</sheetData></worksheet>"
    wide = with_part(workbook(path, one=TABLE), sheet, f"{begin}<sheetData>{cell}{far}{end}")
    assert "content in line 20000, column 16384" in refusal(wide)
    monkeypatch.setattr(tables, "MOST_LINES", 100)
    assert "at most 100 lines" in refusal(workbook(path, one=[["a"], *[[1]] * 100]))
    entities = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY a{k} "{(f"&a{k - 1};" if k else "&a;") * 10}">' for k in range(9)
    )
    laughs = f"{entities}]>{begin}<sheetData><row><c><v>&a8;</v></c></row>{end}"
    for text in (laughs, "<not", ""):
        damaged = with_part(workbook(path, one=TABLE), sheet, text)
        assert "not a readable Excel workbook" in refusal(damaged) or not text
    cut = write(tmp_path, workbook(path, one=TABLE).read_bytes()[:900], "label.xlsx")
    assert "not an Excel workbook" in refusal(cut)
