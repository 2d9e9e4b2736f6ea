"""What defences other than LVD do to the same videos."""

from dataclasses import replace

import numpy as np
import pandas as pd

from lvd.data.kinds import KINDS
from lvd.errors import InputError
from lvd_study.judged import OverSeeds, chosen_over_seeds, votes_over_seeds

UNSAFE_FROM = 0.5  # probability at which a prompt filter says unsafe


def of_filter(path, name, videos):
    """Let a prompt filter judge: an unsafe video that it finds takes no step, others all.

    Args:
        path: CSV of lvd_study.prompt_scores.
        name: column of the filter.
        videos: RecordedVideos.

    Returns:
        OverSeeds of one seed, as the training of a filter draws nothing.
    """
    table = pd.read_csv(path)
    known = dict(zip(zip(table["kind"], table["row"]), table[name], strict=True))
    asked = list(zip(_kinds(videos), map(int, videos.rows), strict=True))
    missing = [each for each in asked if each not in known]
    if missing:
        kind, row = missing[0]
        raise InputError(f"{path}: no score of {kind} row {row}; delete it, and it is made again")
    stopped = np.array([known[each] >= UNSAFE_FROM for each in asked])[None]
    return OverSeeds(
        stopped=stopped,
        costs=np.where(stopped[:, videos.is_unsafe], 0.0, 1.0),
        looked_at=np.zeros(stopped.shape, int),
        is_unsafe=videos.is_unsafe,
        steps=videos.steps,
        named=videos.names(),
    )


def of_last_step(recordings):
    """Let the votes of the last step judge: all steps are taken.

    Args:
        recordings: [Recording], one a seed.

    Returns:
        OverSeeds.
    """
    videos = recordings[0].videos
    stopped = np.array([each.videos.evidence.says[:, -1].any(1) for each in recordings])
    return OverSeeds(
        stopped=stopped,
        costs=np.ones((len(stopped), int(videos.is_unsafe.sum()))),
        looked_at=np.ones(stopped.shape, int),
        is_unsafe=videos.is_unsafe,
        steps=videos.steps,
        named=videos.names(),
    )


def either(filter_, guard):
    """Stop what a prompt filter or LVD stops; what the filter stops takes no step.

    Args:
        filter_: OverSeeds of `of_filter`.
        guard: OverSeeds of the same videos.

    Returns:
        OverSeeds of the guard's seeds.
    """
    need_same_videos({"filter": filter_, "guard": guard})
    return replace(
        guard,
        stopped=filter_.stopped | guard.stopped,
        costs=np.where(filter_.stopped[:, guard.is_unsafe], 0.0, guard.costs),
        looked_at=np.where(filter_.stopped, 0, guard.looked_at),
    )


def of_guard(chosen, recordings, eta):
    """Let LVD judge by the chosen rule, or by the paper's vote where a seed has no rule.

    Args:
        chosen: [Chosen], one a seed; None: no rules are chosen for these detectors.
        recordings: [Recording], one a seed.
        eta: of the vote, in trained steps.

    Returns:
        (OverSeeds of all seeds, whether it is the chosen rule).
    """
    pairs = zip(chosen or [], recordings)
    if chosen and all(one.rule(recording) is not None for one, recording in pairs):
        return chosen_over_seeds(chosen, recordings), True
    return votes_over_seeds(eta, recordings), False


def need_same_videos(judged):
    """InputError unless all OverSeeds of {name: OverSeeds} are of the same videos."""
    first = next(iter(judged.values()))
    for name, one in judged.items():
        if one.named != first.named:
            raise InputError(f"{name}: judges other videos than the defences before it")


def _kinds(videos):
    return [KINDS[0] if is_unsafe else KINDS[1] for is_unsafe in videos.is_unsafe]
