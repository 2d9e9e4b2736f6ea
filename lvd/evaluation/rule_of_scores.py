"""Which rule may judge which recorded scores: one that was chosen for the detectors behind them."""

from dataclasses import dataclass

import numpy as np

from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.errors import InputError, as_key
from lvd.evaluation.recorded import RecordedVideos, recorded_videos
from lvd.evaluation.results import SCORES, beside, load_results, load_scores, results_path
from lvd.evaluation.results_folder import CONFIG
from lvd.rules.carried import carry, trained_steps_text
from lvd.rules.evidence import Evidence
from lvd.rules.file import DetectorsOfRule, other_detectors
from lvd.utils.changes import other_detectors_words
from lvd.utils.files import load_yaml
from lvd.utils.schema import Name, Schema, checked
from lvd.voting import check_eta

ANY_CATEGORY = "any category"


class ConfigOfVotes(Schema, extra="allow"):
    """The content of embed_model.py's config.yaml, as far as it is read here."""

    detectors_sha256: Name | None = None


@dataclass(frozen=True)
class Recording:
    """Recorded videos, and which detectors looked at them.

    Attributes:
        path: of the votes.
        results: content of results.pth.
        steps: S, the number of denoising steps.
        scores: content of scores.pth; None where there is none.
        videos: RecordedVideos.
        detectors: what is known of the detectors, as lvd.rules.file.identity_of says it; {} where
            nothing is.
    """

    path: object
    results: dict
    steps: int
    scores: dict | None
    videos: RecordedVideos
    detectors: dict


def load_recording(data_dir):
    """Read a results.pth and the scores.pth beside it.

    Args:
        data_dir: the results.pth, or the folder that holds it.

    Returns:
        Recording. Without a scores.pth its videos have votes alone.

    Raises:
        InputError: one of the files is missing or damaged.
    """
    results, steps = load_results(data_dir)
    scores = load_scores(data_dir, results, steps)
    if scores is None:
        videos = videos_of_votes(results)
    else:
        videos = recorded_videos(scores, "scores.pth")
    path = results_path(data_dir)
    return Recording(path, results, steps, scores, videos, _detectors(path, scores))


def videos_of_votes(results, rows=None):
    """Return the RecordedVideos of a results.pth: the votes of all categories as one.

    Args:
        results: its content.
        rows: [(label, row)], which videos, the unsafe ones first; None: all.
    """
    if rows is None:
        rows = [(label, row) for label in (LABEL_UNSAFE, LABEL_NORMAL) for row in results[label]]
    votes = np.array([results[label][row] for label, row in rows], bool)
    return RecordedVideos(
        is_unsafe=np.array([label == LABEL_UNSAFE for label, _ in rows]),
        rows=[row for _, row in rows],
        evidence=Evidence(votes[:, :, None]),
        categories=[ANY_CATEGORY],
    )


def rule_for(chosen, recording):
    """Return the rule for the categories and the steps of a recording.

    Args:
        chosen: ChosenRule, stated in trained steps.
        recording: Recording.

    Returns:
        Rule, stated in the recording's own steps.

    Raises:
        InputError: it was chosen for other detectors, or needs what the recording does not have.
    """
    _need_same_detectors(chosen, recording)
    rule = chosen.rule
    if rule.needs_calibration and recording.videos.evidence.calibrated is None:
        raise InputError(
            f"{chosen.where}: reads calibrated probabilities, and there are none beside "
            f"{recording.path}; run embed_model.py with calibrated detectors"
        )
    point = (recording.scores or {}).get("operating_point")
    if not rule.needs_calibration and point not in (None, chosen.operating_point):
        raise InputError(
            f"{chosen.where}: its votes are read at operating point {chosen.operating_point}, "
            f"those of {recording.path} at {point}; run embed_model.py with the rule's"
        )
    try:
        videos = recording.videos
        check_eta(rule.horizon, videos.trained_count)
        rule = rule.only(videos.categories, range(len(videos.categories)))
        return carry(rule, videos.trained_steps)
    except InputError as error:
        raise InputError(f"{chosen.where}: {as_key(error)}") from None


def need_trained_steps(recording):
    """InputError for a recording of other steps, in a report that counts the trained ones."""
    if trained_steps := recording.videos.trained_steps:
        raise InputError(
            f"{recording.path}: votes of {len(trained_steps)} other steps, which trained steps "
            f"{trained_steps_text(trained_steps)} judged; votes of the trained steps are needed"
        )


def _need_same_detectors(chosen, recording):
    """InputError unless a rule was chosen for the detectors of a recording, or for any."""
    wanted = chosen.detectors
    if not wanted:
        return
    if not recording.detectors:
        raise InputError(
            f"{chosen.where}: was chosen for certain detectors, and {recording.path} does not say "
            "of which it is; run embed_model.py again"
        )
    if found := other_detectors(recording.detectors, wanted):
        key, here, there = found
        raise InputError(
            f"{chosen.where}: was chosen for other detectors than those of {recording.path} "
            f"({other_detectors_words(key, there, here)}); choose one with choose_rule.py"
        )


def _detectors(path, scores):
    """Return what is known of the detectors: from scores.pth, else from config.yaml."""
    if scores and scores.get("detectors"):
        return checked(DetectorsOfRule, scores["detectors"], f"{SCORES}: detectors")
    config = beside(path, CONFIG)
    if scores is None or not config.is_file():
        return {}
    sha256 = checked(ConfigOfVotes, load_yaml(config), config).get("detectors_sha256")
    return {"sha256": sha256} if sha256 else {}
