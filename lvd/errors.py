"""The one exception for bad input."""


class InputError(ValueError):
    """What the user gave cannot be used. Its message is one line that names the flag, file, key or
    row, says what was found and what is needed; commands print it and exit with status 2."""


def plural(count, noun):
    """ "1 video", "2 videos"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
