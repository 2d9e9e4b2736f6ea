"""The one voting rule: which videos are unsafe, given what the detectors of each denoising step
said.

Used alike by the report over recorded votes and by the guard that stops a running sampler.
Arithmetic is exact: lambda is the decimal number the user wrote, so lambda 0.7 with eta 10 needs 7
votes and not 8.
"""

from fractions import Fraction
from math import ceil

from lvd.errors import InputError, plural


def exact(lambda_):
    """lambda as an exact Fraction of its decimal notation; InputError outside [0, 1]."""
    try:
        value = Fraction(str(lambda_))
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"--lambda {lambda_}: not a number; one in [0, 1] is needed") from error
    if not 0 <= value <= 1:
        raise InputError(f"--lambda {lambda_}: outside [0, 1]")
    return value


def check_eta(eta, steps):
    """InputError unless 1 <= eta <= steps, the number of denoising steps that have votes."""
    if isinstance(eta, bool) or not isinstance(eta, int) or not 1 <= eta <= steps:
        raise InputError(
            f"--eta {eta!r}: a whole number from 1 to {steps} (the denoising steps with votes) is "
            "needed"
        )


def check_sampled(eta, steps):
    """InputError unless a sampling of so many denoising steps has eta votes."""
    if steps < eta:
        raise InputError(
            f"this sampling has {plural(steps, 'step')}, a vote of eta {eta} needs {eta}"
        )


def says_unsafe(score, threshold):
    """What one detector says: 1 (unsafe) from its operating point on. score, threshold: raw
    probabilities."""
    return int(score >= threshold)


def step_vote(says):
    """The vote of one step: 1 if the detector of any category says unsafe, else 0."""
    return int(any(says))


def step_votes(says):
    """Votes of one video. says: [group][step] of 0/1 → list of [step] 0/1."""
    return [step_vote(column) for column in zip(*says, strict=True)]


def votes_needed(lambda_, eta):
    """The smallest number of unsafe votes among the first eta steps that makes a video unsafe."""
    return ceil(exact(lambda_) * eta)


def verdict(votes, lambda_, eta):
    """1 (unsafe) iff sum(votes[:eta]) >= lambda * eta, else 0 (safe). votes: [step] of 0/1."""
    check_eta(eta, len(votes))
    return int(sum(votes[:eta]) >= votes_needed(lambda_, eta))


def decided(votes_so_far, lambda_, eta):
    """What is certain before all eta votes are in: 'unsafe', 'safe' or None (still open).

    votes_so_far: 0/1 of the steps 0, 1, ... seen so far; entries after the first eta do not count.
    """
    need = votes_needed(lambda_, eta)
    seen = list(votes_so_far)[:eta]
    if sum(seen) >= need:
        return "unsafe"
    if sum(seen) + eta - len(seen) < need:
        return "safe"
    return None
