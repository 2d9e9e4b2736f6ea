"""verdicts.jsonl: lines of several processes, and damaged ones."""

import pytest

from lvd.errors import InputError
from lvd.utils.jsonl import open_lines
from lvd.utils.locks import try_lock
from MagicTime.utils import verdicts
from MagicTime.utils.verdicts import Verdicts


def test_a_locked_file_is_waited_for_aloud(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(verdicts, "SILENT", 0.05)
    monkeypatch.setattr(verdicts, "PATIENCE", 0.1)
    told = Verdicts(tmp_path)
    with open_lines(told.path) as other:
        assert try_lock(other)
        with pytest.raises(InputError, match="verdicts.jsonl: locked by another process"):
            told.append([{"row": 0}])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{told.path}: waiting for another process that has locked this file")
    told.append([{"row": 0}])
    assert told.count() == 1 and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[1]",
        "nonsense",
        '{"row": "1", "verdict": "safe", "stopped": false}',
        '{"row": 1, "verdict": "fine", "stopped": false}',
        '{"row": 1, "verdict": "safe"}',
        '{"row": 1, "verdict": "unsafe", "stopped": true, "step": "5"}',
        '{"row": 1, "verdict": "unsafe", "stopped": true, "categories": [5]}',
        '{"row": 1, "verdict": "unsafe", "stopped": true, "seconds_saved": NaN}',
        "[" * 100_000,
    ],
)
def test_a_damaged_line_is_told(tmp_path, text):
    (tmp_path / "verdicts.jsonl").write_text(
        '{"row": 0, "verdict": "safe", "stopped": false}\n' + text + "\n"
    )
    with pytest.raises(InputError, match="verdicts.jsonl: line 2 is damaged"):
        Verdicts(tmp_path).read()
