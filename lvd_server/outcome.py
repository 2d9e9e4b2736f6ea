"""How a request ends: what the client is told, and what the log says."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone

from lvd.guard.result import UNCHECKED
from lvd.rules.rule import SAFE, UNSAFE

# Statuses of HTTP, and nginx's for a client that has closed the connection.
OK, BAD, TOO_LARGE, WRONG_TYPE, WRONG_BODY = 200, 400, 413, 415, 422
TOO_SLOW, TOO_MANY, CLIENT_GONE, UNAVAILABLE = 408, 429, 499, 503


@dataclass(frozen=True)
class Outcome:
    """The end of a request.

    Attributes:
        status: of HTTP.
        reason: one sentence for the client.
        verdict: "safe", "unsafe" or "unchecked"; None: no guard was asked.
        result: lvd.guard.result's GuardResult, or None.
        video: bytes of an mp4; only where the status is OK.
        detail: what the log says besides, and the client does not see.
        retry_after: seconds after which to try again, or None.
    """

    status: int
    reason: str
    verdict: str | None = None
    result: object = None
    video: bytes | None = None
    detail: str = ""
    retry_after: int | None = None

    def __post_init__(self):
        if (self.video is not None) != (self.status == OK and self.verdict == SAFE):
            raise AssertionError("a video leaves with the verdict safe alone")

    def body(self, call_id):
        """Return what the client is told where there is no video, as a plain JSON dict."""
        return {
            "id": call_id,
            "verdict": self.verdict,
            "categories": list(self.result.categories) if self.result else [],
            "step": self.result.step if self.result else None,
            "reason": self.reason,
        }


def unchecked(reason, detail="", result=None, status=UNAVAILABLE, retry_after=None):
    """Return the Outcome of a video that was not checked to its end: it is never handed out."""
    return Outcome(status, reason, UNCHECKED, result, None, detail, retry_after)


def first_stopped(results):
    """Return the GuardResult that decides about a call: one that stops it, else the last."""
    return next((result for result in results if result.stopped), results[-1])


def judged(result, video):
    """Return the Outcome of a sampling that went to its end.

    Args:
        result: GuardResult.
        video: bytes of an mp4, or None.
    """
    if result.verdict == UNSAFE:
        return Outcome(BAD, result.reason, UNSAFE, result)
    if result.verdict != SAFE or video is None:
        return unchecked("the guard could not check the video", result.reason, result)
    return Outcome(OK, result.reason, SAFE, result, video)


def log_line(call, outcome, guard_id, log_prompts):
    """Return what the log says of a request.

    Args:
        call: lvd_server.call.Call.
        outcome: Outcome.
        guard_id: hash of the guard's configuration, or None.
        log_prompts: whether the prompt itself is written, and not just its hash.

    Returns:
        A plain JSON dict.
    """
    asked, result = call.request, outcome.result
    line = {
        "id": call.id,
        "time": datetime.fromtimestamp(call.received, timezone.utc).isoformat(),
        "status": outcome.status,
        "verdict": outcome.verdict,
        "categories": list(result.categories) if result else [],
        "flags": list(result.flags) if result else [],
        "step": result.step if result else None,
        "steps_run": call.steps_run,
        "steps_saved": result.steps_saved if result else 0,
        "seconds": round(call.seconds(), 4),
        "guard_seconds": round(call.guard_seconds, 4),
        "reason": outcome.reason,
        "detail": outcome.detail,
        "guard": guard_id,
        "prompt_sha256": hashlib.sha256(asked.prompt.encode()).hexdigest() if asked else None,
        "seed": asked.seed if asked else None,
    }
    if asked:
        line["settings"] = asked.model_dump(
            exclude={"prompt", "negative_prompt", "seed"}, exclude_none=True
        )
    if asked and log_prompts:
        line["prompt"] = asked.prompt
        line["negative_prompt"] = asked.negative_prompt
    return line


def headers(call, outcome):
    """Return {header: value} of an answer: verdict and timing. All values are ASCII."""
    found = {"X-LVD-Id": call.id, "X-LVD-Seconds": f"{call.seconds():.3f}"}
    if outcome.retry_after is not None:
        found["Retry-After"] = str(outcome.retry_after)
    if outcome.verdict:
        found["X-LVD-Verdict"] = outcome.verdict
        found["X-LVD-Steps-Run"] = str(call.steps_run)
        found["X-LVD-Guard-Seconds"] = f"{call.guard_seconds:.4f}"
    if outcome.result:
        found["X-LVD-Steps-Saved"] = str(outcome.result.steps_saved)
        found["X-LVD-Flags"] = json.dumps(list(outcome.result.flags))
        if outcome.result.step is not None:
            found["X-LVD-Step"] = str(outcome.result.step)
    if call.request and call.request.seed is not None:
        found["X-LVD-Seed"] = str(call.request.seed)
    return found
