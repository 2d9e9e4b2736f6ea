"""The guard at work in the sampler: which videos of a batch go on, and previews of what the guard
saw.

What is unsafe is decided by lvd.guard.guard alone. Here its verdicts are carried out: a stopped
video leaves the batch, is never decoded and never written.
"""

import time
from dataclasses import replace
from functools import cached_property

import torch

from lvd.data.rgb import LatentToRGB, load_rgb
from lvd.guard.guard import Guard
from lvd.guard.session import STOPPED
from lvd.voting import exact
from lvd.x0.schedulers import describe_scheduler
from MagicTime.utils import config as cfg
from MagicTime.utils.model_config import make_scheduler
from MagicTime.utils.pipeline import decode, to_bytes
from MagicTime.utils.video import write_filmstrip

PREVIEW_ROWS = 8  # steps that a preview shows at most


class Guarding:
    """A Guard and what to do with its verdicts.

    folder: of the detectors; dry_run: nothing is stopped, the verdicts tell what would have been;
    preview: None, or the rgb matrix (a file of fit_rgb.py; "": the detectors' own, else Stable
    Diffusion's) of the pictures to draw.
    """

    def __init__(
        self,
        folder,
        lambda_,
        eta,
        device,
        operating_point="validation",
        dry_run=False,
        preview=None,
        allow_unknown=False,
    ):
        self.guard = Guard(
            cfg.find(folder),
            lambda_,
            eta,
            device,
            operating_point,
            self._decode,
            allow_unknown,
            "--guard ",
        )
        self.dry_run, self.vae = dry_run, None
        self.rgb = None if preview is None else self._matrix(preview)
        # What two runs into one folder must have alike.
        self.identity = {
            "detectors": self.guard.bank.sha256()[:16],
            "lambda": float(exact(lambda_)),
            "eta": eta,
            "operating_point": self.guard.operating_point,
            "dry_run": dry_run,
        }

    def check(self, config, latent_shape):
        """InputError unless the detectors know this sampling. latent_shape: (C, F, h, w)."""
        settings = config.settings
        scheduler = make_scheduler(config.scheduler, config.path, settings.steps)
        self.guard.check(
            {
                "steps": settings.steps,
                "timesteps": scheduler.timesteps.tolist(),
                "x0_mode": settings.x0_mode,
                "scheduler": describe_scheduler(scheduler),
                "latent_shape": list(latent_shape),
            }
        )
        if self.rgb:
            self.rgb.need_channels(latent_shape[0])

    def describe(self):
        found = self.identity
        return (
            f"{len(self.guard.bank.groups)} categories, lambda {found['lambda']}, eta "
            f"{found['eta']}{', dry run: nothing is stopped' if self.dry_run else ''}"
        )

    def batch(self, rows, wanted, steps):
        """GuardedBatch of the videos `rows`, of which only the `wanted` ones are made for keeps."""
        return GuardedBatch(self, rows, wanted, steps)

    def _matrix(self, path):
        if path:
            return load_rgb(cfg.find(path))
        numbers = self.guard.members[0].about.get("dataset", {}).get("rgb_matrix")
        return (
            LatentToRGB(tuple(map(tuple, numbers[:-1])), tuple(numbers[-1]))
            if numbers
            else load_rgb()
        )

    def _decode(self, latents):
        """Pixels for detectors of decoded videos, clip by clip, as recorded clips are decoded."""
        return torch.cat(
            [decode(self.vae, clip, device=latents.device) for clip in latents.split(1)]
        )


class GuardedBatch:
    """One batch while it is sampled."""

    def __init__(self, guarding, rows, wanted, steps):
        self.dry_run, self.rgb, self.rows, self._wanted = (
            guarding.dry_run,
            guarding.rgb,
            rows,
            set(wanted),
        )
        self._session = guarding.guard.session(steps, len(rows))
        self._eta = guarding.guard.eta
        self._watched = list(
            range(len(rows))
        )  # places, in `rows`, of those that the guard has not stopped
        self._seen = []  # [step] {row: x0 [C, F, h, w]}, for previews
        self._times = []  # [step] (seconds of the sampler, how many videos it had)
        self._waiting = time.monotonic()  # since when the sampler is at work

    def step(self, step, x0):
        """The places in x0 [n, C, F, h, w] to go on with, None for all: an on_step of the sampler."""
        self._times.append((time.monotonic() - self._waiting, len(x0)))
        keep = self._decide(step, x0)
        self._waiting = time.monotonic()
        return keep

    def _decide(self, step, x0):
        mine = x0[self._watched] if self.dry_run else x0
        if self.rgb and step < self._eta:
            self._seen.append(
                {
                    self.rows[place]: clip
                    for place, clip in zip(self._watched, mine.to("cpu", torch.float16))
                    if self.rows[place] in self._wanted
                }
            )
        states = self._session.observe(step, mine, self._watched)
        keep = [k for k, state in enumerate(states) if state not in STOPPED]
        self._watched = [self._watched[k] for k in keep]
        if self.dry_run:
            return None
        # Others than the wanted ones are there to make the batch what it was; without those they
        # serve nothing.
        return keep if any(self.rows[place] in self._wanted for place in self._watched) else []

    def allowed(self, rows):
        """Those of `rows`, which were sampled to the last step, whose videos may be made."""
        return [row for row in rows if self.dry_run or not self.results[row].stopped]

    @cached_property
    def results(self):
        """{row: GuardResult} of all rows; to be asked for when sampling is over."""
        found = self._session.results()
        times = self._times[1:] or self._times  # the first has encoded the prompts, too
        each = sum(seconds for seconds, _ in times) / max(
            1, sum(videos for _, videos in times)
        )  # of a video's step
        return {
            row: replace(result, seconds_saved=each * result.steps_saved)
            for row, result in zip(self.rows, found)
        }

    def preview(self, path, row, caption):
        """Draw what the guard saw of a video until it was decided: small frames, by the linear rgb
        matrix."""
        looked = len(self.results[row].votes) or 1
        steps = [step for step, seen in enumerate(self._seen[:looked]) if row in seen]
        steps = sorted(
            {steps[round(i * (len(steps) - 1) / (PREVIEW_ROWS - 1))] for i in range(PREVIEW_ROWS)}
        )
        strips = [(f"step {step}", self._frames(self._seen[step][row])) for step in steps]
        write_filmstrip(path, strips, caption)

    def _frames(self, x0):
        """uint8 [F, h, w, 3]"""
        rgb = self.rgb(x0.float().nan_to_num(0.0, 0.0, 0.0))
        return to_bytes((rgb / 2 + 0.5).clamp(0, 1))
