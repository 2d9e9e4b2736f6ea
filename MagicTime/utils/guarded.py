"""The guard at work in the sampler: which videos of a batch go on, and previews of what the guard
saw.

What is unsafe is decided by lvd.guard.guard alone. Here its verdicts are carried out: a stopped
video leaves the batch, is never decoded and never written.
"""

import time
from dataclasses import replace
from functools import cached_property
from math import isfinite

import torch

from lvd.data.rgb import LatentToRGB, load_rgb
from lvd.errors import InputError, typed
from lvd.guard.file import is_guard_file
from lvd.guard.guard import Guard
from lvd.guard.guidance import WARN
from lvd.guard.result import STOPPED
from lvd.rules.vote import VoteRule
from lvd.voting import exact
from lvd.x0.levels import levels_of
from lvd.x0.schedulers import describe_scheduler
from MagicTime.utils import config as cfg
from MagicTime.utils.later_votes import LaterVotes
from MagicTime.utils.pipeline import decode, to_bytes
from MagicTime.utils.video import write_filmstrip

PREVIEW_ROWS = 8  # steps that a preview shows at most
PREVIEW_LEFT = 128  # pixels beside its frames, for the step and its largest raw score
PREVIEW_NAME = 12  # letters of a category there


class Guarding:
    """A Guard and what to do with its verdicts.

    Args:
        path: folder of the detectors, a shared.pth, or a guard.yaml, which names rule and
            operating point too.
        lambda_, eta, rule: which rule decides, as in lvd.guard.guard.Guard.
        device: torch.device of the detectors.
        operating_point: how detectors are read, as in embed_model.py.
        dry_run: stop nothing; the verdicts tell what would have been stopped.
        preview: None draws no pictures; else the file of fit_rgb.py whose matrix draws them (""
            for the detectors' own, else Stable Diffusion's).
        allow_unknown: accept detectors that do not say from what sampling they learned.
        guidance: "warn" of another guidance scale than theirs, or "same": refuse it.
    """

    def __init__(
        self,
        path,
        lambda_,
        eta,
        device,
        operating_point=None,
        dry_run=False,
        preview=None,
        allow_unknown=False,
        rule=None,
        guidance=WARN,
    ):
        path = cfg.find(path)
        given = {
            "--lambda": lambda_,
            "--eta": eta,
            "--rule": rule,
            "--operating_point": operating_point,
        }
        settings = {
            "device": device,
            "decode": self._decode,
            "allow_unknown": allow_unknown,
            "asked_by": "--guard ",
            "guidance": guidance,
        }
        if is_guard_file(path):
            _need_none(given, path)
            self.guard = Guard.from_file(path, **settings)
        else:
            rule = cfg.find(rule) if isinstance(rule, str) else rule
            point = operating_point
            self.guard = Guard(path, lambda_, eta, operating_point=point, rule=rule, **settings)
        self.dry_run = dry_run
        self.vae = None  # given when the model is loaded
        self.rgb = None if preview is None else self._matrix(preview)
        # What two runs into one folder must have alike.
        self.identity = {
            "detectors": self.guard.bank.sha256()[:16],
            **self._rule_identity(),
            "operating_point": self.guard.operating_point,
            "dry_run": dry_run,
        }
        if policy := self.guard.policy.as_dict():
            self.identity["categories"] = policy

    def _rule_identity(self):
        """Return what two runs into one folder must have alike of the rule."""
        rule = self.guard.rule
        if isinstance(rule, VoteRule):
            return {"lambda": float(exact(rule.lambda_)), "eta": rule.eta}
        return {"rule": rule.family, **rule.as_dict()}

    def check(self, config, latent_shape):
        """Refuse a sampling that the detectors do not know.

        Args:
            config: MagicTime.utils.config.Config.
            latent_shape: (C, F, h, w) of one video.
        """
        settings = config.settings
        scheduler = config.make_scheduler()
        self.guard.check(
            {
                "steps": settings.steps,
                "timesteps": scheduler.timesteps.tolist(),
                "levels": levels_of(scheduler),
                "x0_mode": settings.x0_mode,
                "scheduler": describe_scheduler(scheduler),
                "latent_shape": list(latent_shape),
                "guidance_scale": settings.guidance_scale,
            }
        )
        if self.rgb:
            self.rgb.need_channels(latent_shape[0])

    def describe(self):
        """Return the guard in words, for the plan of a run."""
        categories = len(self.guard.bank.groups)
        policy = self.guard.policy.describe()
        policy = f" ({policy})" if policy else ""
        dry_run = ", dry run: nothing is stopped" if self.dry_run else ""
        return f"{categories} categories{policy}, {self.guard.rule.describe()}{dry_run}"

    def batch(self, rows, wanted, steps, levels=None, guidance_scale=None):
        """Return the GuardedBatch of the videos `rows`, of which the `wanted` ones are written.

        Args:
            steps: number of denoising steps.
            levels: noise level of each (lvd.x0.levels); None: as where the detectors learned.
            guidance_scale: of the sampling; None: not known.
        """
        return GuardedBatch(self, rows, wanted, steps, levels, guidance_scale)

    def _matrix(self, path):
        if path:
            return load_rgb(cfg.find(path))
        numbers = self.guard.members[0].about.get("dataset", {}).get("rgb_matrix")
        return LatentToRGB.of_numbers(numbers) if numbers else load_rgb()

    def _decode(self, latents):
        """Decode clips for detectors of decoded videos: latents [n, C, F, h, w] → [n, 3, F, H, W].

        Each clip is decoded alone, as recorded clips are: so the pixels are the same bits.
        """
        clips = [decode(self.vae, clip, device=latents.device) for clip in latents.split(1)]
        return torch.cat(clips)


