"""The one exception for bad input, and words that its messages need."""

import reprlib


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line. It names the flag, file, key or row, and says what is there and what
    is needed. Commands print it and exit with status 2.
    """


class ArgumentError(InputError):
    """An argument of a Python function cannot be used, or another one would help.

    A caller in Python reads its name and value as Python has them: `eta=0: a whole number ...`. A
    command writes the same as its flag, `--eta 0: ...` (lvd.utils.cli), and who reads a file the
    same as its key, `eta 0: ...`.

    Args:
        name: of the argument, such as "lambda_".
        value: of the argument.
        after: what the message says after them.
        before: what it says before them.
        is_advice: before stands all that matters; a command that has no such flag leaves out
            the argument and what is after it.
    """

    def __init__(self, name, value, after, before="", is_advice=False):
        super().__init__(name, value, after, before, is_advice)
        self.name = name
        self.is_advice = is_advice
        self._value, self._after, self._before = value, after, before

    def __str__(self):
        return self._told(f"{self.name}={shorten(self._value)}")

    def as_key(self):
        """Return the message about a key of a file."""
        return self._told(f"{self.name.rstrip('_')} {shorten(self._value)}")

    def as_flag(self, flag):
        """Return the message about a flag of a command; None: it has none for this argument."""
        if flag is None:
            return self._before.rstrip(" ,;") if self.is_advice else str(self)
        return self._told(flag if self._value is True else f"{flag} {typed(self._value)}")

    def _told(self, words):
        return f"{self._before}{words}{self._after}"


def as_key(error):
    """Return what an InputError says, of an argument that a key of a file holds."""
    return error.as_key() if isinstance(error, ArgumentError) else str(error)


def plural(count, noun):
    """Return the count with its noun: "1 video", "2 videos"."""
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"


def shorten(value):
    """Return a value for a message, 80 characters at most and on one line.

    Of a long list that is its length, of another long value its beginning. However large the
    value is, this takes little time.
    """
    if isinstance(value, list) and len(value) > 20:
        return f"({len(value)} rows)"
    text = " ".join(_short.repr(value).split())
    if len(text) <= 80:
        return text
    return f"({len(value)} rows)" if isinstance(value, list) else text[:77] + "..."


def typed(value):
    """Return a value for a message as it was typed: a text without quotes, shortened."""
    if not isinstance(value, str) or not value.strip():
        return shorten(value)
    if len(value) <= 80 and value.isprintable():
        return value
    quoted = shorten(value)
    return quoted[1:].removesuffix(quoted[0])


def words_of(error, longest=120):
    """Return what a library's error says, for a message: one line of so many characters at most.

    Where it says nothing, that is the name of its type.
    """
    return " ".join(str(error).split())[:longest] or type(error).__name__


class _ShortRepr(reprlib.Repr):
    """A repr that looks at the beginning of a value only."""

    def __init__(self):
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 20
        self.maxstring = self.maxother = 1000

    def repr_int(self, number, level):
        if abs(number) >= 10**40:  # beyond some thousand digits Python refuses to print it
            return f"a number of about {int(number.bit_length() * 0.30103) + 1} digits"
        return repr(number)


_short = _ShortRepr()
