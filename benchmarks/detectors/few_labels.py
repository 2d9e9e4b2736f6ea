"""A label file of few videos, as if no more had been labelled."""

import csv
from itertools import zip_longest
from pathlib import Path

import numpy as np

from benchmarks.common.needs import read_recordings
from lvd.data.labels import read_recorded_labels
from lvd.data.split import load_split
from lvd.utils.files import save_yaml
from lvd.utils.partials import atomic


def write_few_labels(args, count, seed):
    """Write the recordings' YAML with a label file of fewer videos, below `args.work`.

    Args:
        args: of benchmarks/detectors/pretraining.py.
        count: labelled videos per category beside the held-out ones, or "all".
        seed: chooses them.

    Returns:
        path of the YAML.
    """
    settings = read_recordings(args.recordings)
    labels = read_recorded_labels(settings["label_file_dir"], settings["pred_x0"])
    held_out = set(load_split(args.eval_dir).unsafe)
    columns = []
    for group, column in enumerate(labels.columns):
        free = sorted(set(column) - held_out)
        drawn = np.random.default_rng([seed, group]).permutation(free).tolist()
        kept = drawn if count == "all" else drawn[:count]
        columns.append(sorted(set(column) & held_out) + sorted(kept))
    folder = args.work / "labels" / f"{count}-{seed}"
    label_file = folder / "label.csv"
    with atomic(label_file) as partial, open(partial, "w", newline="") as f:
        lines = csv.writer(f)
        lines.writerow(labels.categories)
        lines.writerows(zip_longest(*columns, fillvalue=""))
    few = {}
    for key, value in settings.items():
        if isinstance(value, Path):
            few[key] = str(value.resolve())
    few["representation"] = settings["representation"]
    few["label_file_dir"] = str(label_file.resolve())
    save_yaml(few, folder / "build_x0.yaml")
    return folder / "build_x0.yaml"
