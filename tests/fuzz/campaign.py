"""A campaign: many damaged copies of one kind of file, each read by the script that reads it."""

import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml

from tests.fuzz.mutations import at, damages, drawn, put
from tests.fuzz.oracle import TIMES, Faults, fault
from tests.fuzz.shapes import anything
from tests.fuzz.worlds import TEXTS

TOO_LONG = "the name is too long"  # of a path that stands in a file: the message tells that path
# What is said of a file as a whole, where no key of it is at fault or none could be read.
OF_A_WHOLE_FILE = (
    *("not valid", "not a readable", "damaged", "does not belong", "nested too deeply"),
    *("another eval.pth", "another label file", "of another", "does not say"),
    *("neither a", "not a shared detector", "not a pretrained encoder", "not the training state"),
    *("only ${key}", "noise schedule"),
    # what changed since, in words: of two hashes, nobody knows which one is damaged
    *("after this folder was made, ", "after it was trained, "),
    TOO_LONG,
)


UNREADABLE = object()
STAND_IN = b"/the/world"  # for the world's folder, whose path has another length in each run


@dataclass
class Format:
    """How a file is read and written here: apart from the code under test, and without checks."""

    read: Callable
    write: Callable
    tensors: bool = False
    skip: tuple = ()  # names of changes that it cannot hold


def _write_lines(entries, path):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in _list(entries)))


def _list(value):
    return value if isinstance(value, list) else [value]


def _dumped(content, path):
    with open(path, "w") as file:
        yaml.dump(content, file, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True)


def _read_lines(path):
    """The lines that have their end: half a line is what a killed process leaves."""
    whole = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in whole]


JSON = Format(
    lambda path: json.loads(path.read_text()),
    lambda content, path: path.write_text(json.dumps(content)),
    skip=("5000 digits",),  # Python writes no such number; tests of texts have it
)
YAML = Format(lambda path: yaml.safe_load(path.read_text()), _dumped, skip=("5000 digits",))
LINES = Format(_read_lines, _write_lines, skip=("5000 digits",))
TORCH = Format(lambda path: torch.load(path, weights_only=True), torch.save, tensors=True)


@dataclass
class Kind:
    """A kind of file, and who reads it.

    Attributes:
        name: of the kind.
        file: where it lies in the world.
        format: Format.
        parts: what a case's world holds besides (see World).
        run: function of a World that returns an Outcome.
        fine: shape of a content that may be accepted.
        within: place of the part that is changed; () for the whole content.
        named: what a message may call the file; default: its name.
        words: {key: (what else a message may call it, ...)}.
        whole: what messages say of the whole file, where no key of it is at fault.
        right: function of (world, content, Outcome, Outcome of the sound file) that says what is
            wrong with an accepted content, or None.
        bytes: share of the cases that damage bytes.
    """

    name: str
    file: str
    format: Format
    parts: tuple
    run: Callable
    fine: Callable = anything
    within: tuple = ()
    named: tuple = ()
    words: dict = field(default_factory=dict)
    whole: tuple = ()
    right: Callable = lambda *_: None
    bytes: float = 0.2


def campaign(kind, cases, count):
    """Run `count` cases of a kind (LVD_FUZZ_CASES multiplies) and fail with all faults."""
    faults = Faults(kind.name)
    with cases.world(kind.file, *kind.parts) as world:
        content = kind.format.read(world.root / kind.file)
        sound = _outcome(kind, world)
        assert sound.status == 0, f"{kind.name}: the sound file: {sound.err} {sound.error!r}"
    count *= TIMES
    of_bytes = int(kind.bytes * count)
    part = at(content, kind.within)
    changes = drawn(part, count - of_bytes, kind.name, kind.format.tensors, kind.format.skip)
    for case, place, change in changes:
        changed = put(content, kind.within, change(part))
        faults.add(case, _changed_case(kind, cases, sound, changed, (*kind.within, *place)))
    for case, damage in damages(of_bytes, kind.name):
        faults.add(case, _damaged_case(kind, cases, damage))
    faults.check(len(changes) + of_bytes)


def _outcome(kind, world):
    """Run the reader. In messages the world's folder is "~": the length of its path is chance."""
    outcome = kind.run(world)
    outcome.err = outcome.err.replace(str(world.root), "~")
    return outcome


def _changed_case(kind, cases, sound, changed, place):
    """The fault of a case whose content is `changed` at `place`, or None."""
    with cases.world(kind.file, *kind.parts) as world:
        path = world.root / kind.file
        path.unlink()
        try:
            kind.format.write(changed, path)
        except (TypeError, ValueError, RuntimeError, NotImplementedError, RecursionError):
            return None  # such a file cannot be made
        outcome = _outcome(kind, world)
        found = fault(outcome, _names(kind, place))
        if found or outcome.status != 0:
            return found
        if not kind.fine(at(changed, kind.within)):
            return "accepted, though no such content is sound"
        return kind.right(world, changed, outcome, sound)


def _names(kind, place):
    """What the message must name: the file, and of the place one key at least."""
    names = [(*(kind.named or (Path(kind.file).name,)), TOO_LONG)]
    keys = [str(key) for key in place if isinstance(key, str)]
    words = [word for key in keys for word in (key, *kind.words.get(key, ()))]
    words += [word.replace("_", " ") for word in words]
    if keys:
        names.append((*words, *kind.whole, *OF_A_WHOLE_FILE))
    return names


def _damaged_case(kind, cases, damage):
    """The fault of a case whose bytes are damaged, or None."""
    with cases.world(kind.file, *kind.parts) as world:
        path = world.root / kind.file
        own(path)
        _damage(path, damage, world.root)
        content = _read(kind, path)  # now: a run may delete the file at its end
        outcome = _outcome(kind, world)
        found = fault(outcome, [kind.named or (path.name,)])
        if found or outcome.status != 0:
            return found
        if content is UNREADABLE:
            return "accepted, though it cannot be read"
        return None if kind.fine(content) else "accepted, though no such content is sound"


def _damage(path, damage, root):
    """Damage a file at the same place in every run, also where paths stand in it."""
    folder = bytes(root)
    if path.suffix in TEXTS:
        path.write_bytes(path.read_bytes().replace(folder, STAND_IN))
    damage(path)
    if path.suffix in TEXTS and path.is_file():
        path.write_bytes(path.read_bytes().replace(STAND_IN, folder))


def _read(kind, path):
    """The content of a damaged file: None without a file, UNREADABLE where it is not in its format.

    A pipe would be waited for in vain: it is no file.
    """
    if not path.is_file():
        return None
    try:
        with redirect_stderr(io.StringIO()):
            return at(kind.format.read(path), kind.within)
    except Exception:
        return UNREADABLE


def own(path):
    """Give the case a file of its own where it has a link."""
    own = path.with_name(path.name + ".own")
    shutil.copyfile(path, own)
    os.replace(own, path)
