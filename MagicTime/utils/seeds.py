"""One seed per prompt, from the YAML or drawn for a folder and kept there."""

from pathlib import Path

import torch

from lvd.errors import InputError, shorten
from lvd.utils.files import load_json, save_json
from MagicTime.utils.prompts import one_or_each

DRAW = -1  # in place of a seed that is to be drawn


def seeds_of(settings, count, where):
    """Read the seeds of `count` prompts.

    Args:
        settings: SamplingSettings. One seed serves all prompts; with seed_per_prompt, prompt i has
            that seed plus i.
        count: how many prompts there are.
        where: what a message calls the place of the seeds.

    Returns:
        [seed] of length `count`; DRAW stands for a seed that is to be drawn.
    """
    seeds = settings.seed if isinstance(settings.seed, list) else [settings.seed]
    for seed in seeds:
        if type(seed) is not int or not DRAW <= seed < 2**63:
            raise InputError(
                f"{where}: seed {shorten(seed)}, whole numbers from 0 are needed, or -1 for "
                "a fresh one"
            )
    if settings.seed_per_prompt:
        if len(seeds) != 1 or seeds[0] < 0:
            raise InputError(
                f"{where}: seed_per_prompt needs one seed of at least 0, found {shorten(seeds)}"
            )
        return [seeds[0] + row for row in range(count)]
    return one_or_each(seeds, count, "seed", where)


class DrawnSeeds:
    """seeds.json of an output folder: a resumed run and other processes have the same seeds."""

    def __init__(self, folder):
        self.path = Path(folder) / "seeds.json"

    def draw(self, seeds, before=None):
        """Draw what `seeds` leaves open, once for the folder.

        Args:
            seeds: [seed] of all prompts.
            before: how many prompts the folder was made with; the seeds of these stay, those of
                the others are drawn now. None: it is a new folder.
        """
        if DRAW not in seeds:
            return
        kept = []
        if self.path.exists():
            kept = self._drawn(len(seeds) if before is None else before)
        if len(kept) < len(seeds):
            added = seeds[len(kept) :]
            fresh = [torch.Generator().seed() % 2**32 if s == DRAW else s for s in added]
            save_json([*kept, *fresh], self.path)

    def fill(self, seeds):
        """Return `seeds`, or the folder's where some of them were drawn."""
        return self._drawn(len(seeds))[: len(seeds)] if DRAW in seeds else seeds

    def _drawn(self, count):
        """The seeds of the folder, which must be `count` or more: more prompts may follow, or
        their coming was broken off."""
        drawn = load_json(self.path)
        if (
            not isinstance(drawn, list)
            or len(drawn) < count
            or not all(type(seed) is int for seed in drawn)
        ):
            raise InputError(
                f"{self.path}: {count} whole numbers are needed, the seeds that were drawn "
                "for this folder's videos; use another folder"
            )
        return drawn
