"""Whatever a command was given, it complains in one line of fewer than 300 characters."""

import pytest

from lvd.utils.cli import Parser, one_line, run_command
from tests.worlds.refusals import refused


def parser():
    words = Parser("", "")
    words.add_argument("--eta", type=int)
    words.add_argument("--data_dir")
    words.add_argument("--size", choices=("nano", "tiny"))
    return words


def read(args):
    with open(args.data_dir or "", "rb"):
        raise AssertionError("there is no such file")


@pytest.mark.parametrize(
    "value", ["x" * 5000, "9" * 5000, "a\nerror: b", "a\r\nb", "\x0b", "é\u2028x"]
)
@pytest.mark.parametrize("flag", ["--eta", "--data_dir", "--size"])
def test_a_value_is_told_in_one_short_line(flag, value, capsys):
    status = run_command(parser(), read, [f"{flag}={value}"])
    line = refused(status, capsys, value[:1].strip(), alone=True)
    assert len(line) < 300 and (flag == "--data_dir" or flag in line)


def test_both_ends_of_a_long_message_are_kept():
    assert one_line("short: two  blanks") == "short: two  blanks"
    path = "/" + "a" * 150 + "/config.yaml"
    cut = one_line(f"error: {path}: not {path}; give one" + " word" * 20)
    assert len(cut) < 300 and cut.count("/config.yaml") == 2 and cut.endswith("word")
    assert len(one_line("many words " * 100)) < 300
    key = one_line(
        f"error: made with dreambooth_path={'y' * 200}, now it is {'z' * 200}; use another"
    )
    assert "made with dreambooth_path=yyyyyyyyyyyy...yyy" in key and len(key) < 300
    cut = one_line("error: " + "x" * 1000 + ": a number is needed")
    assert len(cut) < 300 and cut.startswith("error: xx") and cut.endswith("a number is needed")
