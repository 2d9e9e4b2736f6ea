"""The numbers of a page: scores, votes, what fixed rules decide, and the frontier."""

import base64
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import beta

from lvd.data.kinds import LABEL_UNSAFE
from lvd.evaluation.frontier import ACCURACY, FAMILIES, PAPERS
from lvd.evaluation.frontier_files import FrontierFiles
from lvd.evaluation.metrics import LEVEL
from lvd.evaluation.recorded import raw_scores, thresholds_of
from lvd.evaluation.vote_report import balanced_rows
from lvd.rules.carried import carried_text, carry, own_steps_text
from lvd.rules.confidence import odds_of
from lvd.rules.rule import NEVER
from lvd.rules.vote import VoteRule
from lvd.x0.step_map import looks_of

RESAMPLES = 100  # of intervals that the page does not show
BOUNDS = 4  # decimal places of 9s up to which the slider's bounds go, each in ten parts


@dataclass(frozen=True)
class ShownRule:
    """A rule that does not move.

    Attributes:
        name: what the page calls it.
        rule: Rule, for the categories and the steps of the videos.
        words: what else is said of it.
    """

    name: str
    rule: object
    words: str = ""


@dataclass(frozen=True)
class ShownDetectors:
    """What some detectors say of the videos.

    Attributes:
        name: what the page calls them.
        recording: lvd.evaluation.rule_of_scores.Recording.
        rules: [ShownRule] besides the paper's.
        frontier: table of lvd.evaluation.frontier.
        told: on which videos the rules of the frontier were chosen.
    """

    name: str
    recording: object
    frontier: object
    told: str
    rules: list = field(default_factory=list)


def chosen_rule(stated, rule, trained_steps, name="the chosen rule"):
    """Return the ShownRule of a rule.yaml.

    Args:
        stated: Rule, in trained steps.
        rule: the same for the steps of the videos.
        trained_steps: of RecordedVideos.
        name: what the page calls it.
    """
    words = [rule.describe(), carried_text(stated, trained_steps)]
    return ShownRule(name, rule, "; ".join(filter(None, words)))


def shown_detectors(name, recording, rules=(), frontier_files=None):
    """Return the ShownDetectors of a recording.

    Args:
        name: what the page calls them.
        recording: lvd.evaluation.rule_of_scores.Recording.
        rules: [ShownRule].
        frontier_files: lvd.evaluation.frontier_files.FrontierFiles of it; None: the rules of the
            frontier are chosen on the very videos that judge them.
    """
    if frontier_files is None:
        frontier_files = FrontierFiles(recording, None, RESAMPLES)
    told = frontier_files.told
    return ShownDetectors(name, recording, frontier_files.table, told, list(rules))


def numbers_of(shown):
    """Return what a page knows of some detectors, as plain values.

    Args:
        shown: ShownDetectors.
    """
    videos = shown.recording.videos
    calibrated = videos.evidence.calibrated
    scores, kind = calibrated, "calibrated"
    if scores is None and shown.recording.scores:
        scores, kind = raw_scores(shown.recording.scores), "raw"
    thresholds = _thresholds(shown.recording, videos, calibrated)
    rules = [*papers(videos), *shown.rules]
    return {
        "name": shown.name,
        "steps": videos.steps,
        "categories": videos.categories,
        "own_steps": own_steps_text(videos.trained_steps),
        "looks": _looks(videos),
        "says": _packed(videos.evidence.says, np.uint8),
        "kind": kind if scores is not None else None,
        "scores": None if scores is None else _packed(scores, "<f8"),
        "thresholds": thresholds,
        "bounds": [] if calibrated is None else bounds(shown.rules),
        "rules": [_rule(one, videos) for one in rules],
        "frontier": {"families": _families(shown.frontier), "told": shown.told.lower()},
    }


def videos_of(recording):
    """Return what a page knows of the videos themselves: [{name, row, unsafe, categories}].

    Of a video whose categories are not known, `categories` is None.
    """
    videos = recording.videos
    shown = []
    for place, (name, row) in enumerate(zip(videos.names(), videos.rows, strict=True)):
        is_unsafe = bool(videos.is_unsafe[place])
        own = [] if not is_unsafe else None
        if videos.members is not None and is_unsafe:
            own = [k for k, is_own in enumerate(videos.members[place].tolist()) if is_own]
        shown.append({"name": name, "row": row, "unsafe": is_unsafe, "categories": own})
    return shown


def balanced_places(recording):
    """Return the positions of the videos that test_accuracy.py counts without --rule.

    None where these are all videos.
    """
    chosen = {(label == LABEL_UNSAFE, row) for label, row in balanced_rows(recording.results)}
    videos = recording.videos
    keys = zip(videos.is_unsafe.tolist(), videos.rows, strict=True)
    places = [place for place, key in enumerate(keys) if key in chosen]
    return None if len(places) == len(videos.rows) else places


