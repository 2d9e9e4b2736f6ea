"""A recording larger than the memory: planned, written in a few places, and read back."""

import time

import torch

from benchmarks.common.memory import AnonymousPeak
from benchmarks.recording.dry_run import META, full_latents, memory
from lvd.errors import InputError
from lvd.utils.progress import progress
from lvd.x0.file import create_x0_file, open_x0_file


def plan(args, folder):
    began = time.perf_counter()
    with AnonymousPeak() as anonymous, create(args, folder):
        pass
    return [figures_of(folder, "plan", time.perf_counter() - began, anonymous)]


def write(args, folder):
    began = time.perf_counter()
    with AnonymousPeak() as anonymous, create(args, folder) as writer:
        for row in progress(written_rows(args), "write"):
            values = [values_of(args, row, step) for step in range(args.steps)]
            writer.write_row(row, torch.stack(values), {"seed": row})
    return [figures_of(folder, "write", time.perf_counter() - began, anonymous)]


def read_rows(args, folder):
    """All steps of a row at a time; the file is opened for each row, so that no touched page
    outlives its use."""
    steps = range(args.steps)
    slices = [[(row, step) for step in steps] for row in written_rows(args)]
    return read(args, folder, "read by row", slices)


def read_steps(args, folder):
    """One step of all written rows at a time, as detectors of a step read it."""
    rows = written_rows(args)
    slices = [[(row, step) for row in rows] for step in range(args.steps)]
    return read(args, folder, "read by step", slices)


def read_mapped(args, folder):
    """Everything with the file opened once."""
    places = [(row, step) for row in written_rows(args) for step in range(args.steps)]
    return read(args, folder, "read, one mapping", [places])


PARTS = {
    "plan": plan,
    "write": write,
    "read_rows": read_rows,
    "read_steps": read_steps,
    "read_mapped": read_mapped,
}


def read(args, folder, name, slices):
    """Compare [[(row, step)]] with the seeded values; opens the file once for every inner list."""
    began = time.perf_counter()
    with AnonymousPeak() as anonymous:
        for places in progress(slices, name):
            x0 = open_x0_file(path_in(folder))
            x0.need_rows(row for row, _ in places)
            for row, step in places:
                if not x0.tensor[row, step].equal(values_of(args, row, step)):
                    raise InputError(f"{x0.path}: row {row}, step {step} is not what was written")
            del x0
    return [figures_of(folder, name, time.perf_counter() - began, anonymous)]


def path_in(folder):
    return folder / "large" / "pred_x0.pth"


def create(args, folder):
    """The X0Writer of the recording; the point is that the disk holds only what is written."""
    latents = full_latents(args)
    known = {"dtype": torch.float32, "meta": META, "check_space": False}
    return create_x0_file(path_in(folder), args.rows, args.steps, latents, **known)


def written_rows(args):
    """Row numbers from the first to the last, evenly spaced."""
    gaps = max(1, args.written - 1)
    return sorted({round(i * (args.rows - 1) / gaps) for i in range(args.written)})


def values_of(args, row, step):
    """Seeded x0 [C, F, h, w] of one row and step: what is read is checked without keeping what was
    written."""
    generator = torch.Generator().manual_seed(row * args.steps + step)
    return torch.randn(full_latents(args), generator=generator)


def figures_of(folder, name, seconds, anonymous):
    """(case, figures) of one pass over the file."""
    there = path_in(folder).stat()
    sizes = {"file_gb": there.st_size / 1e9, "on_disk_gb": there.st_blocks * 512 / 1e9}
    return name, {"seconds": seconds, **sizes, **memory(anonymous)}
