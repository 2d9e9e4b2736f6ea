"""What rules do to the videos that detectors of several seeds have looked at."""

from dataclasses import dataclass

import numpy as np

from lvd.errors import InputError
from lvd.evaluation.rule_report import report_of
from lvd.rules.carried import carry
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.vote import VoteRule
from lvd_study.intervals import f1_of, mean_of, share
from lvd_study.names import RULES

LAMBDA = "0.6"
ETAS = (5, 20)  # the paper's points
BOUND = 0.9  # of a confidence rule that was chosen for no detectors


@dataclass(frozen=True)
class OverSeeds:
    """What one rule of each seed does to the same videos.

    Attributes:
        stopped: bool [seeds, videos], whether each is stopped, the unsafe ones first.
        costs: float [seeds, unsafe videos], share of the steps that each takes.
        looked_at: int [seeds, videos], steps that the detectors look at.
        is_unsafe: bool [videos].
        steps: of a whole sampling.
        named: names of the videos, [videos].
    """

    stopped: np.ndarray
    costs: np.ndarray
    looked_at: np.ndarray
    is_unsafe: np.ndarray
    steps: int
    named: list

    def accuracy(self):
        """Return the Estimate of the share of all videos that are judged as what they are."""
        return share(self.stopped[:, self.is_unsafe], ~self.stopped[:, ~self.is_unsafe])

    def recall(self):
        """Return the Estimate of the share of unsafe videos that are stopped (TPR)."""
        return share(self.stopped[:, self.is_unsafe])

    def specificity(self):
        """Return the Estimate of the share of normal videos that pass (TNR)."""
        return share(~self.stopped[:, ~self.is_unsafe])

    def false_positives(self):
        """Return the Estimate of the share of normal videos that are stopped."""
        return share(self.stopped[:, ~self.is_unsafe])

    def f1(self):
        """Return the Estimate of the F1 of the unsafe videos, the mean over seeds."""
        unsafe, normal = int(self.is_unsafe.sum()), int((~self.is_unsafe).sum())
        found = self.stopped[:, self.is_unsafe].sum(1)
        false = self.stopped[:, ~self.is_unsafe].sum(1)
        mean = float(np.mean(2 * found / (found + unsafe + false)))
        return f1_of(self.recall(), self.specificity(), unsafe, normal, mean)

    def unsafe_steps(self):
        """Return [seeds, unsafe videos], the steps that each takes: all, where it is missed."""
        return np.rint(self.costs * self.steps)

    def cost(self):
        """Return the Estimate of the mean share of the steps that an unsafe video takes.

        One that is missed counts in full.
        """
        return mean_of(self.costs)

    @property
    def seeds(self):
        """How many seeds there are."""
        return len(self.stopped)


def over_seeds(rules, recordings):
    """Let one rule of each seed judge what the detectors of that seed say.

    Args:
        rules: [Rule], one a seed, stated in the recording's steps.
        recordings: [Recording], one a seed, all of the same videos.

    Returns:
        OverSeeds.

    Raises:
        InputError: they are of different videos.
    """
    need_same_rows(recordings)
    reports = [
        report_of(rule, recording.videos) for rule, recording in zip(rules, recordings, strict=True)
    ]
    first = recordings[0].videos
    return OverSeeds(
        stopped=np.array([report.is_stopped for report in reports]),
        costs=np.array([report.unsafe_costs() for report in reports]),
        looked_at=np.array([report.looked_at for report in reports]),
        is_unsafe=first.is_unsafe,
        steps=first.steps,
        named=first.names(),
    )


def need_same_rows(recordings):
    """InputError unless recordings are of the same videos in the same order."""
    first = recordings[0]
    for one in recordings:
        if one.videos.names() != first.videos.names():
            raise InputError(
                f"{one.path}: votes on other videos than {first.path}; delete the folder of the "
                "older one, and run the same command again"
            )


def etas(recordings):
    """Return the paper's numbers of steps, as far as so many are trained."""
    steps = recordings[0].videos.trained_count
    return list(dict.fromkeys(min(eta, steps) for eta in ETAS))


def votes_over_seeds(eta, recordings):
    """Let the paper's vote judge, over as wide a stretch of trained steps as eta."""
    return _carried_over_seeds(VoteRule(LAMBDA, eta), recordings)


def _carried_over_seeds(rule, recordings):
    """Let one rule, stated in trained steps, judge what the detectors of all seeds say."""
    return over_seeds([carry(rule, each.videos.trained_steps) for each in recordings], recordings)


def papers_votes(recordings):
    """Return {"(lambda, eta)": OverSeeds} of the paper's votes."""
    return {f"({LAMBDA}, {eta})": votes_over_seeds(eta, recordings) for eta in etas(recordings)}


def fixed_rules(recordings):
    """Return {rule: OverSeeds} of rules that were chosen for no detectors.

    They are the paper's votes and, where all scores are calibrated, a confidence rule of the bound
    BOUND.
    """
    judged = papers_votes(recordings)
    if all(each.videos.evidence.calibrated is not None for each in recordings):
        rule = ConfidenceRule(BOUND, recordings[0].videos.trained_count)
        judged[f"confidence {BOUND:g}"] = _carried_over_seeds(rule, recordings)
    return judged


def all_chosen(study, trained):
    """Return {families: [Chosen]}, one a seed; {} where no rule is chosen for these detectors.

    Args:
        study: Study.
        trained: [Trained] of one kind, one a seed.
    """
    if trained[0].folds is None:
        return {}
    return {families: [study.chosen(each, families) for each in trained] for families in RULES}


def papers_and_chosen(recordings, chosen):
    """Return {rule: OverSeeds} of the paper's votes and of the rules that were chosen.

    Args:
        recordings: [Recording], one a seed.
        chosen: of `all_chosen`.
    """
    judged = papers_votes(recordings)
    for families, of_seeds in chosen.items():
        if over := chosen_over_seeds(of_seeds, recordings):
            judged[RULES[families]] = over
    return judged


def chosen_over_seeds(chosen, recordings):
    """Let the rules that were chosen for each seed's detectors judge.

    Args:
        chosen: [Chosen], one a seed.
        recordings: [Recording].

    Returns:
        OverSeeds of the seeds that have a rule; None where none has.
    """
    pairs = []
    for one, recording in zip(chosen, recordings, strict=True):
        rule = one.rule(recording)
        if rule is not None:
            pairs.append((rule, recording))
    return over_seeds(*zip(*pairs, strict=True)) if pairs else None
