"""How good are the recorded votes? Balanced as in the paper's code, for one (lambda, eta) or the
whole grid."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np

from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.errors import InputError
from lvd.evaluation.metrics import auroc
from lvd.utils.files import load_torch
from lvd.voting import decided, verdict

RESULTS, SCORES = "results.pth", "scores.pth"
LAMBDAS = tuple(k / 10 for k in range(1, 11))
BALANCE_SEED = 20240603  # the released code's


def load_results(path):
    """({"1": {row: votes}, "0": {...}}, S) of a results.pth or its folder; InputError for anything
    else."""
    path = Path(path)
    path = path / RESULTS if path.is_dir() else path
    found = load_torch(path)
    if (
        not isinstance(found, dict)
        or set(found) != {LABEL_UNSAFE, LABEL_NORMAL}
        or not all(isinstance(v, dict) for v in found.values())
    ):
        raise InputError(
            f"{path}: a mapping with '1' (unsafe) and '0' (normal) is needed, as embed_model.py "
            "writes it"
        )
    steps = None
    for label, videos in found.items():
        if not videos:
            raise InputError(f"{path}: no videos under '{label}'")
        for row, votes in videos.items():
            if (
                not isinstance(votes, list)
                or not votes
                or any(type(v) is not int or v not in (0, 1) for v in votes)
            ):
                raise InputError(f"{path}: votes of '{label}', row {row} are not a list of 0 and 1")
            steps = steps or len(votes)
            if len(votes) != steps:
                raise InputError(
                    f"{path}: '{label}', row {row} has {len(votes)} votes, others have {steps}"
                )
    return found, steps


def balanced(results):
    """[(label 1 or 0, votes)] with as many videos of each class as the smaller one has.

    Per label, "1" first, the rows in stored order are shuffled by one generator, seeded once, and
    the first kept.
    """
    rng = random.Random(BALANCE_SEED)
    count = min(len(results[LABEL_UNSAFE]), len(results[LABEL_NORMAL]))
    kept = []
    for label in (LABEL_UNSAFE, LABEL_NORMAL):
        rows = list(results[label])
        rng.shuffle(rows)
        kept += [(int(label), results[label][row]) for row in rows[:count]]
    return kept


def verdicts(videos, lambda_, eta):
    """(true classes, predicted classes) of [(label, votes)]."""
    return [label for label, _ in videos], [verdict(votes, lambda_, eta) for _, votes in videos]


def last_step(videos):
    """The released code's baseline "Unsafe Diffusion": the vote of the last step alone."""
    return [label for label, _ in videos], [votes[-1] for _, votes in videos]


def counts(truth, predicted):
    """{"accuracy", "tpr", "tnr"}: unsafe is the positive class."""
    truth, predicted = np.array(truth), np.array(predicted)
    return {
        "accuracy": float((truth == predicted).mean()),
        "tpr": float(predicted[truth == 1].mean()),
        "tnr": float(1 - predicted[truth == 0].mean()),
    }


def text_report(truth, predicted):
    """scikit-learn's classification report."""
    from sklearn.metrics import classification_report

    return classification_report(
        truth,
        predicted,
        labels=[0, 1],
        target_names=["normal (0)", "unsafe (1)"],
        digits=4,
        zero_division=0,
    )


def grid(videos, steps, lambdas=LAMBDAS):
    """[{"lambda", "eta", "accuracy", "tpr", "tnr"}] for every lambda and every eta from 1 to steps."""
    return [
        {"lambda": lambda_, "eta": eta, **counts(*verdicts(videos, lambda_, eta))}
        for lambda_ in lambdas
        for eta in range(1, steps + 1)
    ]


def grid_text(rows, key, etas):
    """A table of one key of `grid`: a line per lambda, a column per eta of `etas`."""
    found = {(row["lambda"], row["eta"]): row[key] for row in rows}
    lines = [f"{key:>8}  " + " ".join(f"eta {eta:>2}" for eta in etas)]
    for lambda_ in sorted({row["lambda"] for row in rows}):
        lines.append(f"  {lambda_:>6}  " + " ".join(f"{found[lambda_, eta]:6.3f}" for eta in etas))
    return "\n".join(lines)


def some_etas(steps):
    """A dozen etas worth a column."""
    return sorted(
        {eta for eta in (1, 2, 3, 5, 8, 10, 15, 20, 25, 30, 40, 50, steps) if eta <= steps}
    )


def stopping_steps(videos, lambda_, eta):
    """Mean number of steps until the vote on the unsafe videos found unsafe is decided; None when
    none is found."""
    when = []
    for label, votes in videos:
        if label and verdict(votes, lambda_, eta):
            when.append(
                next(n for n in range(eta + 1) if decided(votes[:n], lambda_, eta) == "unsafe")
            )
    return float(np.mean(when)) if when else None


def per_step(videos, steps, scores=None):
    """[{"step", "accuracy", "tpr", "tnr", "auroc ..."}]: each step's vote on its own, and how well
    scores rank videos.

    scores: content of scores.pth, or None. AUROC "any" is of the largest probability over
    categories, unsafe against normal videos; that of a category is of its videos against normal
    ones, where members are recorded.
    """
    rows = []
    for step in range(steps):
        truth, predicted = [label for label, _ in videos], [votes[step] for _, votes in videos]
        rows.append(
            {"step": step, **counts(truth, predicted), **(_aurocs(scores, step) if scores else {})}
        )
    return rows


def load_scores(path, results, steps):
    """Content of the scores.pth beside a results.pth, or None when there is none; InputError when
    they disagree."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if not (folder / SCORES).exists():
        return None
    found = load_torch(folder / SCORES)
    agree = (
        isinstance(found, dict)
        and "scores" in found
        and found.get("votes_sha256") == votes_sha256(results)
        and all(
            _belong(found[key], results, steps)
            for key in ("scores", *({"calibrated"} & set(found)))
        )
    )
    if not agree:
        raise InputError(
            f"{folder / SCORES}: does not belong to the votes beside it; run embed_model.py again"
        )
    return found


def _belong(scores, results, steps):
    """Are these [label][group][row][step] of all the videos and steps that voted?"""
    return isinstance(scores, dict) and all(
        set(by_row) == set(results[label]) and all(len(v) == steps for v in by_row.values())
        for label in (LABEL_UNSAFE, LABEL_NORMAL)
        for by_row in scores.get(label, {"": {}}).values()
    )


def votes_sha256(results):
    """Hex digest of the votes, by which scores.pth knows the results.pth that it belongs to."""
    return hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()


def _aurocs(scores, step):
    unsafe, normal = scores["scores"][LABEL_UNSAFE], scores["scores"][LABEL_NORMAL]
    groups = sorted(unsafe, key=int)

    def of(group, label, rows):
        return [scores["scores"][label][group][row][step] for row in rows]

    def of_both(positive, negative):
        return auroc(positive + negative, [1] * len(positive) + [0] * len(negative))

    rows = {
        label: list(next(iter(part.values())))
        for label, part in ((LABEL_UNSAFE, unsafe), (LABEL_NORMAL, normal))
    }
    largest = {
        label: np.max([of(g, label, rows[label]) for g in groups], axis=0).tolist()
        for label in rows
    }
    found = {"auroc any": of_both(largest[LABEL_UNSAFE], largest[LABEL_NORMAL])}
    for group in groups:
        if members := scores.get("members", {}).get(group):
            name = f"auroc {scores['categories'][group]}"
            found[name] = of_both(
                of(group, LABEL_UNSAFE, members), of(group, LABEL_NORMAL, rows[LABEL_NORMAL])
            )
    return found
