"""The held-out clips as folders of their own, linked from the dataset."""

from pathlib import Path

from lvd.data.clip_file import link_clip, read_clip
from lvd.errors import InputError


class HeldOutLinker:
    """The held-out clips, linked from the dataset.

    A sized iterable over `steps`: it links as it goes and yields the number of new clips of each.
    Every clip is read once before it is linked. Iterating raises InputError for one that is
    missing, unreadable or of another shape.

    Args:
        rows: what is held out.
        steps: numbers of the denoising steps.
        clips_of: function of a step → {row: path} in the dataset.
        target: folder that gets {step}/{row}.
    """

    def __init__(self, rows, steps, clips_of, target):
        self.rows, self.steps, self.clips_of, self.target = rows, steps, clips_of, Path(target)

    def __len__(self):
        return len(self.steps)

    def __iter__(self):
        shape = None
        for step in self.steps:
            clips = self.clips_of(step)
            for row in self.rows:
                if row not in clips:
                    raise InputError(
                        f"held-out row {row} has no clip at step {step} in the dataset; run "
                        "build_x0.py to its end, or gen_eval_set.py with the labels in use"
                    )
            shape = shape or read_clip(clips[self.rows[0]]).shape
            yield sum(self._link(clips[row], step, shape) for row in self.rows)

    def _link(self, source, step, shape):
        target = self.target / str(step) / source.name
        if target.exists() and target.stat().st_size == source.stat().st_size:
            return 0
        shape_here = read_clip(source).shape
        if shape_here != shape:
            raise InputError(
                f"{source}: clip of shape {list(shape_here)}, the others have {list(shape)}"
            )
        link_clip(source, target)
        return 1
