"""A figure shows names as they are written, needs no display, and never costs a result."""

import os
import subprocess
import sys

import pytest
from matplotlib.text import Text

from lvd.training.curves import save_curves
from lvd.utils import fonts
from lvd.utils.plots import drawn, save_figure, shown, subplots
from tests.worlds.magictime_world import ROOT

NAMES = ("Ba$$in", "_hidden")


def legend_of(names, path):
    """Draw a line for each name and return the texts of the legend."""
    figure, axis = subplots(figsize=(4, 3))
    for name in names:
        axis.plot([0, 1], [0, 1], label=shown(name))
    axis.legend()
    save_figure(figure, path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    return [text.get_text() for text in axis.get_legend().findobj(Text) if text.get_text()]


@pytest.mark.parametrize(
    "name, text",
    [
        ("Ba$$in", r"Ba\$\$in"),
        ("$x^$", r"\$x^\$"),
        ("_hidden", " _hidden"),
        ("_nolegend_", " _nolegend_"),
        ("a\nb\tc\x00", "a b c "),
        ("x" * 300, "x" * 37 + "..."),
        ("", ""),
        ("$", r"\$"),
        (r"\frac{", r"\frac{"),
    ],
)
def test_names_are_letters(name, text, tmp_path):
    assert legend_of([name, "plain"], tmp_path / "x.png") == [text, "plain"] if name else ["plain"]


def test_letters_without_a_font_are_told_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fonts, "_told", set())
    letters = "\U0001f9ff\U000e0041"
    for path in (tmp_path / "1.png", tmp_path / "2.png"):
        legend_of([f"eye {letters[0]}"], path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 1 and all(letters[0] in line for line in lines)
    monkeypatch.setattr(fonts, "_letters_of", lambda font: set("a"))
    legend_of(["abc"], tmp_path / "3.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("figures: no font here has ") and "bc" in line


def test_a_font_that_has_the_letters_is_taken(monkeypatch):
    from matplotlib import font_manager

    known = {entry.name for entry in font_manager.fontManager.ttflist}
    default = font_manager.findfont(fonts.DEFAULT_FONT)
    monkeypatch.setattr(
        fonts, "_letters_of", lambda font: set("a") if font == default else set("ab")
    )
    (chosen,) = fonts.fonts_for("ab")
    assert chosen in known and fonts.NO_FONT not in chosen
    assert fonts.fonts_for("a") == []


@pytest.mark.parametrize("error", [ValueError("a\nb"), MemoryError(), RuntimeError("x" * 500)])
def test_what_cannot_be_drawn_is_one_line(error, tmp_path, capsys):
    def save(content, path):
        raise error

    assert drawn(save, [], tmp_path / "x.png") == []
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'x.png'}: not drawn ({type(error).__name__}" in line and len(line) < 400
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        drawn(save, [], tmp_path / "x.png")


def test_curves_that_cannot_be_drawn_are_in_the_table(tmp_path, capsys):
    (tmp_path / "curves.png").mkdir()
    row = {"group": 1, "step": 0, "epoch": 1, "train_loss": 1, "val_loss": 1, "val_auroc": 0.5}
    save_curves([{**row, "category": name} for name in NAMES], tmp_path)
    assert "curves.png: not drawn (IsADirectoryError" in capsys.readouterr().err
    assert all(name in (tmp_path / "curves.csv").read_text() for name in NAMES)


PROGRAM = """
import sys
from pathlib import Path

import pretrain_mae
import test_accuracy
import train_mae
from lvd.utils.files import load_yaml, save_yaml
from tests.worlds.detector_world import make_world
from tests.worlds.scripts import embed

root = Path(sys.argv[1])
world = make_world(root)
config = load_yaml(world.data / "config.yaml")
save_yaml({**config, "categories": sys.argv[2:]}, world.data / "config.yaml")
data = ["--data_dir", str(world.data), "--eval_dir", str(world.eval), "--gpu_num", "-1"]
short = ["--epoch", "1", "--batch_size", "8"]
one = ["--step_num", "0", "--workers", "1"]
assert train_mae.main([*data, *short, "--save_dir", str(root / "grid"), *one]) == 0
flags = ["--model", "shared", "--save_dir", str(world.save)]
assert train_mae.main([*data, *short, *flags]) == 0
assert pretrain_mae.main([*data, *short, "--save_dir", str(root / "encoder")]) == 0
assert embed(world, "--label_file_dir", str(world.labels)) == 0
assert test_accuracy.main(
    ["--data_dir", str(world.results), "--table", "--metrics", "--resamples", "100"]
) == 0
assert "matplotlib.pyplot" not in sys.modules
"""
FIGURES = [
    "grid/curves.png",
    "detectors/shared_curve.png",
    "encoder/pretrained_curve.png",
    *(f"results/{name}.png" for name in ("grid", "per_step", "score_metrics", "reliability")),
]


def run_program(program, backend, *words):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, "MPLBACKEND": backend, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "not drawn" not in done.stderr, done.stderr
    return done.stdout


def test_the_scripts_draw_whatever_the_backend(tmp_path):
    run_program(PROGRAM, "bogus", tmp_path, *NAMES)
    for name in FIGURES:
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG", name


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "tkagg", ""])
def test_the_backend_of_others_stays_theirs(backend, tmp_path):
    save = f"save_figure(subplots()[0], {str(tmp_path / 'x.png')!r})"
    told = "; import os; print(os.environ['MPLBACKEND'])"
    program = f"from lvd.utils.plots import save_figure, subplots; {save}{told}"
    assert run_program(program, backend).strip() == backend
    assert (tmp_path / "x.png").exists()
