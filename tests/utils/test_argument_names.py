"""Messages call an argument by its Python name to who calls lvd, and by its flag to who runs a
script."""

import ast
import pickle
import re

import pytest

from lvd.errors import ArgumentError, InputError, as_key
from lvd.utils.cli import Parser, run_command
from lvd.utils.config import ROOT
from tests.worlds.refusals import refused

WAY_OUT = ArgumentError(
    "allow_unknown",
    True,
    " if it fits",
    before="a.pth: unknown; train it, or give ",
    is_advice=True,
)


@pytest.mark.parametrize(
    ("error", "python", "key", "flag", "command"),
    [
        (
            ArgumentError("lambda_", "x", ": not a number"),
            "lambda_='x': not a number",
            "lambda 'x': not a number",
            "--lambda",
            "--lambda x: not a number",
        ),
        (ArgumentError("eta", 0, ": 1 is needed"), "eta=0: 1 is needed", "eta 0: 1 is needed")
        + ("--eta", "--eta 0: 1 is needed"),
        (
            WAY_OUT,
            "a.pth: unknown; train it, or give allow_unknown=True if it fits",
            "a.pth: unknown; train it, or give allow_unknown True if it fits",
            "--guard-allow-unknown",
            "a.pth: unknown; train it, or give --guard-allow-unknown if it fits",
        ),
    ],
)
def test_names_of_an_argument(error, python, key, flag, command):
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == python
    assert as_key(error) == key and as_key(InputError("as it is")) == "as it is"
    assert error.as_flag(flag) == command


@pytest.mark.parametrize(
    ("flags", "name", "expected"),
    [
        (["--lambda", "--eta"], "lambda_", "--lambda"),
        (["--guard-allow-unknown", "--guard"], "allow_unknown", "--guard-allow-unknown"),
        (["--operating_point"], "operating_point", "--operating_point"),
        (["--etas"], "eta", "--etas"),
        (["--beta", "--zeta"], "eta", None),
    ],
)
def test_the_flag_of_an_argument(flags, name, expected):
    parser = Parser("", "")
    for flag in flags:
        parser.add_argument(flag)
    assert parser.flag_of(name) == expected


@pytest.mark.parametrize(("flag", "said"), [("--allow-unknown", True), ("--other", False)])
def test_a_command_without_the_flag_leaves_the_advice_out(capsys, flag, said):
    def work(args):
        raise WAY_OUT

    parser = Parser("", "")
    parser.add_argument(flag)
    line = refused(run_command(parser, work, []), capsys, "a.pth: unknown; train it")
    assert ("--allow-unknown if it fits" in line) == said and "allow_unknown" not in line


# A script names the flag; in Python the same mistake names the argument (tests/guard).
SCRIPTS_ALONE = {"pretrained.py", "base_model.py"}  # of lvd/detectors: what only train_mae.py calls
SCRIPTS_SAY = {  # the names that scripts give to what they were given, and advice to one of them
    "--model_dir ",
    "--rule ",
    "train it on these; for the same prompts in other steps give --allow_other_eval",
}


def messages(path):
    """The texts of a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    documented = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    return [each.value for each in strings if each not in documented and type(each.value) is str]


def test_no_flag_stands_in_a_message_that_python_callers_read():
    folders = [ROOT / "lvd" / name for name in ("x0", "detectors", "rules", "guard")]
    modules = [path for folder in folders for path in folder.glob("*.py")]
    for path in [*modules, ROOT / "lvd" / "voting.py"]:
        if path.name in SCRIPTS_ALONE:
            continue
        for text in messages(path):
            flags = re.findall(r"(?<!\.py )--[a-z]\w*", text)
            assert not flags or text in SCRIPTS_SAY, f"{path}: {text}"
