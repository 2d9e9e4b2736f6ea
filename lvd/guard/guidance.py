"""The guidance scale of a call, against that of the recordings that the detectors learned from.

Another number of steps or another scheduler carries over, as was measured. Another guidance scale
does not: detectors that were trained at scale 4 fell from an accuracy of 0.96 to 0.64 at scale 8.
"""

import inspect
import math
import warnings

from lvd.errors import ArgumentError, InputError

WARN, SAME = "warn", "same"
CHOICES = (WARN, SAME)
SCALE = "guidance_scale"


def check_choice(guidance):
    """Return what a guard does about another guidance scale; InputError for anything else."""
    if not isinstance(guidance, str) or guidance not in CHOICES:
        raise ArgumentError("guidance", guidance, f": one of {', '.join(CHOICES)} is needed")
    return guidance


class TrainedGuidance:
    """What detectors know of guidance, and what is done about another one.

    Args:
        members: the detectors (lvd.detectors.member.Member). Those of earlier versions do not say
            at what guidance scale they learned.
        choice: "warn": once for each guard; "same": refuse.

    Attributes:
        scales: [guidance scale], those that are known; [] checks nothing.
    """

    def __init__(self, members, choice):
        self.choice = choice
        told = [(member.about.get("sampling") or {}).get(SCALE) for member in members]
        self.scales = sorted({float(scale) for scale in told if is_scale(scale)})
        self._path = members[0].path if members else None
        self._has_warned = False

    def check(self, scale):
        """Compare the guidance scale of a call.

        Args:
            scale: a number, or a list of those that the call has; anything else is not known, then
                nothing is compared.

        Returns:
            None where it is a trained one or one of the two is not known, else
            {"trained": [scales], "call": scale}.

        Raises:
            InputError: it is another one, and the choice is "same".
        """
        others = [one for one in _numbers(scale) if not self._is_trained(one)]
        if not others or not self.scales:
            return None
        scale = others[0]
        trained = ", ".join(f"{known:g}" for known in self.scales)
        found = f"{self._path}: trained at guidance_scale {trained}, this sampling has {scale:g}"
        if self.choice == SAME:
            raise InputError(f"{found}; sample as the detectors know it, or train them at this one")
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{found}: the detectors were never tested there, and may miss much; train them "
                "at the guidance scale that you serve (guidance='same' refuses others)",
                UserWarning,
                stacklevel=2,
            )
        return {"trained": self.scales, "call": scale}

    def _is_trained(self, scale):
        """Whether it is a trained scale, but for the rounding of float16."""
        return any(math.isclose(scale, known, rel_tol=1e-3) for known in self.scales)


def is_scale(value):
    """Whether a value is a guidance scale: a finite number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _numbers(value):
    """The guidance scales that a value has: a number, or those of a list, an array or a tensor."""
    if hasattr(value, "tolist"):  # of numpy and torch
        value = value.tolist()
    values = value if isinstance(value, (list, tuple)) else [value]
    return [float(one) for one in values if is_scale(one)]


def scale_of_call(pipe, method, args, kwargs):
    """Return the guidance scale of a pipeline's call, as far as it can be known.

    Args:
        pipe: the pipeline.
        method: its `__call__`, bound.
        args, kwargs: of the call.

    Returns:
        The argument guidance_scale, else its default, as a number or a list of them. Where the call
        has none, that of the pipeline's guider, else the pipeline's attribute of this name; it may
        be left from an earlier call, so it never takes the place of an argument. None where nothing
        is known.
    """
    found = None
    try:
        bound = inspect.signature(method).bind(*args, **kwargs)
        bound.apply_defaults()
        found = bound.arguments.get(SCALE, bound.arguments.get("kwargs", {}).get(SCALE))
    except (TypeError, ValueError):  # the call itself will say what is wrong with its arguments
        pass
    if found is None:
        try:
            found = getattr(getattr(pipe, "guider", None), SCALE, None)
            found = getattr(pipe, SCALE, None) if found is None else found
        except Exception:  # a property of a pipeline that has not been called yet
            return None
    numbers = _numbers(found)
    return numbers[0] if len(numbers) == 1 else numbers or None
