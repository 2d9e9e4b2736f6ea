"""Small x0 files with a known row for each number."""

import torch

from lvd.x0.file import create_x0_file

SHAPE = (4, 2, 8, 8)  # C, F, h, w
STEPS = 3
ROWS = 5
META = {"config": {"seed": [1, 2], "steps": STEPS}, "versions": {"torch": "x"}}


def x0_of(row, shape=(STEPS, *SHAPE)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(row))


def info_of(row):
    return {"prompt": f"prömpt {row}", "seed": row, "timesteps": [9, 5, 1]}


def create(path, rows=ROWS, dtype=torch.float32, meta=None, **kwargs):
    return create_x0_file(path, rows, STEPS, SHAPE, dtype, META if meta is None else meta, **kwargs)


def filled(path, rows=range(ROWS), count=ROWS, **kwargs):
    """An x0 file of `count` rows, of which `rows` are written."""
    with create(path, rows=count, **kwargs) as writer:
        for row in rows:
            writer.write_row(row, x0_of(row), info_of(row))
    return path
