"""From a running sampler's x0 to the clips that the guard's detectors score."""

import torch

from lvd.data.rgb import LatentToRGB
from lvd.data.transforms import ClipSpec, prepare_clips
from lvd.errors import InputError
from lvd.utils.object_locks import lock_of


class Reader:
    """Makes the clips that the detectors score, as lvd.data.sources makes them of a recording.

    Args:
        bank: the detectors' lvd.detectors.bank.Bank.
        members: those of its members that will be asked.
        decode: latents [n, C, F, h, w] → pixels [n, 3, F, H, W] in [0, 1], for detectors of videos.

    Raises:
        InputError: detectors of several representations, or frames that cannot be made as theirs.
    """

    def __init__(self, bank, members, decode=None):
        first = members[0]
        self.bank = bank
        self.representation = _representation(members)
        self._decode, self._channels = None, None
        sampling = first.about.get("sampling") or {}
        self._recorded_dtype = getattr(torch, sampling.get("x0_dtype", "float16"))
        if self.representation == "latent":
            config = bank.input_config(0)
            self._channels = config.num_channels if config else None
        elif self.representation == "rgb":
            self._decode = _recorded_rgb(first)
            self._channels = len(self._decode.matrix)
        elif decode is None:
            raise InputError(
                f"{first.path}: reads decoded videos; decode=, from latents to pixels, is needed"
            )
        else:
            self._decode = decode

    def need_channels(self, channels):
        """InputError for latents of other channels than the detectors know."""
        if self._channels not in (None, channels):
            raise InputError(
                f"the detectors take latents of {self._channels} channels, these have {channels}"
            )

    def need_kind(self, member):
        """InputError for a detector of other clips than those that are made here."""
        if member.representation != self.representation:
            raise InputError(
                f"{member.path}: reads {member.representation} clips, the detectors of the first "
                f"steps read {self.representation}; one kind is needed"
            )

    def __call__(self, step, x0):
        """Make the clips of one step, float16 [n, C', F', H', W'], of its x0 [n, C, F, h, w].

        x0 is rounded to the type of the detectors' recording first; see `prepare_clips`.
        """
        spec = ClipSpec(self.representation, self._decode, self.bank.input_config(step))
        with lock_of(self):  # a decoder may change itself while it decodes
            return prepare_clips(x0.to(self._recorded_dtype), spec)


def _representation(members):
    kinds = sorted({member.representation for member in members})
    if len(kinds) > 1:
        raise InputError(
            f"{members[0].path}: detectors of {' and '.join(kinds)} clips are mixed; one kind "
            "is needed"
        )
    return kinds[0]


def _recorded_rgb(member):
    """The LatentToRGB that made the frames a detector was trained on."""
    numbers = member.about.get("dataset", {}).get("rgb_matrix")
    if not numbers:
        raise InputError(f"{member.path}: does not say which rgb_matrix its frames were made with")
    return LatentToRGB.of_numbers(numbers)
