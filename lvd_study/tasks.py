"""A task: one command, what has to be done before it, and how it is known to be done."""

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.config import ROOT
from lvd.utils.files import fingerprint, load_json, save_json, sha256
from lvd.utils.schema import Schema, checked

NOTHING_TO_CHOOSE = 2  # exit status of choose_rule.py where no rule can be promised
NO_EFFECT = {"--gpu_num": "-1", "--workers": "1"}  # flags → what a task's identity has for them


@dataclass(frozen=True)
class Task:
    """A command that makes something, and goes on where it was when it runs again.

    Attributes:
        name: what progress and files call it, each name once, such as "train shared 2025".
        command: words: a script from the repository's root, or -m and a module, then the flags.
        needs: Tasks that have to be done before.
        may_refuse: exit status 2 is an answer, too: "refused" of the Done then says why.
        refuses_with: words of the lines that are such an answer; () for any line. With another line
            the task has failed.
        makes: path of what it makes, at the end; None: not known. Where it is gone, the task is
            done again.
    """

    name: str
    command: tuple
    needs: tuple = ()
    may_refuse: bool = False
    refuses_with: tuple = ()
    makes: Path | None = None

    def words(self):
        """Return the command as texts, to be run in the repository's root.

        Paths below it are relative to it: a study may move with its repository.
        """
        return [_relative(word) for word in self.command]

    def shown(self):
        """Return the command as one would type it."""
        return shlex.join(["python", *self.words()])

    @property
    def slug(self):
        """The name as a file name."""
        return "".join(
            letter if letter.isalnum() or letter in "-." else "_" for letter in self.name
        )


@dataclass(frozen=True)
class Done:
    """What is known of a task that has ended.

    Attributes:
        seconds: that it took.
        refused: why nothing was made; "" where all is well.
    """

    seconds: float
    refused: str = ""


class Note(Schema):
    """The file of a task that has ended. `inputs` came later than the rest."""

    name: str
    command: str
    seconds: float
    refused: str
    identity: str
    inputs: dict[str, str] = {}


class Ledger:
    """Notes which tasks are done, one small file each, so that a stopped study goes on.

    A task counts as done while its command, those of all that it needs, and the content of the
    files from outside that they name are what they were, and what it has made is there.

    Args:
        folder: of the files.
        inputs: paths of the files from outside: settings, prompts, labels.
        recordings: paths of recordings from outside.
        config: path of the YAML that names them: what reads it depends on them.
    """

    def __init__(self, folder, inputs=(), recordings=(), config=None):
        self.folder = folder
        self._inputs = {_relative(Path(path)): path for path in inputs}
        self._recordings = {_relative(Path(path)): path for path in recordings}
        self._config = config and _relative(Path(config))
        self._known = {}  # slug → identity: two tasks of one name would be one file
        self._sha256 = {}

    def find(self, task):
        """Return the Done of a task, or None. A damaged note counts as none."""
        identity = self.identity(task)
        path = self._path(task)
        if not path.exists():
            return None
        try:
            entry = checked(Note, load_json(path), path)
        except InputError:
            return None
        if entry["identity"] != identity or entry.get("inputs", {}) != self._inputs_of(task, entry):
            return None
        refused = entry["refused"]
        if not refused and task.makes and not task.makes.exists():
            return None
        return Done(entry["seconds"], refused)

    def note(self, task, done):
        """Note that a task is done."""
        entry = {
            "name": task.name,
            "command": task.shown(),
            "seconds": round(done.seconds, 2),
            "refused": done.refused,
            "identity": self.identity(task),
            "inputs": self._inputs_of(task),
        }
        save_json(entry, self._path(task))

    def identity(self, task):
        """Return a hash of the command, and of those of all that it needs."""
        if task.slug not in self._known:
            needs = [self.identity(each) for each in task.needs]
            text = json.dumps([without_devices(task.words()), needs])
            self._known[task.slug] = hashlib.sha256(text.encode()).hexdigest(), task
        identity, same = self._known[task.slug]
        if same != task:
            raise InputError(f"two different tasks are called {task.name}")
        return identity

    def _inputs_of(self, task, entry=None):
        """Return {path: sha256} of the files from outside that a task's command names.

        entry: a note; one of an older version knows of none.
        """
        if entry is not None and "inputs" not in entry:
            return {}
        named = [word for word in task.words() if word in self._inputs]
        if self._config in named:
            named += self._recordings
        return {word: self._hash(word) for word in named}

    def _hash(self, word):
        if word not in self._sha256:
            is_large = word in self._recordings  # gigabytes
            path = Path(self._recordings[word] if is_large else self._inputs[word])
            digest = fingerprint if is_large else sha256
            self._sha256[word] = digest(path) if path.is_file() else ""
        return self._sha256[word]

    def _path(self, task):
        return self.folder / f"{task.slug}.json"


def without_devices(words):
    """Return a command whose flags of devices and processes have no say: they change no result."""
    before = [None, *words]
    return [NO_EFFECT.get(flag, word) for flag, word in zip(before, words)]


def _relative(word):
    if isinstance(word, Path) and word.is_relative_to(ROOT):
        return str(word.relative_to(ROOT))
    return str(word)


def in_order(wanted):
    """Return Tasks and all that they need, each once, before those that need it.

    Args:
        wanted: Tasks.

    Raises:
        InputError: two different tasks have one name.
    """
    ordered = {}

    def add(task):
        if task.name in ordered:
            if task != ordered[task.name]:
                raise InputError(f"two different tasks are called {task.name}")
            return
        for each in task.needs:
            add(each)
        ordered[task.name] = task

    for task in wanted:
        add(task)
    return list(ordered.values())
