"""The verdicts of a call that samples several times, one session after the other."""

from dataclasses import replace

from lvd.errors import InputError, plural
from lvd.guard.result import STOPPED


class VerdictsOfSamplings:
    """The sessions of the samplings of one call.

    A video is stopped as soon as one sampling stops it, and no later one looks at it again. It is
    safe when every sampling found it safe.

    Attributes:
        planned: denoising steps of the sampling that is running.
        taken: how many of them are over.
    """

    def __init__(self):
        self.planned = 0
        self.taken = 0
        self._over = []  # sessions of earlier samplings
        self._session = None  # of the one that is running; it may have taken no step

    def begin(self, session, planned):
        """A sampling begins, in the place of one that has taken no step.

        Args:
            session: its lvd.guard.session.GuardSession.
            planned: its number of denoising steps.
        """
        if self.taken:
            self._over.append(self._session)
        self._session = session
        self.planned = planned
        self.taken = 0

    @property
    def number(self):
        """The number (from 0) of the sampling that is running."""
        return len(self._over)

    def observe(self, step, clips):
        """Judge one step; `clips`: predicted x0 [B, C, F, h, w] of all videos.

        Raises:
            InputError: this sampling has another number of videos than the ones before.
        """
        before = self._verdicts_of(self._over)
        if before and len(before) != len(clips):
            raise InputError(
                f"a sampling of {plural(len(clips), 'video')} follows one of {len(before)} in the "
                "same call, so it is not known which video is which"
            )
        if self.taken == 0:
            self._session.expect(len(clips))
        self.taken += 1
        left = [k for k in range(len(clips)) if not before or before[k] not in STOPPED]
        if len(left) == len(clips):
            self._session.observe(step, clips)
        elif left:
            self._session.observe(step, clips[left], left)

    def verdicts(self):
        """Return the verdict of each video so far, None where it is undecided."""
        return self._verdicts_of(self._with_steps())

    def _with_steps(self):
        return [*self._over, self._session] if self.taken else list(self._over)

    def _verdicts_of(self, sessions):
        of_videos = zip(*(session.verdicts() for session in sessions), strict=True)
        return [verdicts[_deciding(verdicts)] for verdicts in of_videos]

    def results(self):
        """Return a GuardResult for each video: of the sampling that stopped it, else of the last.

        Its `earlier` are those of the samplings before.
        """
        of_videos = zip(*(session.results() for session in self._with_steps()), strict=True)
        results = []
        for of_samplings in of_videos:
            k = _deciding([result.verdict for result in of_samplings])
            earlier = list(of_samplings[:k])
            results.append(replace(of_samplings[k], sampling=k, earlier=earlier))
        return results

    def withhold(self, reason):
        """Call every video unchecked that is not unsafe; `reason`: why, in words."""
        if sessions := self._with_steps():
            sessions[-1].withhold(reason)


def _deciding(verdicts):
    """The number of the sampling that decides about a video: the first that stopped it, else the
    first that left it undecided, else the last."""
    for kinds in (STOPPED, (None,)):
        for k, verdict in enumerate(verdicts):
            if verdict in kinds:
                return k
    return len(verdicts) - 1