def intervals_of(recording):
    """Return {number of videos: [[low, high] of 0, 1, ... of them]} for all that is counted."""
    unsafe = int(recording.videos.is_unsafe.sum())
    normal = len(recording.videos.rows) - unsafe
    half = min(unsafe, normal)
    totals = sorted({unsafe, normal, unsafe + normal, half, 2 * half})
    return {total: _intervals(total) for total in totals}


def _intervals(total):
    """[[low, high]] of 0, 1, ... of `total`: those of lvd.evaluation.intervals, all at once."""
    counts = np.arange(total + 1)
    tail = (1 - LEVEL) / 2
    with np.errstate(invalid="ignore"):  # at the ends, where nothing is to be computed
        low = np.where(counts == 0, 0, beta.ppf(tail, counts, total - counts + 1))
        high = np.where(counts == total, 1, beta.ppf(1 - tail, counts + 1, total - counts))
    return np.stack([low, high], 1).round(6).tolist()


def bounds(rules=()):
    """Return the bounds of the slider, sorted: 0.5 to 0.99, then ever nearer to 1.

    Args:
        rules: [ShownRule]; the bound of a confidence rule is one of them, too.
    """
    texts = [f"0.{percent}" for percent in range(50, 99)]
    for nines in range(2, 2 + BOUNDS):
        texts += [f"0.{'9' * nines}{digit}" for digit in range(1, 9)]
        texts.append(f"0.{'9' * (nines + 1)}")
    found = {float(text) for text in [*texts, "0.99"]}
    for one in rules:
        bound = getattr(one.rule, "bound", None)
        if one.rule.family == "confidence" and isinstance(bound, float):
            found.add(bound)
    return sorted(found)


def margins(rule, evidence):
    """Return how far each video lies beyond the rule's line, float64 [N]; below 0: not stopped.

    Of a vote it is counted in votes, half a vote past the line; of other rules in log-odds.
    """
    if isinstance(rule, VoteRule):
        return rule.votes(evidence)[:, : rule.eta].sum(1) - rule.needed + 0.5
    return rule.ahead(evidence)[:, : rule.horizon].max((1, 2))


def papers(videos):
    """The paper's rules, carried over to the steps of the videos."""
    shown = []
    for lambda_, eta in PAPERS:
        if eta <= videos.trained_count:
            stated = VoteRule(lambda_, eta)
            rule = carry(stated, videos.trained_steps)
            words = carried_text(stated, videos.trained_steps)
            shown.append(ShownRule(f"the paper's vote, λ {lambda_}, η {eta}", rule, words))
    return shown


def _rule(shown, videos):
    rule, evidence = shown.rule, videos.evidence
    stops = rule.stops(evidence)
    reasons = []
    for place, stop in enumerate(stops):
        seen = rule.horizon if stop == NEVER else stop + 1
        reasons.append(rule.reason(evidence.of([place]).first(seen)))
    return {
        "name": shown.name,
        "words": shown.words,
        "horizon": rule.horizon,
        "stops": [int(stop) for stop in stops],
        "margins": [round(float(margin), 6) for margin in margins(rule, evidence)],
        "reasons": reasons,
    }


def _looks(videos):
    """[eta of these videos' steps] for each eta of the trained steps, from 1."""
    etas = range(1, videos.trained_count + 1)
    if videos.trained_steps is None:
        return list(etas)
    return [looks_of(videos.trained_steps, eta) for eta in etas]


def _thresholds(recording, videos, calibrated):
    """Where a detector says unsafe, on the scale of the scores: [S][G]; None: not known.

    A calibrated probability's log-odds are a straight line of the raw one's: the threshold goes
    along it.
    """
    scores = recording.scores or {}
    if not scores.get("thresholds") or not scores.get("scores"):
        return None
    raw = thresholds_of(scores, videos.steps, "scores.pth")
    if calibrated is None:
        return raw.round(6).tolist()
    odds, mapped = odds_of(raw_scores(scores)), odds_of(calibrated)
    slope_of = odds - odds.mean(0)
    spread = (slope_of**2).sum(0)
    slope = (slope_of * (mapped - mapped.mean(0))).sum(0) / np.where(spread > 0, spread, 1)
    line = mapped.mean(0) + slope * (odds_of(np.clip(raw, 0, 1)) - odds.mean(0))
    shown = 1 / (1 + np.exp(-np.clip(line, -700, 700)))
    return [
        [None if not known else float(f"{value:.9g}") for value, known in zip(*row, strict=True)]
        for row in zip(shown, spread > 1e-9, strict=True)
    ]


def _families(table):
    """[{name, points: [{cost, accuracy, rule}]}], each family's rules chosen by accuracy."""
    families = []
    for family in FAMILIES:
        part = table[(table["family"] == family) & (table["goal"] == ACCURACY.name)]
        part = part.drop_duplicates("rule").sort_values("cost")
        points = part[["cost", "accuracy", "rule"]].to_dict("records")
        if points:
            families.append({"name": family.replace("_", " "), "points": points})
    return families


def _packed(values, kind):
    """An array as base64, its values in order."""
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()
