"""Regular expressions out of files. A short one can keep Python's matcher busy for ever, which
knows no time limit, so they are matched in a process of their own that has seconds."""

import json
import re
import subprocess
import sys

from lvd.errors import InputError

LONGEST = 2_000  # characters of a pattern
SECONDS = 10  # for all patterns; honest ones take milliseconds
MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin)
json.dump([[name for name in names if re.fullmatch(pattern, name)] for pattern in patterns], sys.stdout)
"""


def matched(patterns, names, source):
    """For each of `patterns`, the set of those `names` that it matches as a whole; `source` names
    its place in errors."""
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
    return [set(found) for found in json.loads(done.stdout)]


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
    text = repr(patterns[0] if len(patterns) == 1 else patterns)
    return text if len(text) <= 120 else f"{text[:117]}..."
