"""What a command trains or evaluates."""

from dataclasses import dataclass, replace
from pathlib import Path

from lvd.data.sources import Source
from lvd.data.split import Split
from lvd.detectors.pretrained import Pretrained
from lvd.training.recipes import TrainSettings
from lvd.training.rows import rows_to_train
from lvd.utils.schema import Count, Name, Positive, Probability, Row, Schema

METRICS = "metrics.csv"  # the table of metrics beside the detectors


class Measured(Schema, extra="allow"):
    """The metrics that a summary tells; a table shows them all."""

    val_accuracy: Probability
    val_tpr: Probability
    val_tnr: Probability
    val_auroc: Probability
    val_unsafe_clips: Count | None = None  # not told by detectors of earlier versions
    val_normal_clips: Count | None = None
    val_false_positives_met: bool | None = None


class Place(Schema, extra="allow"):
    """Which detector it is."""

    group: Positive
    step: Row
    category: Name


class MetricsRow(Measured, Place):
    """A row of the table of metrics."""


@dataclass(frozen=True)
class Job:
    """What a command trains or evaluates, checked.

    Attributes:
        source: where the clips come from.
        save_dir: folder of the detectors.
        steps: denoising steps.
        categories: {group: display name} of the unsafe categories.
        split: the held-out rows; eval_sha256: hash of their file.
        settings: of `read_settings`.
        device: as torch.device takes it.
        init: the encoder to start from, None: random weights.
    """

    source: Source
    save_dir: Path
    steps: list
    categories: dict
    split: Split
    eval_sha256: str
    settings: TrainSettings
    device: str = "cpu"
    init: Pretrained | None = None

    @property
    def step(self):
        """The step of a job that has only one."""
        (step,) = self.steps
        return step

    @property
    def init_sha256(self):
        return self.init.sha256 if self.init else None

    def part(self, step, categories):
        """Return the job of one step and some of the categories."""
        return replace(self, steps=[step], categories=categories)

    def rows(self, group):
        """Return what the detector of a category is trained on: see `rows_to_train`."""
        return rows_to_train(self.source, group, self.step, self.split, self.settings)

    def identity(self):
        """Return {key: value} of what any result of this job follows from, besides its rows."""
        return {
            "settings": self.settings.identity(),
            "eval_sha256": self.eval_sha256,
            "representation": self.source.representation,
            "dataset": self.source.made_by,
        }
