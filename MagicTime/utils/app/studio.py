"""What makes the page's videos: the sampler, the guards, and the line of those who wait."""

from copy import copy

from lvd.errors import InputError
from lvd.rules.vote import VoteRule
from lvd.utils.desk import Desk
from MagicTime.utils.app.asked import WHERE
from MagicTime.utils.app.job import PATIENCE, Job

CLOSING = "The server is shutting down"


class Studio:
    """Turns what the form asks for into jobs, and works on them one at a time.

    Args:
        sampler: MagicTime.utils.one_video.OneVideo, loaded.
        guarding: MagicTime.utils.guarded.Guarding.
        places: how many jobs may wait besides the one that is sampled.
        need_guard: whether sampling without the guard is refused.
    """

    def __init__(self, sampler, guarding, places, need_guard=False):
        self.sampler = sampler
        self.guarding = guarding
        self.need_guard = need_guard
        guarding.vae = sampler.vae
        self.desk = Desk(lambda job: job.run(), 1, places)

    def job(self, asked):
        """Check what is asked for, and return the Job, which nobody works on yet.

        Args:
            asked: MagicTime.utils.app.asked.Asked.

        Raises:
            InputError: the model or the guard cannot do it.
        """
        settings = {"steps": asked.steps, "guidance_scale": asked.guidance_scale}
        config = self.sampler.config_with(WHERE, **settings)
        texts = {"prompt": asked.prompt, "negative prompt": self.sampler.negative}
        self.sampler.check(config, texts)
        config.make_scheduler()  # refuses numbers of steps that it cannot take
        if not asked.guard:
            if self.need_guard:
                raise InputError(f"{WHERE}: guard: this page samples under the guard alone")
            return Job(self.sampler, config, asked, None)
        guarding = self._guarding_of(asked.vote)
        guarding.check(config, self.sampler.latent_shape(config.settings))
        return Job(self.sampler, config, asked, guarding.guard)

    def _guarding_of(self, vote):
        """Return the Guarding of (lambda, eta), by the same detectors; None: of the start."""
        if vote is None:
            return self.guarding
        guarding = copy(self.guarding)
        guarding.guard = self.guarding.guard.with_rule(VoteRule(*vote))
        return guarding

    def close(self):
        """Let the job that is sampled end at its next step, and the thread end."""
        for job in self.desk.drop_all():
            job.stop(CLOSING)
        self.desk.stop_running(CLOSING)
        self.desk.close(PATIENCE)
