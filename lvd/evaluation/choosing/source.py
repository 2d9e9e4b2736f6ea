"""The scores that a rule is chosen on: folds.pth, which train_mae.py --folds writes."""

from dataclasses import dataclass
from pathlib import Path

from lvd.data.kinds import KIND_OF_LABEL
from lvd.detectors.bank import load_bank
from lvd.errors import InputError
from lvd.evaluation.recorded import RecordedVideos, recorded_videos
from lvd.evaluation.results import FOLDS, ScoresFile, load_folds
from lvd.rules.carried import trained_steps_text
from lvd.rules.file import identity_of, other_detectors
from lvd.utils.changes import other_detectors_words
from lvd.utils.files import load_torch, sha256
from lvd.utils.schema import checked

FLAG = "--not_out_of_fold"


@dataclass(frozen=True)
class Source:
    """Recorded videos to choose a rule on, and the detectors that the rule will be for.

    Attributes:
        videos: RecordedVideos.
        categories: [G] names as the detectors have them.
        detectors: what `lvd.rules.file.identity_of` says of them.
        calibrated: whether both the scores and all of the detectors are calibrated.
        operating_point: at which score a category says unsafe.
        about: what the rule's file notes of the videos: {key: plain value}.
    """

    videos: RecordedVideos
    categories: list
    detectors: dict
    calibrated: bool
    operating_point: str | float
    about: dict


def load_source(path, model_dir, not_out_of_fold=False):
    """Read the scores that a rule is chosen on.

    Args:
        path: of a folds.pth; of a scores.pth where `not_out_of_fold`.
        model_dir: detectors that the rule will be for.
        not_out_of_fold: accept scores that are not out of fold.

    Returns:
        Source.

    Raises:
        InputError: these are scores of held-out videos, or of other detectors.
    """
    path = Path(path)
    scores = _load(path, not_out_of_fold)
    bank = load_bank(model_dir)
    identity = identity_of(bank)
    _need_same_detectors(scores, identity, path, model_dir)
    videos = recorded_videos(scores, path)
    if videos.steps != len(bank.steps):
        raise InputError(
            f"{path}: scores of {videos.steps} steps, the detectors of --model_dir {model_dir} "
            f"have {len(bank.steps)}"
        )
    counts = {"unsafe": int(videos.is_unsafe.sum()), "normal": int((~videos.is_unsafe).sum())}
    about = {
        "scores": path.name,
        "sha256": sha256(path),
        "out_of_fold": bool(scores.get("folds")),
        **counts,
        "folds": scores.get("folds"),
        "eval_sha256": scores.get("eval_sha256"),
    }
    return Source(
        videos=videos,
        categories=[bank.categories[group] for group in bank.groups],
        detectors=identity,
        calibrated=videos.evidence.calibrated is not None and bank.all_calibrated,
        operating_point=scores.get("operating_point") or "validation",
        about={key: value for key, value in about.items() if value is not None},
    )


def _load(path, not_out_of_fold):
    """Read a folds.pth, or a scores.pth where that is asked for."""
    scores = load_torch(path)
    if not isinstance(scores, dict) or "scores" not in scores:
        raise InputError(f"--scores {path}: not a {FOLDS} of train_mae.py --folds")
    if "folds" in scores:
        if not_out_of_fold:
            raise InputError(f"{FLAG}: --scores {path} is out of fold; leave the flag out")
        scores = load_folds(path)
    elif not not_out_of_fold:
        raise InputError(
            f"--scores {path}: not out of fold: of held-out videos, which should only test a rule; "
            f"train_mae.py --folds 5 writes {FOLDS}; {FLAG} takes these all the same"
        )
    checked(ScoresFile, scores, path)
    if trained_steps := scores.get("trained_steps"):
        raise InputError(
            f"--scores {path}: of videos in {len(trained_steps)} other steps, which trained steps "
            f"{trained_steps_text(trained_steps)} judged; a rule is stated in trained steps: "
            "choose it on videos of those, and it is carried over to others"
        )
    for label, kind in KIND_OF_LABEL.items():
        if not any(scores["scores"].get(label, {}).values()):
            raise InputError(f"{path}: no {kind} videos; both kinds are needed")
    return scores


def _need_same_detectors(scores, identity, path, model_dir):
    """InputError where the scores belong to other detectors, as far as the file tells."""
    noted = scores.get("detectors") or {"categories": _known_categories(scores, identity)}
    if found := other_detectors(noted, identity):
        raise InputError(
            f"--scores {path}: of other detectors than --model_dir {model_dir} "
            f"({other_detectors_words(*found)}); run train_mae.py --folds again"
        )


def _known_categories(scores, identity):
    """The categories of a scores.pth in order; those of the detectors where it has no names."""
    groups = sorted(next(iter(scores["scores"].values())), key=lambda one: (len(one), one))
    names = scores.get("categories") or {}
    if len(groups) == len(identity["categories"]) and not names:
        return identity["categories"]
    return [names.get(group, group) for group in groups]
