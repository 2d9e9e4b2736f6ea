"""What the sidecar of a recording says of each row: facts such as its prompt and its seed."""

import json

from lvd.errors import InputError, shorten
from lvd.utils.config import first_difference

ADDED = ("timesteps", "levels", "sampling")  # what the recorder itself adds to a row's facts


def list_facts(videos, path):
    """Return [facts of each row] of a list, or None if `videos` is their number alone.

    Args:
        videos: [dict, plain JSON], or how many.
        path: of the recording, for messages.

    Raises:
        InputError: it is neither.
    """
    if isinstance(videos, list) and videos:
        return [plain_facts(facts, f"{path}: videos[{row}]") for row, facts in enumerate(videos)]
    if isinstance(videos, bool) or not isinstance(videos, int) or videos < 1:
        raise InputError(
            f"{path}: videos={shorten(videos)}: a list of what each is made of, such as "
            "[{'prompt': 'a wave', 'seed': 3}], or their number is needed"
        )
    return None


def plain_facts(facts, where):
    """Return facts as they come back from the sidecar.

    Raises:
        InputError: they are no dict of plain JSON, or hold what the recorder adds itself.
    """
    if not isinstance(facts, dict) or any(key in facts for key in ADDED):
        raise InputError(f"{where}: found {shorten(facts)}; a dict of prompt, seed, ... is needed")
    try:
        return json.loads(json.dumps(facts, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: {shorten(facts)} is not plain JSON") from error


def without_added(info):
    """Return what the sidecar says of a row, without what the recorder added."""
    return {key: value for key, value in info.items() if key not in ADDED}


def need_same_facts(path, row, there, now, how):
    """Check that a row is made of what it was, or will be, made of.

    Args:
        path: of the recording.
        row: its number.
        there: facts that are known of it.
        now: facts that are given.
        how: in a word, how the known ones are known.

    Raises:
        InputError: they differ; the first key and both values are named.
    """
    difference = first_difference(there, now)
    if difference:
        key, before, after = difference
        raise InputError(
            f"{path}: row {row} is {how} with {key}={shorten(before)}, now it is {shorten(after)}; "
            "give every row its own prompt and seed again, or use another folder"
        )
