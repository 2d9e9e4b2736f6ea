"""What every script does with input that it cannot use."""

import re

PROGRESS = re.compile(r"(held-out )?clips: \d+ of \d+")


def refused(status, capsys, *words, alone=False):
    """Check that a command refused its input, and return the line that says so.

    Args:
        status: the command's exit status, which must be 2.
        capsys: pytest's; one line of stderr must begin with "error: ", and none be a traceback.
        words: texts that the line must hold.
        alone: whether stderr may hold nothing else but lines of progress.
    """
    text = capsys.readouterr().err
    lines = [line for line in re.split(r"[\r\n]+", text) if line]
    errors = [line for line in lines if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and "Traceback" not in text, text
    if alone:
        assert [line for line in lines if not PROGRESS.match(line)] == errors
    for word in words:
        assert word in errors[0], errors[0]
    return errors[0]
