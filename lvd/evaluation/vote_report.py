"""How good are the recorded votes, for one (lambda, eta) or the whole grid? Classes are balanced
as in the paper's code."""

import random

import numpy as np
import pandas as pd

from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.evaluation.categories import category_names, members_of
from lvd.evaluation.intervals import IN_BRACKETS, nothing_seen, rate_text
from lvd.evaluation.metrics import ANY, auroc
from lvd.evaluation.results import score_table
from lvd.rules.evidence import Evidence
from lvd.rules.rule import NEVER
from lvd.rules.vote import VoteRule
from lvd.voting import check_eta

LAMBDAS = tuple(k / 10 for k in range(1, 11))
BALANCE_SEED = 20240603  # the released code's


def balanced_rows(results):
    """Choose as many videos of each class as the smaller class has.

    For each label, "1" first, the rows in stored order are shuffled by one generator, seeded once,
    and the first ones are kept. Source: the released code.

    Args:
        results: {"1": {row: [vote] * S}, "0": {...}}.

    Returns:
        [(label, row)].
    """
    rng = random.Random(BALANCE_SEED)
    count = min(len(results[LABEL_UNSAFE]), len(results[LABEL_NORMAL]))
    chosen = []
    for label in (LABEL_UNSAFE, LABEL_NORMAL):
        rows = list(results[label])
        rng.shuffle(rows)
        chosen += [(label, row) for row in rows[:count]]
    return chosen


def balanced(results):
    """Return [(label, votes)] of the `balanced_rows`; label 1 for unsafe and 0 for normal."""
    return [(int(label), results[label][row]) for label, row in balanced_rows(results)]


def verdicts(videos, lambda_, eta):
    """Return (true classes, predicted classes) of [(label, votes)] by the voting rule."""
    stops = _stops(videos, lambda_, eta)
    return [label for label, _ in videos], (stops != NEVER).astype(int).tolist()


def evidence_of(videos):
    """Return the Evidence of [(label, votes)]: the votes of all categories as those of one."""
    votes = np.array([votes for _, votes in videos], bool)
    return Evidence(votes.reshape(len(videos), -1, 1))


def _stops(videos, lambda_, eta):
    """Return after which step each video is unsafe, int [N]; NEVER for one that is not."""
    evidence = evidence_of(videos)
    check_eta(eta, evidence.steps)
    return VoteRule(lambda_, eta).stops(evidence)


def vote_of_step(videos, step):
    """Return (true classes, predicted classes) where the vote of one step decides alone."""
    truth = [label for label, _ in videos]
    predicted = [votes[step] for _, votes in videos]
    return truth, predicted


def last_step(videos):
    """Return the verdicts of the baseline "Unsafe Diffusion": the vote of the last step alone.

    Source: the released code.
    """
    return vote_of_step(videos, -1)


def counts(truth, predicted):
    """Return {"accuracy", "tpr", "tnr"} of two lists of 0 and 1; 1 (unsafe) is positive."""
    truth = np.array(truth)
    predicted = np.array(predicted)
    return {
        "accuracy": float((truth == predicted).mean()),
        "tpr": float(predicted[truth == 1].mean()),
        "tnr": float(1 - predicted[truth == 0].mean()),
    }


def text_report(truth, predicted):
    """Return the text of scikit-learn's `classification_report`."""
    from sklearn.metrics import classification_report

    return classification_report(
        truth,
        predicted,
        labels=[0, 1],
        target_names=["normal (0)", "unsafe (1)"],
        digits=4,
        zero_division=0,
    )


def grid(videos, etas, lambdas=LAMBDAS):
    """Measure the voting rule at every lambda and eta.

    Args:
        videos: [(label, votes)] of `balanced`.
        etas, lambdas: those of the grid.

    Returns:
        A table with the columns lambda, eta, accuracy, tpr and tnr.
    """
    lines = []
    for lambda_ in lambdas:
        for eta in etas:
            rates = counts(*verdicts(videos, lambda_, eta))
            lines.append({"lambda": lambda_, "eta": eta, **rates})
    return pd.DataFrame(lines)


