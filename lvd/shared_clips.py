"""The clips that one model for all steps learns from: every step's, at the model's size, in memory where they fit."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from lvd.detector import fit_clips
from lvd.errors import InputError
from lvd.files import raw_bytes
from lvd.train import MIN_CLIPS

TRIES = 200  # draws of the validation videos, should small categories overlap
HOLD = 4 << 30  # bytes of float16 clips kept in memory; more are read anew for each mini-batch
AT_ONCE = 64  # clips that are turned to float32 together


@dataclass(frozen=True)
class Rows:
    """videos: [("unsafe" or "normal", row)], unsafe first; labels: float32 [N, G], 1 where the video is of that category."""

    videos: list
    labels: torch.Tensor

    def of(self, kind):
        return [row for found, row in self.videos if found == kind]


def rows_for_all(source, split, steps):
    """Rows of all videos that are not held out, with their categories. InputError for a category or normals with too
    few of them, and for videos that are not there at every step."""
    members = {group: _same_at_all(source.group_rows, group, steps, source.group_place) for group in source.groups}
    held = set(split.unsafe)
    members = {group: [row for row in rows if row not in held] for group, rows in members.items()}
    normal = _same_at_all(source.rows, "normal", steps, source.place)
    normal = [row for row in normal if row not in set(split.normal)]
    places = {source.group_place(group, steps[0]): rows for group, rows in members.items()}
    for place, rows in {**places, source.place("normal", steps[0]): normal}.items():
        if len(rows) < MIN_CLIPS:
            raise InputError(f"{place}: {len(rows)} clip(s) that are not held out, {MIN_CLIPS} or more are needed to train")
    unsafe = sorted(set().union(*members.values()))
    labels = torch.zeros(len(unsafe) + len(normal), len(source.groups))
    for column, rows in enumerate(members.values()):
        labels[[unsafe.index(row) for row in rows], column] = 1
    return Rows([("unsafe", row) for row in unsafe] + [("normal", row) for row in normal], labels)


def _same_at_all(rows_of, what, steps, place):
    first = rows_of(what, steps[0])
    for step in steps:
        if other := sorted(set(first) ^ set(rows_of(what, step))):
            raise InputError(f"{place(what, step)}: row {other[0]} is not at every step; run build_x0.py to the end")
    return first


def split_rows(labels, fraction, rng):
    """(train, validation) positions: a video is in one of them at all steps.

    From the rarest category on, `fraction` of its videos, at least one, are for validation, and of the normal ones; at least
    one of each stays to train on. InputError when categories of few videos overlap so that this cannot be.
    """
    kinds = [labels[:, group] > 0 for group in labels.sum(0).argsort(stable=True).tolist()] + [labels.sum(1) == 0]
    for _ in range(TRIES):
        held = _drawn(kinds, fraction, rng)
        if all((members & held).any() for members in kinds):
            return torch.where(~held)[0], torch.where(held)[0]
    raise InputError("categories: they share so many of their few videos that not each has one to train on and another one "
                     "for validation; more videos that are not held out are needed")


def _drawn(kinds, fraction, rng):
    """One draw of validation videos, bool [N]; whatever has been drawn, each of `kinds` (bool [N] each) keeps one."""
    held = torch.zeros(len(kinds[0]), dtype=torch.bool)
    for members in kinds:
        wanted = max(1, int(fraction * int(members.sum()) + 0.5)) - int((members & held).sum())
        free = torch.where(members & ~held)[0].numpy()
        for video in rng.choice(free, min(max(wanted, 0), len(free)), replace=False):
            held[video] = True
            held[video] = all((kind & ~held).any() for kind in kinds)
    return held


class AllClips:
    """Clips float16 [C, F', H', W'] of videos x steps. config: the model's VideoMAEConfig.

    `scan` reads all of them once, step by step; then `batches` gives any of them. sha256: of the clips as scanned.
    """

    def __init__(self, source, videos, steps, config, hold=HOLD):
        self.source, self.videos, self.steps, self.config = source, videos, steps, config
        self.held, self.sha256, self._limit = None, None, hold

    def scan(self):
        """Yield (position of the step, clips [N, C, F', H', W']); what fits is kept."""
        digest = hashlib.sha256(repr((self.videos, self.steps)).encode())
        for at, step in enumerate(self.steps):
            clips = self._read(range(len(self.videos)), step)
            if at == 0 and clips.nbytes * len(self.steps) <= self._limit:
                self.held = torch.empty(len(self.steps), *clips.shape, dtype=clips.dtype)
            if self.held is not None:
                self.held[at] = clips
            digest.update(raw_bytes(clips))
            yield at, clips
        self.sha256 = digest.hexdigest()

    def batches(self, wanted):
        """Yield (videos, at, clips) for each (positions of videos, positions of steps) of the list `wanted`, each [B].

        Where clips are read from the disk, the next mini-batch is read while the last one is in use.
        """
        if self.held is not None:
            for videos, at in wanted:
                yield videos, at, self.held[at, videos]
            return
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for videos, at in [*wanted, (None, None)]:
                ready, coming = coming, videos is not None and (videos, at, reader.submit(self._gather, videos, at))
                if ready:
                    yield ready[0], ready[1], ready[2].result()

    def _gather(self, videos, at):
        found = None
        for step in at.unique().tolist():
            here = torch.where(at == step)[0]
            clips = self._read(videos[here].tolist(), self.steps[step])
            if found is None:
                found = torch.empty(len(at), *clips.shape[1:], dtype=clips.dtype)
            found[here] = clips
        return found

    def _read(self, numbers, step):
        """Clips of these videos, in their order; each kind is read at once."""
        chosen = [self.videos[number] for number in numbers]
        found = [None] * len(chosen)
        for kind in ("unsafe", "normal"):
            places = [place for place, (of, _) in enumerate(chosen) if of == kind]
            if places:
                rows = [chosen[place][1] for place in places]
                clips = self.source.read(kind, rows, step, lambda clips: fit_clips(self.config, clips))
                for place, clip in zip(places, clips):
                    found[place] = clip
        return torch.stack(found)


def statistics(clips):
    """(mean, std) per channel, float32 [C] each, of clips [N, C, F, H, W]."""
    count, axes = clips.numel() / clips.shape[1], (0, 2, 3, 4)
    mean = sum(part.double().sum(axes) for part in clips.split(AT_ONCE)) / count
    square = sum(((part.double() - mean.view(1, -1, 1, 1, 1))**2).sum(axes) for part in clips.split(AT_ONCE)) / count
    return mean.float(), square.sqrt().clamp_min(1e-6).float()
