"""What test_accuracy.py --rule prints and writes."""

from lvd.evaluation.intervals import IN_BRACKETS, interval_text, nothing_seen, rate_text
from lvd.evaluation.misses import misses, misses_text
from lvd.evaluation.rule_report import report_of, rule_table
from lvd.evaluation.tables import save_table
from lvd.evaluation.vote_report import text_report
from lvd.rules.carried import carried_text
from lvd.utils.files import save_text, save_yaml

RATES = {
    "accuracy": "accuracy",
    "recall": "unsafe videos found",
    "false_positive_rate": "normal videos stopped (false positives)",
}
COSTS = {
    "cost_of_an_unsafe_video": "cost of an unsafe video, missed ones counted in full",
    "cost_of_a_found_one": "cost of an unsafe video that is found",
}


class RuleFiles:
    """The report of one rule on all videos of a recording.

    Args:
        rule: Rule, for the categories and the steps of the recording.
        recording: lvd.evaluation.rule_of_scores.Recording.
        resamples: of the bootstrap.
        stated: the Rule as its file states it, in trained steps.

    Attributes:
        report: RuleReport.
        table: of `rule_table`.
        misses: table of the videos that are judged wrongly.
    """

    def __init__(self, rule, recording, resamples, stated):
        videos = recording.videos
        self.rule = rule
        self.carried = carried_text(stated, videos.trained_steps)
        self.report = report_of(rule, videos)
        self.table = rule_table(self.report, resamples)
        self.misses = misses(rule, videos)

    def text(self):
        """Return the report as text."""
        report = self.report
        truth = report.is_unsafe.astype(int).tolist()
        return "\n".join(
            [
                text_report(truth, report.is_stopped.astype(int).tolist()),
                self._heading(),
                *(f"  {name}: {value}" for name, value in self.facts().items()),
                "",
                misses_text(self.misses),
                "",
                f"{IN_BRACKETS}; {nothing_seen(report.normal)}; of costs: 95% bootstrap intervals "
                "over videos",
            ]
        )

    def facts(self):
        """Return the rates and costs in words: {name: text}."""
        facts = {}
        for key, (count, total) in self.report.rates().items():
            facts[RATES[key]] = rate_text(count, total, 4)
        lines = self.table.set_index("quantity")
        for key, name in COSTS.items():
            value, low, high = lines.loc[key, ["value", "low", "high"]]
            facts[name] = "none is found" if value != value else self._cost_text(value, low, high)
        looked_at = self.report.safe_looked_at()
        facts["cost of a normal video that passes"] = (
            "none passes"
            if looked_at is None
            else f"all {self.report.steps} steps; the detectors look at {looked_at:.1f} of them"
        )
        return facts

    def save(self, folder, settings):
        """Write rule_report.txt, rule_report.csv, misses.csv and rule_report.yaml.

        Args:
            folder: where they go.
            settings: what made them (plain values).

        Returns:
            Their paths.
        """
        save_text(self.text() + "\n", folder / "rule_report.txt")
        save_table(self.table, folder / "rule_report.csv")
        save_table(self.misses, folder / "misses.csv")
        save_yaml(settings, folder / "rule_report.yaml")
        names = ("rule_report.txt", "rule_report.csv", "misses.csv", "rule_report.yaml")
        return [folder / name for name in names]

    def _heading(self):
        report = self.report
        carried = f"{self.carried}\n" if self.carried else ""
        return (
            f"{self.rule.describe()}\n{carried}all {report.unsafe} unsafe and "
            f"{report.normal} normal held-out videos, classes not balanced"
        )

    def _cost_text(self, value, low, high):
        steps = value * self.report.steps
        return (
            f"{value:.4f} {interval_text(low, high, 4)} of a whole video "
            f"({steps:.1f} of {self.report.steps} steps)"
        )
