"""Progress of long work: a bar on a terminal, a plain line now and then in a log file."""

import sys
import time

from tqdm import tqdm

PAUSE = 30  # seconds after which a log gets a new line in any case
SHORT_PAUSE = 1  # seconds between two lines at least, however fast the work goes
PART = 0.1  # of the whole work: done, it is worth a line


def progress(iterable, name, unit="it", total=None, initial=0, disable=False):
    """Show how far a loop has come.

    Args:
        iterable: what the loop runs over; None when the caller counts with `update`.
        name: what is being made, such as "detectors".
        unit: what one item is called on a bar; "B" counts bytes.
        total: number of items at the end; by default the length of `iterable`, if it has one.
        initial: number of items that an earlier run has finished.
        disable: show nothing.

    Returns:
        An iterable over the same items, and a context manager, with `update`, `set_postfix_str`,
        `write` and `close` of tqdm: a tqdm bar where stderr is a terminal, else a `LogProgress`.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    disable = disable or sys.stderr is None  # closed by the caller: `2>&-`
    if not disable and not sys.stderr.isatty():
        return LogProgress(iterable, name, unit, total, initial)
    return tqdm(
        iterable,
        name,
        total,
        unit=unit,
        unit_scale=unit == "B",
        initial=initial,
        disable=disable,
        smoothing=0,  # the mean rate: items differ, and the time left should not jump
    )


class LogProgress:
    """The part of tqdm that our scripts use, as lines such as
    `detectors: 120 of 250, 0:41, 0.34 s each, about 0:44 left, group 2, step 7` on stderr. The
    rate is the mean one, of this run.
    """

    def __init__(self, iterable, name, unit, total, initial):
        self.n = initial
        self._iterable = iterable
        self._name = name
        self._unit = unit
        self._total = total
        self._initial = initial
        self._note = ""
        self._began = time.monotonic()
        self._print_line()

    def __iter__(self):
        for item in self._iterable:
            yield item
            self.update()
        self.close()

    def update(self, count=1):
        """Count `count` more items as done."""
        self.n += count
        pause = time.monotonic() - self._printed_at
        done = self.n - self._printed_n
        part_is_done = self._total and done >= PART * self._total
        if pause >= PAUSE or (part_is_done and pause >= SHORT_PAUSE):
            self._print_line()

    def set_postfix_str(self, note, refresh=False):
        """Set what the next lines say besides the numbers."""
        self._note = note

    def write(self, text):
        """Print a line on stdout."""
        print(text, flush=True)

    def close(self):
        """Print the last line, unless it is there already."""
        if self.n != self._printed_n:
            self._print_line()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.close()

    def _print_line(self):
        now = time.monotonic()
        self._printed_at = now
        self._printed_n = self.n
        parts = [f"{self._name}: {self._numbers()}"]
        done = self.n - self._initial
        if done:
            parts += self._times(now - self._began, done)
        if self._note:
            parts.append(self._note)
        print(", ".join(parts), file=sys.stderr, flush=True)

    def _times(self, seconds, done):
        """Return the texts of the time taken, the mean rate and the time left."""
        parts = [_clock(seconds)]
        each = seconds / done
        if self._unit == "B":
            parts += [f"{tqdm.format_sizeof(done / seconds)}B a second"] if seconds else []
        else:
            parts.append(f"{_each(each)} each")
        if self._total and self.n < self._total:
            parts.append(f"about {_clock(each * (self._total - self.n))} left")
        return parts

    def _numbers(self):
        done = self._amount(self.n)
        return done if self._total is None else f"{done} of {self._amount(self._total)}"

    def _amount(self, count):
        return f"{tqdm.format_sizeof(count)}B" if self._unit == "B" else str(count)


def _each(seconds):
    """Return the seconds of one item in two digits, "1.2 s", or as `_clock` from 100 s on."""
    return _clock(seconds) if seconds >= 99.5 else f"{float(f'{seconds:.1e}'):g} s"


def _clock(seconds):
    """Return minutes and seconds, "0:41", or hours too, "2:03:20"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
