"""The paper's rule: the votes of the first eta steps against a threshold lambda."""

from dataclasses import dataclass, replace
from fractions import Fraction

from lvd.rules.rule import OPEN, UNSAFE, Rule
from lvd.voting import check_eta, decided, exact, votes_needed

MOST_STEPS = 100_000  # of a sampling


@dataclass(frozen=True)
class VoteRule(Rule):
    """Unsafe if (unsafe votes of the first eta steps) >= lambda * eta.

    A step votes unsafe when the detector of any category says so at its threshold.

    Args:
        lambda_: the share of unsafe votes that makes a video unsafe, in [0, 1]; a text is exact.
        eta: how many steps vote.

    Source: arXiv 2407.12581. The arithmetic is lvd.voting's.
    """

    lambda_: str | float | Fraction = "0.6"
    eta: int = 5

    family = "vote"

    def __post_init__(self):
        exact(self.lambda_)
        check_eta(self.eta, MOST_STEPS)

    @property
    def horizon(self):
        return self.eta

    @property
    def needed(self):
        """How many unsafe votes make a video unsafe."""
        return votes_needed(self.lambda_, self.eta)

    def votes(self, evidence):
        """Return the vote of each step, int [N, n]."""
        return evidence.says.any(2).astype(int)

    def passed(self, evidence):
        votes = self.votes(evidence)
        passed = votes.cumsum(1) >= self.needed
        passed[:, self.eta :] = False
        return passed[:, :, None]

    def answers(self, evidence):
        answers = [decided(votes, self.lambda_, self.eta) for votes in self.votes(evidence)]
        return [answer or OPEN for answer in answers]

    def as_dict(self):
        return {"lambda": str(self.lambda_), "eta": self.eta}

    def describe(self):
        return f"lambda {self.lambda_}, eta {self.eta}"

    def over(self, steps):
        return replace(self, eta=steps)

    def span(self):
        return f"a vote of eta {self.eta}"

    def reason(self, evidence):
        (votes,) = self.votes(evidence.first(self.eta))
        return (
            f"{votes.sum()} of {len(votes)} steps voted unsafe, {self.needed} of "
            f"{self.eta} make a video unsafe"
        )

    def accused(self, evidence):
        """Return the categories that said unsafe, the most frequent first; [] for a safe video."""
        counts = evidence.says[0, : self.eta].sum(0)
        if self.answers(evidence) != [UNSAFE]:
            return []
        return [int(column) for column in (-counts).argsort(kind="stable") if counts[column]]