def _need_none(given, path):
    """InputError for a flag beside a guard.yaml, which says the same; `given`: {flag: value}."""
    for flag, value in given.items():
        if value is not None:
            raise InputError(
                f"{flag} {typed(str(value))}: --guard {path} says which rule and operating point "
                "it is; change that file"
            )


class GuardedBatch:
    """The guard of one batch while it is sampled.

    Args:
        guarding: Guarding.
        rows: the batch's rows, in order.
        wanted: those whose videos are written. The others are sampled only so that the batch, and
            with it every bit of the wanted videos, is the same as in an unbroken run.
        steps: denoising steps of the sampling.
        levels: noise level of each of them; None: as where the detectors learned.
        guidance_scale: of the sampling; None: not known.
    """

    def __init__(self, guarding, rows, wanted, steps, levels=None, guidance_scale=None):
        self.dry_run = guarding.dry_run
        self.rgb = guarding.rgb
        self.rows = rows
        self._wanted = set(wanted)
        self._session = guarding.guard.session(steps, len(rows), levels)
        self._differs = guarding.guard.check({"guidance_scale": guidance_scale})
        self._watched = list(range(len(rows)))  # places, in `rows`, of those not stopped
        self._seen = []  # [step] {row: x0 [C, F, h, w]}, for previews
        self._times = []  # [step] (seconds of the sampler, how many videos it had)
        self._waiting = time.monotonic()  # since when the sampler is at work
        self._later = LaterVotes(guarding.guard, self._session) if guarding.dry_run else None

    def step(self, step, x0):
        """Judge one step: an on_step of MagicTime.utils.pipeline.sample.

        Args:
            step: its number, from 0.
            x0: predicted x0 [n, C, F, h, w] of the videos that are still sampled.

        Returns:
            [places in x0 to go on with], or None for all.
        """
        self._times.append((time.monotonic() - self._waiting, len(x0)))
        keep = self._decide(step, x0)
        self._waiting = time.monotonic()
        return keep

    def _decide(self, step, x0):
        watched = x0[self._watched] if self.dry_run else x0  # a dry run drops no video
        if self.rgb and step < self._session.horizon:
            self._remember(watched)
        if self._later and step < self._session.horizon:
            self._later.observe(step, x0, self._session.verdicts())
        states = self._session.observe(step, watched, self._watched)
        keep = [k for k, state in enumerate(states) if state not in STOPPED]
        self._watched = [self._watched[k] for k in keep]
        if self.dry_run:
            return None
        # When every wanted video is stopped, nothing of this batch will be written: it ends here.
        wanted_left = any(self.rows[place] in self._wanted for place in self._watched)
        return keep if wanted_left else []

    def _remember(self, x0):
        """Keep the x0 of this step's wanted videos for the previews."""
        seen = {}
        for place, clip in zip(self._watched, x0.to("cpu", torch.float16), strict=True):
            if self.rows[place] in self._wanted:
                seen[self.rows[place]] = clip
        self._seen.append(seen)

    def allowed(self, rows):
        """Return those of `rows`, all sampled to the last step, whose videos may be written."""
        return [row for row in rows if self.dry_run or not self.results[row].stopped]

    @cached_property
    def results(self):
        """{row: GuardResult} of all rows; to be asked for when sampling is over."""
        times = self._times[1:] or self._times  # the first has encoded the prompts, too
        seconds = sum(seconds for seconds, _ in times)
        video_steps = sum(videos for _, videos in times)
        each = seconds / max(1, video_steps)
        return {
            row: replace(result, seconds_saved=each * result.steps_saved, **self._differs)
            for row, result in zip(self.rows, self._session.results(), strict=True)
        }

    def later(self, row):
        """Return what the detectors said of a video after its verdict; {} but in a dry run.

        Returns:
            {"later_votes": [step], "later_scores": {category: [step]}}, see `LaterVotes`.
        """
        return self._later.told(self.rows.index(row)) if self._later else {}

    def preview(self, path, row, caption):
        """Draw what the guard saw of a video until it was decided, as small frames enlarged.

        Beside the frames are the step and its largest raw score, above them the caption and why.

        Args:
            path: PNG to write.
            row: of the video.
            caption: text above the frames.
        """
        result = self.results[row]
        looked = len(result.votes) or 1
        steps = [step for step, seen in enumerate(self._seen[:looked]) if row in seen]
        last = len(steps) - 1
        shown = {round(i * last / (PREVIEW_ROWS - 1)) for i in range(PREVIEW_ROWS)}
        strips = []
        for step in (steps[k] for k in sorted(shown)):
            strips.append((_told(result, step), self._frames(self._seen[step][row])))
        if result.reason:
            caption = f"{caption}\n{result.reason}"
        write_filmstrip(path, strips, caption, left=PREVIEW_LEFT, smooth=True)

    def _frames(self, x0):
        """Draw x0 [C, F, h, w] by the rgb matrix: uint8 [F, h, w, 3]."""
        rgb = self.rgb(x0.float().nan_to_num(0.0, 0.0, 0.0))
        return to_bytes((rgb / 2 + 0.5).clamp(0, 1))


def _told(result, step):
    """Return what a preview says of a step: its number, and the largest raw score where known."""
    known = {name: values[step] for name, values in result.scores.items() if step < len(values)}
    known = {name: value for name, value in known.items() if isfinite(value)}
    if not known:
        return f"step {step}"
    name = max(known, key=known.get)
    short = name if len(name) <= PREVIEW_NAME else f"{name[: PREVIEW_NAME - 2]}.."
    unsafe = "\nvotes unsafe" if result.votes[step : step + 1] == [1] else ""
    return f"step {step}\n{short} {known[name]:.2f} raw{unsafe}"
