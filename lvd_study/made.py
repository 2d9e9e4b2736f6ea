"""What a study makes for its tables: videos, detectors, their votes, rules; each with its tasks."""

from dataclasses import dataclass
from pathlib import Path

from lvd.evaluation.rule_of_scores import load_recording, rule_for
from lvd.rules.file import load_rule
from lvd_study.tasks import Task


@dataclass(frozen=True)
class Videos:
    """Recordings that detectors are asked about.

    Attributes:
        name: of the sampling, each once.
        config: path of a YAML such as build_x0.yaml that names the recordings and their labels.
        eval_path: of the eval.pth that says which rows are asked about.
        labels: path of the label file.
        tasks: Tasks that make all of this.
        are_trained_on: whether the detectors of the base data learned from the other rows.
        of_other_steps: whether their steps are others than the trained ones, which detectors may
            refuse to judge.
    """

    name: str
    config: Path
    eval_path: Path
    labels: Path
    tasks: tuple
    are_trained_on: bool = False
    of_other_steps: bool = False


@dataclass(frozen=True)
class Data:
    """What detectors are trained on.

    Attributes:
        name: each once; "base" is the model's recordings as they are.
        flags: of train_mae.py that name recordings or clips.
        eval_path: of the eval.pth whose rows are not trained on.
        tasks: Tasks that make all of this.
    """

    name: str
    flags: tuple
    eval_path: Path
    tasks: tuple


@dataclass(frozen=True)
class Trained:
    """Detectors of one kind, seed and data.

    Attributes:
        name: each once.
        kind: "grid" or "shared".
        seed: of the training.
        folder: theirs.
        task: that trains them.
        folds: the Task that scores out of fold; None where no rule is chosen for them.
    """

    name: str
    kind: str
    seed: int
    folder: Path
    task: Task
    folds: Task | None = None


@dataclass(frozen=True)
class Votes:
    """What detectors say of videos.

    Attributes:
        folder: of results.pth and scores.pth.
        task: that makes them.
    """

    folder: Path
    task: Task

    def recording(self):
        """Return the Recording; its `videos` are RecordedVideos."""
        return load_recording(self.folder)


@dataclass(frozen=True)
class Chosen:
    """A rule that was chosen for detectors.

    Attributes:
        path: of the rule.yaml.
        task: that chooses it; it may end without a rule.
    """

    path: Path
    task: Task

    def rule(self, recording):
        """Return the Rule for the steps of a Recording, as the guard carries it over.

        None where no rule could be promised.
        """
        return rule_for(load_rule(self.path), recording) if self.path.is_file() else None
