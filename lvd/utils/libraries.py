"""Libraries that only some work needs. Where one is missing, a line says how to get it."""

import importlib
import importlib.util

from lvd.errors import InputError

OF_DATA = "requirements-data.txt"  # labels and prompts from outside


def need_libraries(names, requirements):
    """Check that libraries are installed, before the work begins. None is imported.

    Args:
        names: of the libraries.
        requirements: the file at the root that lists them.

    Raises:
        InputError: one is missing; the first is named.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise _missing(name, requirements)


def import_library(name, requirements, where=""):
    """Import a library, or a part of one.

    Args:
        name: such as "pyarrow.parquet".
        requirements: the file at the root that lists it.
        where: what needs it; the message begins with it.

    Returns:
        The module.

    Raises:
        InputError: it is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name.partition(".")[0], requirements, where) from error


def _missing(name, requirements, where=""):
    begin = f"{where}: " if where else ""
    return InputError(f"{begin}{name} is not installed: pip install -r {requirements}")
