"""Regular expressions out of files.

A short one can keep Python's matcher busy for ever, and the matcher knows no time limit. So they
are matched in a process of their own, which has some seconds.
"""

import json
import re
import subprocess
import sys

from lvd.errors import InputError, shorten

LONGEST = 2_000  # characters of a pattern
SECONDS = 10  # for all patterns; honest ones take milliseconds
MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin)
matches = [[name for name in names if re.fullmatch(pattern, name)] for pattern in patterns]
json.dump(matches, sys.stdout)
"""


def matched(patterns, names, source):
    """Match names as a whole.

    Args:
        patterns: regular expressions.
        names: what they are matched with.
        source: names the patterns' place in errors.

    Returns:
        [set of the names that a pattern matches], one for each pattern.
    """
    if not patterns:
        return []
    for pattern in patterns:
        _check(pattern, source)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", MATCH],
            input=json.dumps([patterns, sorted(names)]),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{source}={_shown(patterns)}: matching takes more than {SECONDS} s, plain name "
            "patterns are needed"
        ) from error
    if done.returncode:
        reason = " ".join(done.stderr.split())[-100:]
        raise InputError(f"{source}={_shown(patterns)}: cannot be matched ({reason})")
    return [set(matches) for matches in json.loads(done.stdout)]


def _check(pattern, source):
    if len(pattern) > LONGEST:
        raise InputError(
            f"{source}: a pattern of {len(pattern)} characters, {LONGEST} at most are read"
        )
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(
            f"{source}={_shown([pattern])}: not a regular expression ({error})"
        ) from error


def _shown(patterns):
    return shorten(patterns[0] if len(patterns) == 1 else patterns)
