"""A sample of fixed size out of a stream of captions, in memory that does not grow with the stream.

Every video (or caption, where there are no videos) has a number: a hash of the seed and of its
name. The `count` smallest numbers are the sample, which is uniform: a hash knows nothing of its
video. The other well-known way, a reservoir (Algorithm R), draws by the place in the stream. Here
the place means nothing, so the pieces that the stream comes in don't either; whether a video was
refused earlier is known from its number; and the sample of 2,000 begins the sample of 3,000, so
that a recording of the first can be extended by the rest.

Source: bottom-k sketches, E. Cohen and H. Kaplan, "Summarizing data using bottom-k sketches",
PODC 2007.
"""

import hashlib
import heapq
import unicodedata
from dataclasses import dataclass

PRUNE = 1000  # names that are remembered before numbers too large to matter are forgotten


@dataclass(frozen=True)
class Caption:
    """A caption and where it comes from.

    Attributes:
        text: one clean line.
        row: of the dataset, from 0.
        id: the video's name in the dataset; "" where it has none.
        facts: {name: value} of its other columns that are kept.
    """

    text: str
    row: int
    id: str = ""
    facts: tuple = ()


class Draw:
    """The sample as it grows.

    A video stands for the first of its captions. Of videos with the same caption the one with the
    smallest number stands for all.

    Args:
        count: size of the sample.
        seed: another seed gives another sample.
        once: at most one caption a video.

    Attributes:
        repeats: {"video": ..., "caption": ...} how many captions were left out as repeats. Those
            whose number was too large already are not looked at, so more may be repeats.
    """

    def __init__(self, count, seed, once=True):
        self.repeats = {"video": 0, "caption": 0}
        self._count = count
        self._seed = str(seed).encode()
        self._once = once
        self._kept = {}  # folded caption → (number, Caption)
        self._largest = []  # heap of (-number, folded caption); also of captions replaced since
        self._seen = {}  # video → number, of those whose number may matter
        self._prune_at = 2 * count + PRUNE

    def __len__(self):
        return len(self._kept)

    def offer(self, caption):
        """Take a caption into the sample if its number is small enough."""
        key = folded(caption.text)
        name = caption.id if self._once and caption.id else None
        number = self._number(f"video {name}" if name is not None else f"caption {key}")
        if number >= self._bound():
            return
        if name is not None:
            if name in self._seen:
                self.repeats["video"] += 1
                return
            self._seen[name] = number
        there = self._kept.get(key)
        if there:
            self.repeats["caption"] += 1
            if number >= there[0]:
                return
        self._kept[key] = number, caption
        heapq.heappush(self._largest, (-number, key))
        if len(self._kept) > self._count:
            self._drop_largest()
        if len(self._seen) > self._prune_at:
            self._forget()

    def captions(self):
        """Return the sample by its numbers: every beginning of it is a sample, too."""
        return [caption for _, caption in sorted(self._kept.values(), key=lambda pair: pair[0])]

    def _number(self, name):
        text = name.encode(errors="surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=16, key=self._seed[:64]).digest())

    def _bound(self):
        """The number from which on a caption cannot come into the sample."""
        if len(self._kept) < self._count:
            return 1 << 128
        self._clean()
        return -self._largest[0][0]

    def _clean(self):
        """Take what was replaced from the top of the heap."""
        while True:
            number, key = self._largest[0]
            if key in self._kept and self._kept[key][0] == -number:
                return
            heapq.heappop(self._largest)

    def _drop_largest(self):
        self._clean()
        _, key = heapq.heappop(self._largest)
        del self._kept[key]

    def _forget(self):
        bound = self._bound()
        self._seen = {name: number for name, number in self._seen.items() if number < bound}
        self._prune_at = 2 * len(self._seen) + PRUNE


def folded(text):
    """Return a caption as it is compared with others: without case and runs of spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
