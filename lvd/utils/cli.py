"""What every command shares: one-line errors, exit statuses, lists of numbers, the closing summary."""

import argparse
import re
import sys

from lvd.errors import InputError


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose errors are one line (InputError) and whose help keeps the example's
    layout."""

    def __init__(self, description, example):
        super().__init__(
            description=description,
            epilog=f"example:\n  {example}",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_overrides(self):
        """Take `key=value` words after the flags: settings that win over YAML and flags."""
        self.add_argument(
            "overrides", nargs="*", metavar="key=value", help="settings of the config, these win"
        )

    def error(self, message):
        raise InputError(f"{message} (see {self.prog} --help)")


def run_command(parser, work, argv=None):
    """Parse argv, call work(args) and return an exit status: 0, 2 for bad input, files that cannot
    be written or too little memory, 130 when interrupted."""
    try:
        work(parser.parse_args(argv))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (
        OSError
    ) as error:  # a full disk, a folder that may not be written, a file where a folder should be
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        print(
            f"error: out of memory ({' '.join(str(error).split())[:160]}); a smaller batch, "
            "fewer workers or another device is needed",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _out_of_memory(error):
    """Torch raises OutOfMemoryError on a GPU, a bare RuntimeError of its allocator on the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(error)
    )


def summary(title, facts, paths):
    """Print what was done: `facts` as {name: value}, then the paths that were written."""
    print(f"\n{title}")
    for name, value in facts.items():
        print(f"  {name}: {value}")
    for path in paths:
        print(f"  wrote {path}")


def parse_numbers(text, available, flag):
    """The sorted numbers that `text` names out of `available` (groups or steps that exist).

    `text`: a number, a list "0,5,10", a range "1-5" (both ends belong to it), a mixture, or "all".
    InputError naming `flag` for anything else and for a number that does not exist.
    """
    available = sorted(available)
    exist = f"{available[0]} to {available[-1]}" if available else "none"
    if str(text).strip() == "all":
        return available
    numbers = set()
    for part in str(text).split(","):
        found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        if not found:
            raise InputError(
                f"{flag} {text}: '{part.strip()}' is not a number, a range such as 0-9, or all"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise InputError(f"{flag} {text}: the range {part.strip()} runs backwards")
        for number in (first, last):
            if number not in available:
                raise InputError(f"{flag} {text}: {number} does not exist (there are {exist})")
        numbers |= set(range(first, last + 1)) & set(available)
    return sorted(numbers)
