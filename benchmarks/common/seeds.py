"""Mean and standard deviation over seeds."""

import numpy as np
import pandas as pd

from lvd.errors import InputError


def parse_seeds(text):
    """[int] of "1,2,3"."""
    words = text.split(",")
    for word in words:
        if not word.strip().isdecimal():
            raise InputError(f"--seeds {text}: whole numbers with commas between are needed")
    return [int(word) for word in words]


def deviation(values):
    """Standard deviation over seeds (n - 1); 0 of a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def mean_and_sd(name, values):
    """{name: mean over seeds, "{name} sd": standard deviation}."""
    return {name: float(np.mean(values)), f"{name} sd": deviation(values)}


def by_step(tables):
    """Mean and standard deviation of per-step tables over seeds.

    Args:
        tables: a DataFrame for each seed, with a column "step" and one for each quantity.

    Returns:
        [{"step", quantity: mean, "{quantity} sd": standard deviation}] in the order of the steps.
    """
    together = pd.concat(tables)
    rows = []
    for step, same in together.groupby("step"):
        row = {"step": int(step)}
        for name in tables[0].columns.drop("step"):
            row |= mean_and_sd(name, same[name].to_numpy(float))
        rows.append(row)
    return rows
