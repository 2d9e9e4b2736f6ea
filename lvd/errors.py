"""The one exception for bad input, and a word that its messages need."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line. It names the flag, file, key or row, and says what is there and what
    is needed. Commands print it and exit with status 2.
    """


def plural(count, noun):
    """Return the count with its noun: "1 video", "2 videos"."""
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"
