"""Blanks the stopped videos in what a pipeline returns, whatever form that has."""

from dataclasses import is_dataclass
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from lvd.errors import InputError, plural

SCALARS = (type(None), bool, int, float)  # hold no picture
NAME = 1000  # characters; a longer text may be a video, as base64


def blank_videos(output, stopped, videos):
    """Blank stopped videos: black frames, zero latents, silence. The others keep their bits.

    Args:
        output: what a pipeline returned: an output object of diffusers, another dataclass, a dict,
            or a tuple, of parts; or one part alone. A part is an array or tensor [B, ...], a list
            of B videos such as lists of frames, or a list of sections, each [B, C, F, H, W].
        stopped: numbers of the videos to blank.
        videos: B.

    Returns:
        The output with other parts; an object stays the same object.

    Raises:
        InputError: its videos cannot be told apart, so nothing of it may be handed out.
    """
    try:
        return _blanked(output, _Blank(set(stopped), videos))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(
            f"the guard stopped {plural(len(stopped), 'video')}, and cannot blank the "
            f"{type(output).__name__} that the pipeline returned ({str(error)[:80]}), so nothing "
            "is handed out"
        ) from error


def _blanked(output, blank):
    if isinstance(output, tuple):
        parts = [blank.part(part) for part in output]
        return output._make(parts) if hasattr(output, "_make") else tuple(parts)
    if isinstance(output, SimpleNamespace) or (
        is_dataclass(output) and hasattr(output, "__dict__")
    ):
        names = {**vars(output), **(output if isinstance(output, dict) else {})}
        parts = {name: blank.part(part) for name, part in names.items()}
        for name, part in parts.items():
            setattr(output, name, part)
        return output
    if isinstance(output, dict):
        return {name: blank.part(part) for name, part in output.items()}
    return blank.part(output)


class _Blank:
    """Which videos to blank: `stopped`, a set of numbers, of `videos`."""

    def __init__(self, stopped, videos):
        self.stopped = stopped
        self.videos = videos

    def part(self, part):
        """One part of an output, whose first axis is the video."""
        if isinstance(part, SCALARS) or _is_name(part):
            return part
        if len(self.stopped) == self.videos:  # no video has to be told from another
            return _black(part)
        if isinstance(part, (torch.Tensor, np.ndarray)) and part.ndim:
            return self._rows(part)
        if isinstance(part, (list, tuple)):
            return self._list(part)
        raise self._cannot_tell(type(part).__name__)

    def _rows(self, part):
        if len(part) != self.videos:
            raise self._cannot_tell(f"a {type(part).__name__} of shape {list(part.shape)}")
        part = part.clone() if isinstance(part, torch.Tensor) else part.copy()
        part[sorted(self.stopped)] = 0
        return part

    def _list(self, part):
        if part and all(_is_batch(value) for value in part):  # sections, each of all videos
            return [self._rows(section) for section in part]
        if len(part) != self.videos:
            if all(isinstance(value, int) or _is_name(value) for value in part):
                return part
            raise self._cannot_tell(f"a {type(part).__name__} of {len(part)} parts")
        return [_black(video) if k in self.stopped else video for k, video in enumerate(part)]

    def _cannot_tell(self, found):
        return InputError(
            f"the pipeline returned {found} where {plural(self.videos, 'video')} cannot be told "
            f"apart, and the guard stopped {len(self.stopped)} of them, so nothing is handed out; "
            "call it for one video at a time"
        )


def _is_batch(value):
    """Whether an array or tensor holds several videos, [B, C, F, H, W]."""
    return isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim >= 5 and len(value) != 1


def _is_name(value):
    """Whether a value is a text that says something about the videos and cannot hold one."""
    return isinstance(value, str) and len(value) <= NAME


def _black(value):
    """The same kind and size of thing, with nothing to see or hear."""
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value, requires_grad=False)
    if isinstance(value, np.ndarray):
        return np.zeros_like(value)
    if isinstance(value, Image.Image):
        return Image.new(value.mode, value.size)
    if isinstance(value, (list, tuple)):
        return [_black(part) for part in value]
    if isinstance(value, dict):
        return {name: _black(part) for name, part in value.items()}
    if isinstance(value, (bool, int, float, str)):
        return type(value)()
    if value is None:
        return None
    raise TypeError(f"a {type(value).__name__}")
