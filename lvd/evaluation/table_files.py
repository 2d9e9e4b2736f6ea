"""What test_accuracy.py --table prints and writes."""

from lvd.evaluation import vote_report as report
from lvd.evaluation.figures import save_grid_figure, save_step_figure
from lvd.evaluation.naming import naming_tables
from lvd.evaluation.tables import save_table
from lvd.rules.carried import own_steps_text
from lvd.rules.vote import VoteRule
from lvd.utils.config import versions
from lvd.utils.files import save_text, save_yaml
from lvd.utils.plots import drawn


def write_table(scores, videos, rule, folder, settings):
    """Print and write the grid, the per-step table, the naming and the settings.

    Args:
        scores: content of scores.pth; None: there is none.
        videos: of lvd.evaluation.vote_report.balanced.
        rule: Rule, in the steps of the videos.
        folder: where the files go.
        settings: what made them (plain values).

    Returns:
        Their paths.
    """
    steps = len(videos[0][1])
    etas = list(range(1, steps + 1))
    grid = report.grid(videos, etas)
    per_step = report.per_step(videos, steps, scores)
    text = _grid_text(grid, videos, rule, settings)
    print(text)
    save_text(text + "\n", folder / "grid.txt")
    save_table(grid, folder / "grid.csv")
    save_table(per_step, folder / "per_step.csv")
    about = {
        **settings,
        "balance_seed": report.BALANCE_SEED,
        "lambdas": list(report.LAMBDAS),
        "etas": etas,
        "versions": versions(),
    }
    save_yaml(about, folder / "table.yaml")
    names = ("grid.txt", "grid.csv", "per_step.csv", "table.yaml")
    title = f"{len(videos) // 2} unsafe and {len(videos) // 2} normal held-out videos"
    return [
        *(folder / name for name in names),
        *drawn(save_grid_figure, grid, folder / "grid.png", title),
        *drawn(save_step_figure, per_step, folder / "per_step.png", title),
        *_write_naming(scores, rule, settings, folder),
    ]


def _grid_text(grid, videos, rule, settings):
    """The three grids as text, and how far they can be trusted."""
    shown = report.some_etas(len(videos[0][1]))
    parts = [report.grid_text(grid, name, shown) for name in ("accuracy", "tpr", "tnr")]
    asked_for = (rule.lambda_, rule.eta) if isinstance(rule, VoteRule) else (None, None)
    notes = report.grid_notes(videos, grid, *asked_for)
    if own_steps := own_steps_text(settings.get("trained_steps")):
        notes = f"{own_steps}\n{notes}"
    return "\n\n".join([*parts, notes])


def _write_naming(scores, rule, settings, folder):
    """Print and write how the unsafe videos are named that the rule finds; return the paths."""
    if not scores or settings.get("unsafe_diffusion"):
        return []
    naming = naming_tables(scores, rule)
    if naming is None:
        return []
    print("\n" + naming.text)
    save_text(naming.text + "\n", folder / "naming.txt")
    save_table(naming.table, folder / "naming.csv")
    return [folder / "naming.txt", folder / "naming.csv"]
