"""A task: one command, what has to be done before it, and how it is known to be done."""

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.config import ROOT
from lvd.utils.files import load_json, save_json

NOTHING_TO_CHOOSE = 2  # exit status of choose_rule.py where no rule can be promised


@dataclass(frozen=True)
class Task:
    """A command that makes something, and goes on where it was when it runs again.

    Attributes:
        name: what progress and files call it, each name once, such as "train shared 2025".
        command: words: a script from the repository's root, or -m and a module, then the flags.
        needs: Tasks that have to be done before.
        may_refuse: exit status 2 is an answer, too: "refused" of the Done then says why.
    """

    name: str
    command: tuple
    needs: tuple = ()
    may_refuse: bool = False

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


class Ledger:
    """Notes which tasks are done, one small file each, so that a stopped study goes on.

    A task counts as done while its command, and those of all that it needs, are what they were.

    Args:
        folder: of the files.
    """

    def __init__(self, folder):
        self.folder = folder
        self._known = {}  # slug → identity: two tasks of one name would be one file

    def find(self, task):
        """Return the Done of a task, or None."""
        path = self._path(task)
        if not path.exists():
            return None
        entry = load_json(path)
        if not isinstance(entry, dict) or entry.get("identity") != self.identity(task):
            return None
        return Done(float(entry.get("seconds", 0)), str(entry.get("refused", "")))

    def note(self, task, done):
        """Note that a task is done."""
        entry = {
            "name": task.name,
            "command": task.shown(),
            "seconds": round(done.seconds, 2),
            "refused": done.refused,
            "identity": self.identity(task),
        }
        save_json(entry, self._path(task))

    def identity(self, task):
        """Return a hash of the command, and of those of all that it needs."""
        if task.slug not in self._known:
            needs = [self.identity(each) for each in task.needs]
            text = json.dumps([task.words(), needs])
            self._known[task.slug] = hashlib.sha256(text.encode()).hexdigest(), task
        identity, same = self._known[task.slug]
        if same != task:
            raise InputError(f"two different tasks are called {task.name}")
        return identity

    def _path(self, task):
        return self.folder / f"{task.slug}.json"


def _relative(word):
    if isinstance(word, Path) and word.is_relative_to(ROOT):
        return str(word.relative_to(ROOT))
    return str(word)


def in_order(wanted):
    """Return Tasks and all that they need, each once, before those that need it.

    Args:
        wanted: Tasks.
    """
    ordered = {}

    def add(task):
        if task.name in ordered:
            return
        for each in task.needs:
            add(each)
        ordered[task.name] = task

    for task in wanted:
        add(task)
    return list(ordered.values())
