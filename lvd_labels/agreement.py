"""How much raters agree: by category, and each rater with the others.

Agreement is of the answers "the video shows it" and "it does not", category by category: 1 is
perfect, 0 what chance would give to raters who answer as often so. "Cannot tell" is a missing
answer.

Sources: Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), by the library
krippendorff; Fleiss, "Measuring nominal scale agreement among many raters" (1971), by statsmodels.
"""

import math
import warnings
from collections import Counter

import numpy as np

from lvd.utils.progress import progress

ANY = "any category"
RESAMPLES, SEED = 500, 2024
LIBRARIES = ("krippendorff", "statsmodels")
FEWEST_VIDEOS = 10  # for an interval


def answers_of(ratings, categories):
    """Return {category: {video: {rater: 0 or 1}}} of the judgements, and of "any category".

    Args:
        ratings: {video: {rater: Answer}}.
        categories: names.
    """
    found = {category: {} for category in [*categories, ANY]}
    for video, answers in ratings.items():
        judged = {rater: one for rater, one in answers.items() if not one.no_judgement}
        chosen = {r: {c.lower() for c in one.categories} for r, one in judged.items()}
        for category in categories:
            found[category][video] = {r: int(category.lower() in chosen[r]) for r in judged}
        found[ANY][video] = {r: int(bool(chosen[r])) for r in judged}
    return found


def agreement_table(answers):
    """Return a line for each category, of the videos that two raters or more judged.

    Args:
        answers: of `answers_of`.

    Returns:
        [{column: value}]; None where a number is not defined: all answers are the same.
    """
    table = []
    for category, of_videos in progress(list(answers.items()), "agreement", unit="category"):
        shared = [list(one.values()) for one in of_videos.values() if len(one) >= 2]
        counts = np.array([[one.count(0), one.count(1)] for one in shared]).reshape(-1, 2)
        low, high = _interval(counts)
        kappa, videos, raters = fleiss(counts)
        table.append(
            {
                "category": category,
                "videos": len(shared),
                "chosen": _share(counts),
                "krippendorff_alpha": alpha(counts),
                "alpha_low": low,
                "alpha_high": high,
                "fleiss_kappa": kappa,
                "fleiss_videos": videos,
                "fleiss_raters": raters,
            }
        )
    return table


def alpha(counts):
    """Return Krippendorff's alpha for nominal values.

    Args:
        counts: int [videos, values], how many raters gave which value; their number may differ.

    Returns:
        A float; None where it is not defined: there is one value only, or no video.
    """
    import krippendorff

    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


def fleiss(counts):
    """Return Fleiss' kappa of the videos with the most common number of raters.

    It needs the same number for all videos.

    Args:
        counts: int [videos, values].

    Returns:
        (kappa or None where it is not defined, videos it is of, raters of each).
    """
    from statsmodels.stats.inter_rater import fleiss_kappa

    if not len(counts):
        return None, 0, 0
    totals = counts.sum(axis=1).tolist()
    raters = max(Counter(totals).items(), key=lambda item: (item[1], item[0]))[0]
    same = counts[np.array(totals) == raters]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of a division by zero: all answers are the same
        kappa = float(fleiss_kappa(same))
    return _finite(kappa), len(same), raters


def _interval(counts):
    """A 95% interval of alpha: percentiles over videos drawn anew; (None, None): too few."""
    if len(counts) < FEWEST_VIDEOS or alpha(counts) is None:
        return None, None
    draw = np.random.default_rng(SEED)
    again = (alpha(counts[draw.integers(0, len(counts), len(counts))]) for _ in range(RESAMPLES))
    defined = [value for value in again if value is not None]
    return tuple(float(end) for end in np.percentile(defined, (2.5, 97.5)))


def _share(counts):
    """Of all answers, the share that says the video shows it."""
    return float(counts[:, 1].sum() / counts.sum()) if len(counts) else None


def rater_table(ratings, categories, not_rated):
    """Return a line for each rater: how much they agree with the majority of the others.

    Args:
        ratings: {video: {rater: Answer}}.
        categories: names.
        not_rated: {rater: how many of their ratings do not count}.

    Returns:
        [{column: value}], those who agree least first. "same" is the share of the videos of which
        the rater says exactly what the majority of the others says, "kappa" is Cohen's over all
        questions "does the video show this category?": it is 0 for who answers at random.
    """
    answers = answers_of(ratings, categories)
    of_rater = {rater: [] for one in ratings.values() for rater in one}
    of_rater |= {rater: [] for rater in not_rated if rater not in of_rater}
    for video in ratings:
        for rater in answers[ANY][video]:
            pairs = [_against(answers[category][video], rater) for category in categories]
            of_rater[rater].append([pair for pair in pairs if pair])
    table = [_rater_line(rater, ratings, of_rater[rater], not_rated) for rater in of_rater]
    return sorted(table, key=lambda line: (_last(line["kappa"]), line["rater"]))


def _against(answers, rater):
    """(what a rater says, what the majority of the others says); None without a majority."""
    others = [value for other, value in answers.items() if other != rater]
    if 2 * sum(others) == len(others):
        return None
    return answers[rater], int(2 * sum(others) > len(others))


def _rater_line(rater, ratings, videos, not_rated):
    compared = [pairs for pairs in videos if pairs]
    given = [answers[rater] for answers in ratings.values() if rater in answers]
    judged = [answer for answer in given if not answer.no_judgement]
    return {
        "rater": rater,
        "judged": len(judged),
        "cannot_tell": len(given) - len(judged),
        "not_counted": not_rated.get(rater, 0),
        "says_unsafe": _mean([bool(one.categories) for one in judged]),
        "compared": len(compared),
        "same": _mean([all(own == others for own, others in pairs) for pairs in compared]),
        "kappa": cohen([pair for pairs in compared for pair in pairs]),
    }


def cohen(pairs):
    """Return Cohen's kappa of [(0 or 1, 0 or 1)]; None where it is not defined."""
    from statsmodels.stats.inter_rater import cohens_kappa

    table = np.zeros((2, 2))
    for own, others in pairs:
        table[own, others] += 1
    if not pairs or max(table[0].sum() * table[:, 0].sum(), table[1].sum() * table[:, 1].sum()) == (
        len(pairs) ** 2
    ):
        return None
    return _finite(float(cohens_kappa(table, return_results=False)))


def _mean(values):
    return sum(values) / len(values) if values else None


def _finite(value):
    return value if math.isfinite(value) else None


def _last(value):
    """A key that sorts None after all numbers."""
    return math.inf if value is None else value
