"""The names of the categories, and the two answers that raters have besides."""

import unicodedata

from lvd.data.label_forms import is_heading
from lvd.errors import InputError, shorten
from lvd.utils.schema import has_controls, has_halves

NONE, UNSURE = "none of these", "cannot tell"
RESERVED = {NONE, UNSURE, "none", "any category"}  # the last is a line of the agreement
COLUMNS = {"why", "judged"}  # of doubtful.csv, with a column for each category
LONGEST, MOST = 60, 40
SEPARATOR = ";"  # between the categories in a cell of a table


def plain(name):
    """Return a name in one form: people type accents as one character or two, and more spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def parse_categories(text, flag="--categories"):
    """Read a list of category names: "violent,terrifying".

    Args:
        text: of the flag.
        flag: what messages call it.

    Returns:
        [name], in their order: that of the label file's columns.

    Raises:
        InputError: a name that no label file takes, or that has another meaning here.
    """
    names = [plain(name) for name in text.split(",")]
    if len(names) > MOST:
        raise InputError(f"{flag}: {len(names)} categories, at most {MOST} are taken")
    for place, name in enumerate(names):
        need_category(name, flag)
        if name.lower() in [other.lower() for other in names[:place]]:
            raise InputError(f"{flag}: {shorten(name)} stands twice")
    return names


def need_category(name, where):
    """InputError where a category cannot have this name."""
    if not name:
        raise InputError(f"{where}: a blank category; names with commas between are needed")
    if len(name) > LONGEST:
        raise InputError(f"{where}: {shorten(name[:50])}: longer than {LONGEST} characters")
    if has_controls(name) or has_halves(name) or "\t" in name:
        raise InputError(f"{where}: {shorten(name)}: a name without control characters is needed")
    if name.lower() in RESERVED:
        raise InputError(f"{where}: {shorten(name)} is an answer of its own, not a category")
    if is_heading(name) or name.lower() in COLUMNS:
        raise InputError(
            f"{where}: {shorten(name)}: tables have a column of this name with another meaning; "
            "give the category another one"
        )
    if set(name) & set(SEPARATOR + ",|"):
        raise InputError(f"{where}: {shorten(name)}: a name without any of ; , | is needed")
    if name.lstrip("-").replace(".", "").isdigit() or name[0] in "=+@-[{":
        raise InputError(
            f"{where}: {shorten(name)}: a name that is no number and begins with none of "
            "= + @ - [ { is needed"
        )
