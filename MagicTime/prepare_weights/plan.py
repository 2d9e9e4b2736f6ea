"""Which files a download loads, and where each of them grows."""

from dataclasses import dataclass, replace
from pathlib import Path

from lvd.errors import InputError

STAGING = ".download"


@dataclass
class Step:
    """One file of the run.

    Attributes:
        weight: manifest.Weight.
        file: manifest.File.
        target: where it goes.
        state: "there", "missing", or "unsure" until the hub has told its size.
        remote: hub.Remote, once the hub was asked.
    """

    weight: object
    file: object
    target: Path
    state: str
    remote: object = None

    @property
    def size(self):
        """Return the bytes as far as they are known; 0 where nothing is."""
        return (self.remote and self.remote.size) or self.file.size or self.file.about


def at_revision(weight, revision):
    """Return the weight at another revision of its first source: its files are not known."""
    source = replace(weight.sources[0], revision=revision)
    files = []
    for file in weight.files:
        files.append(replace(file, size=None, hash=None, about=file.size or file.about))
    return replace(weight, sources=(source,), files=tuple(files))


def plan(weights, folder, record):
    """Return the Steps of all files; a file that is there with another size is an InputError."""
    steps = []
    for weight in weights:
        for file in weight.files:
            target = folder / file.here
            pinned = weight.sources[0].revision
            size = file.size or _recorded_size(record.get(file.here), pinned)
            if not target.exists():
                state = "missing"
            elif size is None:
                state = "unsure"
            else:
                state = "there"
                _need_size(target, size)
            steps.append(Step(weight, file, target, state))
    return steps


def _recorded_size(entry, revision):
    """Return the size of a file loaded before, if it is of the revision that is wanted now."""
    return entry["size"] if entry and entry["wanted_revision"] == revision else None


def _need_size(target, size):
    if not target.is_file():
        raise InputError(f"{target}: is a folder, a file is needed")
    if target.stat().st_size != size:
        raise InputError(
            f"{target}: {target.stat().st_size} bytes, {size} are needed; delete or rename it, "
            "then it is loaded"
        )


def partial_path(step, folder):
    """Return where a file grows; the name says what content it will have."""
    return folder / STAGING / f"{step.file.here.replace('/', '--')}.{step.remote.token}.partial"


def bytes_needed(steps, folder):
    """Return the bytes that are still to load."""
    need = 0
    for step in steps:
        if step.state != "there":
            partial = partial_path(step, folder) if step.remote else None
            loaded = partial.stat().st_size if partial and partial.exists() else 0
            need += max(0, step.size - loaded)
    return need
