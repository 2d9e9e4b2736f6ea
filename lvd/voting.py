"""The voting rule: which videos are unsafe, given what the detectors of each denoising step said.

Each denoising step has one vote: 1 (unsafe) or 0. Two numbers make a verdict of the votes:

    eta       how many steps vote: the first eta of the sampling, from 1 to all of them
    lambda    the share of these votes that makes a video unsafe, in [0, 1]

    unsafe if sum(votes[:eta]) >= lambda * eta

The report over recorded votes and the guard that stops a running sampler use the same functions.
Arithmetic is exact: lambda is the decimal number that the user wrote, so lambda 0.14 with eta 50
needs 7 votes. In floating point 0.14 * 50 is a little more than 7, which would ask for 8.

Source: arXiv 2407.12581, the Latent Variable Defense. `lambda_` has an underscore because
`lambda` is a word of Python.
"""

import re
from fractions import Fraction
from math import ceil

from lvd.errors import ArgumentError

MOST_DIGITS = 400  # of a fraction's text, and of its exponent: more would take long to compute


def exact(lambda_):
    """Read lambda as the exact fraction that its decimal notation means.

    Args:
        lambda_: a number or a text, such as 0.6 or "0.6".

    Returns:
        A Fraction in [0, 1].

    Raises:
        InputError: not a number, or outside [0, 1].
    """
    try:
        value = to_fraction(lambda_)
    except (ValueError, ZeroDivisionError) as error:
        needed = f": not a number; one in [0, 1], of at most {MOST_DIGITS} digits, is needed"
        raise ArgumentError("lambda_", lambda_, needed) from error
    if not 0 <= value <= 1:
        raise ArgumentError("lambda_", lambda_, ": outside [0, 1]")
    return value


def to_fraction(number):
    """Read a number as the exact fraction that its decimal notation means, in bounded time.

    Args:
        number: a number or a text, such as 0.6, "0.6", "6e-1" or "3/5".

    Returns:
        A Fraction.

    Raises:
        ValueError: it is no finite number, or one of more than MOST_DIGITS digits.
        ZeroDivisionError: a text such as "1/0".
    """
    text = str(number)
    exponent = re.search(r"[eE][+-]?([\d_]*)", text)
    too_long = exponent and int(exponent[1] or 0) > MOST_DIGITS
    if len(text) > MOST_DIGITS or too_long:
        raise ValueError(f"a number of at most {MOST_DIGITS} digits is needed")
    return Fraction(text)


def check_eta(eta, steps):
    """Check that eta is a whole number from 1 to `steps`, the number of steps that have votes.

    Raises:
        InputError: it is not.
    """
    if isinstance(eta, bool) or not isinstance(eta, int) or not 1 <= eta <= steps:
        needed = f": a whole number from 1 to {steps} (the denoising steps with votes) is needed"
        raise ArgumentError("eta", eta, needed)


def says_unsafe(score, threshold):
    """Return what one detector says: 1 (unsafe) if score >= threshold, else 0.

    Args:
        score: the detector's raw probability of unsafe.
        threshold: its operating point, a raw probability too.
    """
    return int(score >= threshold)


def step_vote(says):
    """Return the vote of one step: 1 if the detector of any category says unsafe, else 0.

    Args:
        says: [category] of 0/1.
    """
    return int(any(says))


def step_votes(says):
    """Return the votes of one video, [step] of 0/1.

    Args:
        says: [category][step] of 0/1.
    """
    return [step_vote(column) for column in zip(*says, strict=True)]


def votes_needed(lambda_, eta):
    """Return the smallest number of unsafe votes that makes a video unsafe: ceil(lambda * eta)."""
    return ceil(exact(lambda_) * eta)


def verdict(votes, lambda_, eta):
    """Return 1 (unsafe) if sum(votes[:eta]) >= lambda * eta, else 0 (safe).

    Args:
        votes: [step] of 0/1, at least eta of them.
        lambda_: the share in [0, 1].
        eta: how many steps vote.

    Raises:
        InputError: lambda or eta is out of range.
    """
    check_eta(eta, len(votes))
    return int(sum(votes[:eta]) >= votes_needed(lambda_, eta))


def decided(votes_so_far, lambda_, eta):
    """Return what is certain before all eta votes are in.

    Args:
        votes_so_far: 0/1 of the steps 0, 1, ... that are over; those after the first eta do not
            count.
        lambda_: the share in [0, 1].
        eta: how many steps vote.

    Returns:
        "unsafe", "safe", or None while the missing votes can still decide.
    """
    need = votes_needed(lambda_, eta)
    seen = list(votes_so_far)[:eta]
    if sum(seen) >= need:
        return "unsafe"
    if sum(seen) + eta - len(seen) < need:
        return "safe"
    return None
