"""The held-out videos under other conditions: other words, noise, guidance scales and samplings."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvd.errors import plural
from lvd.evaluation.recorded import raw_scores
from lvd.rules.carried import carry
from lvd.rules.vote import VoteRule
from lvd_study.differences import area_difference, difference, paired_difference
from lvd_study.judged import LAMBDA, papers_and_chosen
from lvd_study.settings import sampling_of

AS_TRAINED = "as trained"


@dataclass(frozen=True)
class Change:
    """Videos under one condition, and what the detectors of all seeds say of them.

    Attributes:
        name: what tables call the condition.
        votes: [Votes], one a seed.
        is_paired: whether they are of the same prompts as the held-out videos, in that order.
    """

    name: str
    votes: list
    is_paired: bool = True

    def refused(self, study):
        """Return why the detectors do not serve this sampling; "" where they do."""
        ledger = study.ledger()
        found = [ledger.find(votes.task) for votes in self.votes]
        return next((done.refused for done in found if done and done.refused), "")


def changes_of(study, trained):
    """Return the Changes that the settings name, the held-out videos as they are first.

    Args:
        study: Study.
        trained: [Trained], one a seed.
    """
    settings = study.settings
    again = study.sampled_again
    found = [(AS_TRAINED, study.held_out, True)]
    if settings.reworded:
        paths = {key: Path(path) for key, path in settings.reworded.items()}
        found.append(("other words", study.of_prompts("reworded", **paths), False))
    for number in range(1, settings.other_seeds + 1):
        found.append((f"other noise {number}", again(f"other noise {number}", again=number), True))
    for scale in settings.guidance_scales:
        name = f"guidance {scale:g}"
        found.append((f"guidance scale {scale:g}", again(name, f"guidance_scale={scale}"), True))
    for text in settings.samplings:
        scheduler, steps = sampling_of(text, "study.yaml")
        words = (f"scheduler={scheduler}", f"steps={steps}")
        found.append((f"{scheduler}, {steps} steps", again(f"{scheduler} {steps}", *words), True))
    return [
        Change(name, [study.votes(each, videos) for each in trained], is_paired)
        for name, videos, is_paired in found
    ]


@dataclass(frozen=True)
class Seen:
    """A Change whose tasks are done.

    Attributes:
        change: Change.
        recordings: [Recording], one a seed.
        judged: {rule: OverSeeds}.
    """

    change: Change
    recordings: list
    judged: dict

    @property
    def order(self):
        """Positions of the videos: the unsafe ones first, each kind by number of the row."""
        videos = self.recordings[0].videos
        return np.lexsort((np.array(videos.rows, int), ~videos.is_unsafe))

    def right(self, rule):
        """Return whether a rule judges the videos as what they are: (unsafe, normal)

        bool [seeds, videos] each, in `order`.
        """
        over, order = self.judged[rule], self.order
        right = (over.stopped == over.is_unsafe)[:, order]
        is_unsafe = over.is_unsafe[order]
        return right[:, is_unsafe], right[:, ~is_unsafe]

    def scores(self, eta):
        """Return the largest scores at the last step that a vote of eta looks at: (unsafe, normal)

        float [seeds, videos] each, in `order`.
        """
        order = self.order
        is_unsafe = self.recordings[0].videos.is_unsafe[order]
        scores = largest_scores(self.recordings, eta)[:, order]
        return scores[:, is_unsafe], scores[:, ~is_unsafe]


def see(change, chosen):
    """Return the Seen of a Change.

    Args:
        change: Change, of votes that are there.
        chosen: of lvd_study.judged.all_chosen.
    """
    recordings = [votes.recording() for votes in change.votes]
    return Seen(change, recordings, papers_and_chosen(recordings, chosen))


def largest_scores(recordings, eta):
    """Return the largest raw probability over the categories, [seeds, videos].

    Args:
        recordings: [Recording], one a seed.
        eta: in trained steps: the last step that a vote over as wide a stretch looks at is taken.
    """
    found = []
    for recording in recordings:
        rule = carry(VoteRule(LAMBDA, eta), recording.videos.trained_steps)
        found.append(raw_scores(recording.scores)[:, rule.horizon - 1].max(1))
    return np.array(found)


def after_steps(steps):
    """Return what tables call the moment after so many steps: "after 5 steps"."""
    return f"after {plural(steps, 'step')}"


def accuracy_difference(before, after, rule):
    """Return the Estimate of how much more often a rule is right than on the videos before.

    Args:
        before, after: Seen.
        rule: a name that both have.
    """
    if after.change.is_paired:
        return paired_difference(*zip(before.right(rule), after.right(rule), strict=True))
    return difference(after.judged[rule].accuracy(), before.judged[rule].accuracy())


def auroc_difference(before, after, eta):
    """Return the Estimate of how much larger the AUROC is than on the videos before."""
    return area_difference(before.scores(eta), after.scores(eta), after.change.is_paired)
