"""Safe Latent Diffusion, alone and together with LVD."""

from dataclasses import dataclass

import numpy as np

from lvd.data.kinds import KINDS
from lvd.x0.file import open_x0_file
from lvd_study.intervals import mean_of, share
from lvd_study.table import Table
from MagicTime.utils.safe_guidance import NONE

PASSES = 3 / 2  # of the UNet at each step: for the concept, too, beside prompt and negative prompt


@dataclass(frozen=True)
class Guided:
    """What comes of the held-out prompts at one strength.

    Attributes:
        name: of the strength; "none" is sampled as the model's recordings were.
        by_video: bool [seeds, videos], does the classifier of finished videos say unsafe?
        by_latents: bool [seeds, videos], do the detectors of the last step?
        guard: OverSeeds of LVD on these videos.
        changes: {kind: float [videos]}, standard deviation of the change of the finished latents,
            in those of the unguided latents.
    """

    name: str
    by_video: np.ndarray
    by_latents: np.ndarray
    guard: object
    changes: dict

    @property
    def passes(self):
        """What one step costs, in steps without safe guidance."""
        return 1.0 if self.name == NONE else PASSES

    def still_unsafe(self, judge):
        """Return the Estimate of the share of unsafe prompts whose video is unsafe.

        Args:
            judge: "by_video" or "by_latents".
        """
        return share(getattr(self, judge)[:, self.guard.is_unsafe])

    def handed_out(self, judge):
        """Return the same of the videos that are unsafe and that LVD does not stop."""
        passed = getattr(self, judge) & ~self.guard.stopped
        return share(passed[:, self.guard.is_unsafe])

    def normal_unsafe(self):
        """Return the Estimate of the share of normal prompts whose video counts as unsafe."""
        return share(self.by_video[:, ~self.guard.is_unsafe])

    def change(self, kind):
        """Return the Estimate of the mean change of one kind of videos."""
        return mean_of(self.changes[kind][None])

    def cost(self):
        """Return the Estimate of what an unsafe video takes with LVD.

        In whole samplings without safe guidance.
        """
        return mean_of(self.guard.costs * self.passes)


def changes_of(plain, rows, guided, guided_rows):
    """Compare the finished latents of recordings, video by video.

    Args:
        plain: {kind: path} of recordings whose last step is the finished video.
        rows: {kind: [row]} of the videos.
        guided, guided_rows: the same of the videos of the same prompts and seeds, in that order.

    Returns:
        {kind: float [videos]}: standard deviation of the change, in those of the plain latents.
    """
    found = {}
    for kind in KINDS:
        before = open_x0_file(plain[kind]).tensor[:, -1]  # [N, C, F, h, w]
        after = open_x0_file(guided[kind]).tensor[:, -1]
        changes = []
        for row, guided_row in zip(rows[kind], guided_rows[kind], strict=True):
            was, is_now = before[row].float(), after[guided_row].float()
            changes.append(float((is_now - was).std() / was.std()))
        found[kind] = np.array(changes)
    return found


def unsafe_table(guided):
    """Return the Table of [Guided]: what comes of unsafe prompts."""
    rows = [
        [
            one.name,
            one.still_unsafe("by_video"),
            one.still_unsafe("by_latents"),
            one.guard.recall(),
            one.handed_out("by_video"),
            one.handed_out("by_latents"),
            one.passes,
            one.cost(),
        ]
        for one in guided
    ]
    return Table(
        "d_safe_guidance",
        "Safe Latent Diffusion, unsafe prompts.",
        "Shares of the videos of unsafe prompts. Unsafe: so says the classifier of finished "
        "videos, or the votes of the last step. Cost: what an unsafe video takes, in samplings "
        "without safe guidance, whose steps ask the network for two predictions instead of three.",
        [
            "strength",
            "unsafe, alone",
            "unsafe, alone, by the last step",
            "stopped by LVD",
            "unsafe and not stopped",
            "unsafe and not stopped, by the last step",
            "cost alone",
            "cost with LVD",
        ],
        rows,
    )


def normal_table(guided):
    """Return the Table of [Guided]: what becomes of normal videos."""
    rows = [
        [
            one.name,
            one.change("normal"),
            one.change("unsafe"),
            one.normal_unsafe(),
            one.guard.false_positives(),
        ]
        for one in guided
    ]
    return Table(
        "d_safe_guidance_normal",
        "Safe Latent Diffusion, normal prompts.",
        "Change: standard deviation of the difference of the finished latents from those of the "
        "same prompt and seed without safe guidance, in standard deviations of the latter; two "
        "unrelated videos have about 1.4.",
        [
            "strength",
            "change of normal videos",
            "change of unsafe videos",
            "normal videos called unsafe",
            "normal videos stopped by LVD",
        ],
        rows,
    )
