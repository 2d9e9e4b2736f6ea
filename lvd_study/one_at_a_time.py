"""One study at a time in a folder."""

from contextlib import contextmanager

from lvd.errors import InputError
from lvd.utils.locks import try_lock, warn_unlocked

LOCK = "lock"


@contextmanager
def one_at_a_time(folder):
    """Let one reproduce_tables.py at a time work in a folder: two would write the same files.

    Args:
        folder: of the study.

    Raises:
        InputError: another one works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as file:
        locked = try_lock(file)
        if locked is False:
            raise InputError(
                f"{folder}: another reproduce_tables.py works here; wait for it or stop it"
            )
        if locked is None:
            warn_unlocked(folder / LOCK)
        yield
