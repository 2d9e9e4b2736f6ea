"""Long tables (pandas) of videos, steps and scores, and the nested mappings that files keep."""

import pandas as pd

from lvd.utils.partials import atomic


def long_table(nested, columns):
    """Return a nested mapping as a long table with one line for each value.

    Args:
        nested: mappings in mappings, innermost a list with a value for each step, such as
            {label: {row: [vote] * S}}.
        columns: names for the levels of the mapping, then for the step, then for the value, such
            as ["label", "row", "step", "vote"].
    """
    return pd.DataFrame(list(_lines(nested)), columns=columns)


def _lines(nested, keys=()):
    if isinstance(nested, list):
        for step, value in enumerate(nested):
            yield *keys, step, value
    else:
        for key, part in nested.items():
            yield from _lines(part, (*keys, key))


def nested_lists(table, keys, column):
    """Return a long table as a nested mapping: the inverse of `long_table`.

    Args:
        table: lines in the order of their steps.
        keys: the columns that become levels of the mapping, the outermost first.
        column: the column whose values become the innermost lists.
    """
    if not keys:
        return table[column].tolist()
    first, *others = keys
    parts = table.groupby(first, sort=False)
    return {key: nested_lists(part, others, column) for key, part in parts}


def save_table(table, path):
    """Write a table as CSV: floats to six decimals, a blank where there is no value."""
    with atomic(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\r\n", float_format=_six_decimals)


def _six_decimals(value):
    return str(round(float(value), 6))
