"""Votes on videos that are decided already: in a dry run, which stops nothing, another rule may be
tried on them afterwards."""

from lvd.guard.answers import ask


class LaterVotes:
    """The votes of one batch after each video's verdict, up to the rule's horizon.

    The guard asks its detectors no more once a video is decided. The votes that are missing then
    are those that another rule of the same or a smaller horizon would need.

    Args:
        guard: lvd.guard.guard.Guard.
        session: the batch's lvd.guard.session.GuardSession, which knows the detectors of a step.
    """

    def __init__(self, guard, session):
        self._guard = guard
        self._session = session
        self._scores = {}  # place in the batch → [step][category]
        self._votes = {}  # place in the batch → [step] of 0/1
        self._failed = set()  # places at which a detector failed: no more is said of them

    def observe(self, step, x0, verdicts):
        """Score one step of the videos that were decided before it.

        Args:
            step: its number, from 0.
            x0: predicted x0 [n, C, F, h, w] of all videos of the batch.
            verdicts: [n], None for a video that is undecided; or [] before the first step.
        """
        for place, verdict in enumerate(verdicts):
            if verdict is not None and place not in self._failed:
                self._look(step, x0[place : place + 1], place)

    def _look(self, step, x0, place):
        guard = self._guard
        step_map = self._session.step_map
        trained = step_map.trained[step]
        thresholds = guard.bank.thresholds(trained, guard.operating_point)
        try:
            clips = guard.reader(trained, x0)
            (answer,) = ask(guard.bank, trained, clips, thresholds, step_map.level(step))
        except Exception:  # the video has its verdict: what comes later may be missing
            self._failed.add(place)
            return
        if not answer.is_sound(guard.judge.counted):
            self._failed.add(place)
            return
        self._scores.setdefault(place, []).append(answer.scores)
        self._votes.setdefault(place, []).append(guard.judge.vote(answer.says))

    def told(self, place):
        """Return what was seen of a video after its verdict, for verdicts.jsonl.

        Returns:
            {"later_votes": [step] of 0/1, "later_scores": {category: [step] of raw
            probabilities}}, from the step after the verdict on.
        """
        bank = self._guard.bank
        scores = self._scores.get(place, [])
        by_category = {
            bank.categories[group]: [of_step[k] for of_step in scores]
            for k, group in enumerate(bank.groups)
        }
        return {"later_votes": self._votes.get(place, []), "later_scores": by_category}
