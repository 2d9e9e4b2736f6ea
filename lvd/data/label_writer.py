"""Writing label files, which lvd.data.labels reads."""

import csv
from itertools import zip_longest

from lvd.utils.partials import atomic


def write_labels(columns, path):
    """Write a label file, atomically.

    Args:
        columns: {category: rows}.
        path: of the file.
    """
    with atomic(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(zip_longest(*columns.values(), fillvalue=""))
