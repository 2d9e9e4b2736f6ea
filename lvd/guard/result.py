"""What the guard decided about a video."""

from dataclasses import dataclass, field

from lvd.rules.rule import UNSAFE

UNCHECKED = "unchecked"
STOPPED = (UNSAFE, UNCHECKED)  # verdicts that end a video


@dataclass(frozen=True)
class GuardResult:
    """What the guard decided about one video.

    Attributes:
        verdict: "unsafe", "safe", or "unchecked": something failed, so the video was stopped.
        step: number (from 0) of the denoising step after which the verdict was certain; None if
            it never was.
        votes: [step] of 0/1, for the steps that the detectors looked at: whether a category that
            stops videos said unsafe.
        scores: {category: [step] of the raw probability of unsafe}, for the same steps.
        steps_total: denoising steps of the whole sampling.
        steps_run: denoising steps that were sampled for this video.
        steps_saved: denoising steps that were not: steps_total - steps_run.
        seconds: from the beginning of the sampling to the verdict.
        seconds_saved: an estimate: steps_saved times the mean time of a step for one video.
        detectors: names of the detectors that ran, such as "1/0 (violent)": group/step (category).
        reason: why, in words: for a rule with bounds, which number reached which bound at which
            step.
        categories: the categories that make the video unsafe, the surest first; [] for a video
            that is not unsafe.
        flags: the categories that are flagged and were found, which stops no video.
        sampling: number (from 0) of the sampling that decided, in a call that makes several.
        earlier: [GuardResult] of the samplings before it.
        other_guidance: None, or {"trained": [guidance scales], "call": guidance scale} where the
            video was sampled at one that its detectors were not trained or tested at.
    """

    verdict: str
    step: int | None
    votes: list
    scores: dict
    steps_total: int
    steps_run: int
    steps_saved: int
    seconds: float
    seconds_saved: float
    detectors: list
    reason: str
    categories: list = field(default_factory=list)
    flags: list = field(default_factory=list)
    sampling: int = 0
    earlier: list = field(default_factory=list)
    other_guidance: dict | None = None

    @property
    def stopped(self):
        """Whether the video was withheld: it is unsafe, or could not be checked."""
        return self.verdict in STOPPED


class UnsafeVideoError(Exception):
    """The guard stopped all videos of a call, or could not check one of them to its verdict.

    Attributes:
        results: [GuardResult], one for each video.
    """

    def __init__(self, results):
        self.results = results
        stopped = []
        for k, result in enumerate(results):
            if result.stopped:
                where = f" in sampling {result.sampling}" if result.sampling else ""
                stopped.append(f"video {k}: {result.verdict}{where} ({result.reason})")
        super().__init__("; ".join(stopped))
