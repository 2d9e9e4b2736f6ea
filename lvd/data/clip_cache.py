"""Clips in memory, at the size that a model takes: those of one step, or those of all steps."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import torch

from lvd.data.sources import KINDS
from lvd.utils.files import raw_bytes

HOLD = 4 << 30  # bytes of float16 clips kept in memory; more are read anew for each mini-batch
FLOAT32_AT_ONCE = 64  # clips that are turned to float32 together


class StepReader:
    """The clips of one step at the size that a model takes: each is read, decoded and resized once,
    however many detectors ask for it.

    Holds, in float16, the rows of this step that were asked for, and what `read` hands out is a
    copy of them: memory grows with the videos but not with the steps, categories or epochs (2,000
    videos of 4 x 16 x 64 x 64 latents: 1 GB).
    """

    def __init__(self, source, step, config):
        """config: the model's VideoMAEConfig (frames, size, channels)."""
        self.source, self.step, self.config = source, step, config
        self._held = {kind: {} for kind in KINDS}

    def load(self, rows):
        """Read what is not held yet of rows: {kind: [row, ...]}."""
        for kind, wanted in rows.items():
            held = self._held[kind]
            if missing := [row for row in wanted if row not in held]:
                data = self.source.read(kind, missing, self.step, self.config)
                held.update(zip(missing, data))

    def read(self, rows):
        """float16 [N, C, F', H', W'] of {"unsafe": [row, ...], "normal": [row, ...]}, kind after
        kind in that order."""
        self.load(rows)
        return torch.stack(
            [self._held[kind][row] for kind, wanted in rows.items() for row in wanted]
        )


def read_ahead(load, items):
    """load(item) of each item in turn; a thread loads the next one while the caller works with this
    one, so two are held."""
    with ThreadPoolExecutor(1) as thread:
        waiting = [thread.submit(load, item) for item in items[:1]]
        for following in range(1, len(items) + 1):
            loaded = waiting.pop().result()
            waiting = [thread.submit(load, item) for item in items[following : following + 1]]
            yield loaded


class AllClips:
    """Clips float16 [C, F', H', W'] of videos x steps. config: the model's VideoMAEConfig.

    `scan` reads all of them once, step by step; then `batches` gives any of them. sha256: of the
    clips as scanned.
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
        """Yield (videos, at, clips) for each (positions of videos, positions of steps) of the list
        `wanted`, each [B].

        Where clips are read from the disk, the next mini-batch is read while the last one is in
        use.
        """
        if self.held is not None:
            for videos, at in wanted:
                yield videos, at, self.held[at, videos]
            return
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for videos, at in [*wanted, (None, None)]:
                ready, coming = (
                    coming,
                    videos is not None and (videos, at, reader.submit(self._gather, videos, at)),
                )
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
                clips = self.source.read(kind, rows, step, self.config)
                for place, clip in zip(places, clips):
                    found[place] = clip
        return torch.stack(found)


def statistics(clips):
    """(mean, std) per channel, float32 [C] each, of clips [N, C, F, H, W]."""
    count, axes = clips.numel() / clips.shape[1], (0, 2, 3, 4)
    mean = sum(part.double().sum(axes) for part in clips.split(FLOAT32_AT_ONCE)) / count
    square = (
        sum(
            ((part.double() - mean.view(1, -1, 1, 1, 1)) ** 2).sum(axes)
            for part in clips.split(FLOAT32_AT_ONCE)
        )
        / count
    )
    return mean.float(), square.sqrt().clamp_min(1e-6).float()
