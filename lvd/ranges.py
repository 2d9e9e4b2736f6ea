"""Numbers named on the command line: 3, 0,5,10, 1-5, all."""

import re

from lvd.errors import InputError


def parse_numbers(text, available, flag):
    """The sorted numbers that `text` names out of `available` (groups or steps that exist).

    `text`: a number, a list "0,5,10", a range "1-5" (both ends belong to it), a mixture, or "all". InputError
    naming `flag` for anything else and for a number that does not exist.
    """
    available = sorted(available)
    exist = f"{available[0]} to {available[-1]}" if available else "none"
    if str(text).strip() == "all":
        return available
    numbers = set()
    for part in str(text).split(","):
        found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        if not found:
            raise InputError(f"{flag} {text}: '{part.strip()}' is not a number, a range such as 0-9, or all")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise InputError(f"{flag} {text}: the range {part.strip()} runs backwards")
        for number in (first, last):
            if number not in available:
                raise InputError(f"{flag} {text}: {number} does not exist (there are {exist})")
        numbers |= set(range(first, last + 1)) & set(available)
    return sorted(numbers)
