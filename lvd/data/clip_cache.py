"""Clips in memory, at the size that a model takes: those of one step, or those of all steps."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import torch

from lvd.data.kinds import KINDS
from lvd.utils.files import raw_bytes

HOLD = 4 << 30  # bytes of float16 clips kept in memory; more are read anew for each mini-batch
FLOAT32_AT_ONCE = 64  # clips that are turned to float32 together


class StepReader:
    """Reads the clips of one step at the size that a model takes.

    Each clip is read, decoded and resized once, however many detectors ask for it. Clips stay in
    memory, in float16, and `read` returns copies. So memory grows with the videos, but not with the
    steps, categories or epochs (2,000 videos of 4 x 16 x 64 x 64 latents: 1 GB).

    Args:
        source: of the clips (lvd.data.sources).
        step: number of a denoising step.
        config: the model's VideoMAEConfig (frames, size, channels).
    """

    def __init__(self, source, step, config):
        self.source, self.step, self.config = source, step, config
        self._held = {kind: {} for kind in KINDS}

    def load(self, rows):
        """Read those of rows, {kind: [row, ...]}, that are not in memory yet."""
        for kind, wanted in rows.items():
            held = self._held[kind]
            missing = [row for row in wanted if row not in held]
            if missing:
                clips = self.source.read(kind, missing, self.step, self.config)
                held.update(zip(missing, clips))

    def read(self, rows):
        """Return the clips of some rows.

        Args:
            rows: {"unsafe": [row, ...], "normal": [row, ...]}.

        Returns:
            float16 [N, C, F', H', W'], in the order of `rows`.
        """
        self.load(rows)
        clips = []
        for kind, wanted in rows.items():
            clips += [self._held[kind][row] for row in wanted]
        return torch.stack(clips)


def read_ahead(load, items):
    """Yield load(item) of each item in turn.

    A thread loads the next one while the caller works with this one, so two are held.
    """
    with ThreadPoolExecutor(1) as thread:
        waiting = [thread.submit(load, item) for item in items[:1]]
        for following in range(1, len(items) + 1):
            loaded = waiting.pop().result()
            waiting = [thread.submit(load, item) for item in items[following : following + 1]]
            yield loaded


class AllClips:
    """Clips float16 [C, F', H', W'] of videos x steps.

    `scan` reads all of them once, step by step. After that `batches` returns any of them.

    Attributes:
        sha256: hash of all clips, known after `scan`.

    Args:
        source: of the clips (lvd.data.sources).
        videos: [(kind, row)].
        steps: numbers of denoising steps.
        config: the model's VideoMAEConfig.
        hold: if all clips have no more bytes than this, they stay in memory.
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
        """Yield mini-batches of clips.

        Where clips are read from the disk, the next mini-batch is read while the last one is in
        use.

        Args:
            wanted: [(positions of videos [B], positions of steps [B])].

        Yields:
            (videos, at, clips [B, C, F', H', W']) for each of them.
        """
        if self.held is not None:
            for videos, at in wanted:
                yield videos, at, self.held[at, videos]
            return

        def load(places):
            return (*places, self._gather(*places))

        yield from read_ahead(load, wanted)

    def _gather(self, videos, at):
        """Clips of these positions, in their order; each step is read at once."""
        clips = None
        for step in at.unique().tolist():
            places = torch.where(at == step)[0]
            of_step = self._read(videos[places].tolist(), self.steps[step])
            if clips is None:
                clips = torch.empty(len(at), *of_step.shape[1:], dtype=of_step.dtype)
            clips[places] = of_step
        return clips

    def _read(self, numbers, step):
        """Clips of these videos, in their order; each kind is read at once."""
        chosen = [self.videos[number] for number in numbers]
        clips = [None] * len(chosen)
        for kind in KINDS:
            places = [place for place, (of, _) in enumerate(chosen) if of == kind]
            if not places:
                continue
            rows = [chosen[place][1] for place in places]
            of_kind = self.source.read(kind, rows, step, self.config)
            for place, clip in zip(places, of_kind):
                clips[place] = clip
        return torch.stack(clips)


def statistics(clips):
    """Return the mean and the standard deviation of each channel.

    Args:
        clips: [N, C, F, H, W].

    Returns:
        (mean, std), float32 [C] each; summed in float64, a few clips at a time.
    """
    count, axes = clips.numel() / clips.shape[1], (0, 2, 3, 4)
    parts = clips.split(FLOAT32_AT_ONCE)
    mean = sum(part.double().sum(axes) for part in parts) / count
    centre = mean.view(1, -1, 1, 1, 1)
    variance = sum(((part.double() - centre) ** 2).sum(axes) for part in parts) / count
    return mean.float(), variance.sqrt().clamp_min(1e-6).float()
