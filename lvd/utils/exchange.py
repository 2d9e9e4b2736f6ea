"""What the processes of one launch tell each other: their failures, and what they work with.

Of the processes on a machine one speaks, so each machine has its line. The others end in silence.
"""

import hashlib
import json
import platform
import re

from lvd.errors import InputError, shorten, words_of
from lvd.utils.config import ROOT, first_difference, versions
from lvd.utils.disk import disk_problem

CODE = ("*.py", "lvd/**/*.py", "MagicTime/*.py", "MagicTime/utils/**/*.py")  # below ROOT
DIGEST = re.compile("[0-9a-f]{12,64}")


def exchanged(value, count):
    """Return the values of all processes, which call this at the same time.

    Args:
        value: what JSON can hold. It is sent as a tensor of bytes.
        count: how many processes there are.
    """
    import torch
    from torch import distributed

    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count)]
    distributed.all_gather(sizes, torch.tensor([len(text)]))
    longest = int(max(sizes))
    texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(count)]
    distributed.all_gather(texts, torch.nn.functional.pad(text, (0, longest - len(text))))
    pairs = zip(texts, sizes, strict=True)
    return [json.loads(text[: int(size)].numpy().tobytes()) for text, size in pairs]


def need_no_failure(team, failure=None):
    """Wait for all processes, and end all of them where one has failed.

    Args:
        team: lvd.utils.processes.Processes.
        failure: the exception of this process, or None.

    Raises:
        Exception: the failure of this process.
        InputError: another process has failed; the first of those is named.
        SystemExit: the same, where another process of this machine says so.
    """
    machine = _machine(team)
    words = None if failure is None else _words(failure)
    told = team.gather({"host": platform.node(), "machine": machine, "words": words})
    failed = [rank for rank in range(team.count) if told[rank]["words"] is not None]
    if not failed:
        return
    here = [rank for rank in failed if told[rank]["machine"] == machine]
    is_bug = failure is not None and not isinstance(failure, (InputError, OSError))
    if is_bug or here[:1] == [team.rank]:
        raise failure
    if here or team.local_rank > 0:
        raise SystemExit(2)
    name, words = f"process {failed[0]} on {told[failed[0]]['host']}", told[failed[0]]["words"]
    raise InputError(words if name in words else f"{name}: {words}")


def need_same(team, facts):
    """Refuse processes that would not do the same work in the same way.

    Args:
        team: lvd.utils.processes.Processes.
        facts: {what a message calls it: value}, which JSON can hold. Of two hex digests a message
            only says that they differ.

    Raises:
        InputError: the facts of a process differ from those of process 0.
        SystemExit: the same, where another process of this machine says so.
    """
    if team.count == 1:
        return
    everyone = team.gather({"host": platform.node(), "facts": facts})
    for rank, other in enumerate(everyone):
        difference = first_difference(everyone[0]["facts"], other["facts"])
        if difference and team.local_rank > 0:
            raise SystemExit(2)
        if difference:
            raise InputError(
                f"process {rank} on {other['host']}: {_said(*difference)}; all machines need the "
                "same command, code and weights"
            )


def code_facts():
    """Return the facts of `need_same` about the code: its files, and the libraries' versions."""
    libraries = {name: version for name, version in versions().items() if name != "python"}
    return {"code": code_sha256(), "versions": libraries}


def code_sha256():
    """Return a hex digest of the files of this code: a few hundred, some ten milliseconds."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in ROOT.glob(pattern)):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _machine(team):
    """Number of the first process on this machine: a launcher numbers one machine's in a row."""
    return team.rank - team.local_rank


def _words(failure):
    if isinstance(failure, InputError):
        return str(failure)
    return disk_problem(failure) if isinstance(failure, OSError) else words_of(failure)


def _said(key, main, other):
    """Say how a fact of another process differs from that of process 0."""
    if all(isinstance(value, str) and DIGEST.fullmatch(value) for value in (main, other)):
        return f"{key} is not the same as in process 0"
    return f"{key} is {shorten(other)}, in process 0 {shorten(main)}"
