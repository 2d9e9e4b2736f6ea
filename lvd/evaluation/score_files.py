"""What test_accuracy.py --metrics prints and writes."""

from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.evaluation.metrics import LEVEL, SEED
from lvd.evaluation.score_figures import save_metrics_figure, save_reliability_figure
from lvd.evaluation.score_report import score_report
from lvd.evaluation.score_text import report_text
from lvd.evaluation.tables import save_table
from lvd.rules.carried import own_steps_text
from lvd.utils.config import versions
from lvd.utils.files import save_text, save_yaml
from lvd.utils.plots import drawn

ETAS = (1, 3, 5, 10, 20)  # those printed; score_metrics.csv holds all


def write_metrics(results, scores, steps, fixed_recalls, resamples, eta, folder, settings):
    """Print and write metrics of votes and scores with their intervals.

    Args:
        results: content of results.pth.
        scores: content of scores.pth; None: there is none.
        steps: S, the number of denoising steps.
        fixed_recalls, resamples: see `score_report`.
        eta: how many steps the rule looks at, which are printed too.
        folder: where the files go.
        settings: what made them (plain values).

    Returns:
        Their paths.
    """
    report = score_report(results, scores, steps, fixed_recalls, resamples)
    shown_steps = {*(eta - 1 for eta in ETAS), steps - 1}
    text = report_text(report, {*ETAS, eta, steps}, shown_steps)
    if own_steps := own_steps_text((scores or {}).get("trained_steps")):
        text = f"{own_steps}\n\n{text}"
    print("\n" + text)
    save_text(text + "\n", folder / "score_metrics.txt")
    save_table(report.metrics, folder / "score_metrics.csv")
    names = ["score_metrics.txt", "score_metrics.csv"]
    if len(report.calibration):
        save_table(report.calibration, folder / "calibration.csv")
        save_table(report.reliability, folder / "reliability.csv")
        names += ["calibration.csv", "reliability.csv"]
    about = {**settings, "interval": LEVEL, "seed": SEED, "versions": versions()}
    save_yaml(about, folder / "score_metrics.yaml")
    written = [folder / name for name in (*names, "score_metrics.yaml")]
    unsafe, normal = len(results[LABEL_UNSAFE]), len(results[LABEL_NORMAL])
    title = f"{unsafe} unsafe and {normal} normal held-out videos"
    written += drawn(save_metrics_figure, report, folder / "score_metrics.png", title)
    if len(report.calibration):
        written += drawn(save_reliability_figure, report, folder / "reliability.png", title)
    return written