def grid_text(table, column, etas):
    """Return one column of `grid` as text: a line for each lambda, a column for each of `etas`."""
    wide = table.pivot(index="lambda", columns="eta", values=column)[etas]
    heads = " ".join(f"eta {eta:>2}" for eta in etas)
    lines = [f"{column:>8}  {heads}"]
    for lambda_, values in wide.iterrows():
        cells = " ".join(f"{value:6.3f}" for value in values)
        lines.append(f"  {lambda_:>6}  {cells}")
    return "\n".join(lines)


def rates_text(truth, predicted):
    """Return accuracy, tpr and tnr of two lists of 0 and 1 with their intervals, as text."""
    right = np.array(truth) == np.array(predicted)
    unsafe = np.array(truth) == 1
    parts = {"accuracy": right, "tpr": right[unsafe], "tnr": right[~unsafe]}
    return ", ".join(f"{name} {rate_text(part.sum(), len(part))}" for name, part in parts.items())


def grid_notes(videos, table, lambda_, eta):
    """Say in words how far the cells of a grid can be trusted.

    Args:
        videos: [(label, votes)] that it was measured on.
        table: of `grid`.
        lambda_, eta: the cell that was asked for; None: none was.

    Returns:
        Lines of text.
    """
    best = table.loc[table["accuracy"].idxmax()]  # the first of the best
    cells = {"the best cell": (best["lambda"], best["eta"])}
    if eta is not None:
        cells = {"the cell asked for": (lambda_, eta), **cells}
    lines = []
    for name, (one_lambda, one_eta) in cells.items():
        rates = rates_text(*verdicts(videos, one_lambda, int(one_eta)))
        lines.append(f"{name}, lambda {one_lambda}, eta {int(one_eta)}: {rates}")
    half = len(videos) // 2
    return "\n".join(
        [
            *lines,
            f"{IN_BRACKETS}; {nothing_seen(half)}",
            f"the best of {len(table)} cells was picked on the very videos that judge it: on "
            "others it is worse; a cell that was fixed beforehand is not",
        ]
    )


def some_etas(steps):
    """Return a dozen etas up to `steps` that are worth a column."""
    wanted = {1, 2, 3, 5, 8, 10, 15, 20, 25, 30, 40, 50, steps}
    return sorted(eta for eta in wanted if eta <= steps)


def stopping_steps(videos, lambda_, eta):
    """Return after how many steps, on average, an unsafe video that is detected is decided.

    None when no unsafe video is detected. Lambda 0 is decided before the first step.
    """
    unsafe = [video for video in videos if video[0]]
    stops = _stops(unsafe, lambda_, eta) if unsafe else np.array([], int)
    detected = stops[stops != NEVER]
    if not len(detected):
        return None
    return float(np.mean(detected + 1)) if VoteRule(lambda_, eta).needed else 0.0


def per_step(videos, steps, scores=None):
    """Measure the vote of each step on its own, and how well its scores rank all videos.

    Args:
        videos: [(label, votes)].
        steps: S, the number of denoising steps.
        scores: content of scores.pth, or None.

    Returns:
        A table with a line for each step: step, accuracy, tpr, tnr and, with scores, "auroc any"
        (the largest raw probability over categories, of unsafe against normal videos) and "auroc
        {category}" (of the category's own videos against normal ones, where they are known).
    """
    lines = [{"step": step, **counts(*vote_of_step(videos, step))} for step in range(steps)]
    table = pd.DataFrame(lines)
    return table.join(_aurocs(scores), on="step") if scores else table


def _aurocs(scores):
    """Return a table over steps with a column for "auroc any" and for each category."""
    members = members_of(scores)
    table = score_table(scores)
    largest = table.groupby(["label", "row", "step"], as_index=False)["raw"].max()
    columns = {f"auroc {ANY}": _auroc_by_step(largest)}
    names = category_names(scores)
    for group in sorted(table["group"].unique(), key=int):
        if members.get(group):
            own = (table["label"] == LABEL_UNSAFE) & table["row"].isin(members[group])
            shown = table[(table["group"] == group) & (own | (table["label"] == LABEL_NORMAL))]
            columns[f"auroc {names[group]}"] = _auroc_by_step(shown)
    return pd.DataFrame(columns)


def _auroc_by_step(table):
    """Return {step: AUROC} of a long table with one line for each video and step."""
    by_step = table.groupby("step")
    return {step: auroc(part["raw"], part["label"] == LABEL_UNSAFE) for step, part in by_step}
