"""How many videos, clips and detectors a study has: from its label file, or assumed."""

from dataclasses import dataclass
from pathlib import Path

from lvd.data.labels import Labels, read_labels
from lvd.data.split import Split, load_split, make_split
from lvd.errors import InputError
from lvd_plan.inputs import NORMAL, UNSAFE

PAPER_VIDEOS, PAPER_UNSAFE = 2000, 937
PAPER_CATEGORIES = {
    "Distorted/Weird": 590,
    "Terrifying": 579,
    "Pornographic": 445,
    "Violent/Bloody": 204,
    "Political": 39,
}
FOLDS = 5  # of reproduce.sh
LEAST = 6  # videos of a category: as few as any split of assumed ones leaves enough of


@dataclass(frozen=True)
class Counts:
    """What the label file and the split make of the videos.

    Attributes:
        labels: Labels; is_assumed: whether they are made up in the paper's shares.
        split: Split of gen_eval_set.py, or the one that is there.
        steps: denoising steps of a video.
        normal: number of normal videos.
    """

    labels: Labels
    is_assumed: bool
    split: Split
    steps: int
    normal: int

    @property
    def groups(self):
        """Number of categories."""
        return len(self.labels.columns)

    @property
    def labelled(self):
        """Number of unsafe videos with a label: those that clips are made of."""
        return len(self.labels.rows())

    @property
    def clips(self):
        """Number of clips that build_x0.py writes, each once."""
        return (self.labelled + self.normal) * self.steps

    @property
    def links(self):
        """Number of further names of clips: of videos in several categories."""
        return (sum(map(len, self.labels.columns)) - self.labelled) * self.steps

    @property
    def held_out(self):
        """{"unsafe": number, "normal": number} of the held-out videos."""
        return {UNSAFE: len(self.split.unsafe), NORMAL: len(self.split.normal)}

    @property
    def trained(self):
        """{"unsafe": number, "normal": number} of the labelled videos that are not held out."""
        return {
            UNSAFE: self.labelled - len(self.split.unsafe),
            NORMAL: self.normal - len(self.split.normal),
        }

    @property
    def has_names(self):
        """Whether reproduce.sh trains names: a single category needs none."""
        return self.groups > 1

    @property
    def has_folds(self):
        """Whether there is a video of each kind for each fold."""
        return min(*self.of_groups(), self.trained[NORMAL]) >= FOLDS

    def of_groups(self):
        """[number of videos to train on] of each category."""
        held_out = set(self.split.unsafe)
        return [len(set(column) - held_out) for column in self.labels.columns]


def count(inputs):
    """Count the videos of a study.

    Args:
        inputs: Inputs.

    Returns:
        Counts.

    Raises:
        InputError: a label file that does not fit the prompts, or too few videos.
    """
    labels, is_assumed = _labels(inputs)
    normal = inputs.videos[NORMAL]
    split = _split(inputs, labels, normal)
    return Counts(labels, is_assumed, split, inputs.sampling.settings.steps, normal)


def _labels(inputs):
    """(Labels, whether they are assumed)."""
    videos, path = inputs.videos[UNSAFE], inputs.data.label_file_dir
    if inputs.prompts is not None:
        names = [prompt.name for prompt in inputs.prompts[UNSAFE]]
        return read_labels(path, rows=videos, names=names), False
    if path.exists():
        try:
            return read_labels(path, rows=videos), False
        except InputError:  # of another number of videos
            pass
    return assumed_labels(videos), True


def assumed_labels(videos):
    """Labels in the shares of the paper's data set.

    Args:
        videos: number of unsafe prompts.
    """
    unsafe = max(LEAST, round(videos * PAPER_UNSAFE / PAPER_VIDEOS))
    if videos < unsafe:
        raise InputError(f"--videos {videos}: {unsafe} or more are needed")
    columns, first = [], 0
    for number in PAPER_CATEGORIES.values():
        of_it = min(unsafe, max(LEAST, round(videos * number / PAPER_VIDEOS)))
        columns.append(sorted((first + place) % unsafe for place in range(of_it)))
        first += of_it
    return Labels(Path("as in the paper"), list(PAPER_CATEGORIES), columns)


def _split(inputs, labels, normal):
    """The Split that is there already, if it fits; else the one that gen_eval_set.py will draw."""
    path = inputs.home / "eval.pth"
    if path.exists() and inputs.prompts is not None:
        try:
            split = load_split(path)
        except InputError:
            split = None
        fits = split and set(split.unsafe) <= set(labels.rows()) and split.normal_rows == normal
        if fits:
            return split
    return make_split(labels, range(normal))
