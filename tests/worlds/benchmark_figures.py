"""Reading back the figures that a benchmark wrote."""

import csv


def read_figures(path):
    """{part: {case: {quantity: number, or None where there is none}}} of a benchmark's CSV, without
    the machine."""
    parts = {}
    with open(path, newline="") as f:
        for row in csv.DictReader(f):
            if row["part"] != "machine":
                cases = parts.setdefault(row["part"], {})
                number = float(row["value"]) if row["value"] else None
                cases.setdefault(row["case"], {})[row["quantity"]] = number
    return parts


def read_machine(path):
    """{fact: text}: what a benchmark's CSV says its figures were taken on."""
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f))
    return {row["quantity"]: row["value"] for row in rows if row["part"] == "machine"}
