"""Whether a folder is one for all processes of a launch, as filling it together needs.

Several machines share a folder over a network. Some file systems do not lock files across machines,
or show a machine what another has written much later or never. What the work relies on is tried
here with a small file, before anything is computed:

- all processes see the same folder;
- a lock (flock) that one holds is refused to the others, and can be shared;
- neighbouring bytes that each writes are all there, for reading and in a mapping (mmap);
- lines that each appends under a lock are all there;
- a file that is renamed over another is seen in its place.
"""

import mmap
import os
import platform
import secrets
import time
from contextlib import suppress
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.disk import disk_problem, look_anew
from lvd.utils.exchange import need_no_failure
from lvd.utils.jsonl import append_lines, cut_half_line, open_lines, read_lines
from lvd.utils.locks import try_lock

PATIENCE = 10.0  # seconds until all must see what one has done
TURNS = 120.0  # seconds until each has had its turn: they may be many, or one slow
PAUSE = 0.05  # seconds between two looks
PAGE = 4096  # bytes of memory that are read and written together
BLOCK = 100  # bytes that each process writes: neighbours share a page
OLD = 3600  # seconds after which the file of a killed probe is deleted
NEEDED = (
    "needed: one machine's disk, NFS without nolock and local_lock, Lustre with -o flock, or the "
    "like (docs/several_machines.md)"
)


def need_shared_folder(folder, team, asked_by):
    """Refuse a folder that the processes of a launch cannot fill together. It is made if missing.

    All processes call this at the same time. A single process asks for nothing.

    Args:
        folder: its path.
        team: lvd.utils.processes.Processes.
        asked_by: the flag or setting of it, for messages.

    Raises:
        InputError: what fails in this process or in another.
        SystemExit: the same, where another process of this machine says so.
    """
    if team.count == 1:
        return
    probe = _Probe(Path(folder), team, f"{asked_by} {folder}")
    try:
        probe.find()
        probe.lock()
        probe.write()
        probe.append()
        probe.rename()
    finally:
        probe.close()


class _Probe:
    """The small file that all processes of a launch try a folder with.

    Args:
        folder: where it lies.
        team: the processes.
        name: what messages call the folder.
    """

    def __init__(self, folder, team, name):
        self.folder, self.team, self.name = folder, team, name
        self.here = f"process {team.rank} on {platform.node()}"
        self.size = PAGE + team.count * BLOCK
        self.path = self.file = None

    def find(self):
        """The main process makes the file, the others open it."""
        token = secrets.token_hex(8)
        self.main(lambda: self._make(token))
        place = os.path.abspath(self.folder)
        token, *main = self.team.gather([token, place, platform.node()])[0]
        self._name(token)
        self.all(lambda: self._open(token, place, *main))

    def _make(self, token):
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".shared-*.probe*"):
            with suppress(OSError):  # another run that tries this folder has deleted it
                if time.time() - left.stat().st_mtime > OLD:
                    left.unlink()
        self._name(token)
        _write(self.path, token.encode().ljust(self.size, b"\0"))

    def _name(self, token):
        self.path = self.folder / f".shared-{token}.probe"
        self.lines, self.new = self.path.with_suffix(".probe1"), self.path.with_suffix(".probe2")

    def _open(self, token, place, main_place, main_host):
        if not self._holds(lambda: self._content().startswith(token.encode())):
            places = "" if place == main_place else f", {place} and not {main_place} of {main_host}"
            raise InputError(
                f"{self.name}: {self.here} sees another folder than process 0{places}; a folder "
                "that all machines share is needed (docs/several_machines.md)"
            )
        self.file = open(self.path, "r+b", buffering=0)

    def lock(self):
        """The main process locks the file, which is then refused to the others; all share it."""
        self.main(lambda: self._need_lock("cannot be had"))
        self.others(self._need_refusal)
        self.main(lambda: self._need_lock("cannot be shared", shared=True))
        self.others(lambda: self._need_lock("cannot be shared", shared=True))
        self.main(self._need_shared_refusal)

    def _need_lock(self, what, shared=False):
        got = try_lock(self.file, shared, patience=PATIENCE)
        if not got:
            self._refuse("there are no file locks (flock)" if got is None else f"locks {what}")

    def _need_refusal(self):
        got = try_lock(self.file)
        if got is None:
            self._refuse("there are no file locks (flock)")
        if got:
            self._refuse("file locks (flock) of process 0 are not seen")

    def _need_shared_refusal(self):
        if try_lock(self.file):  # as the last one does, to tidy up; refused, it has no lock left
            self._refuse("shared file locks (flock) of other processes are not seen")
        self._need_lock("cannot be shared", shared=True)

    def write(self):
        """Each writes its part of a page that all have in memory; all see all parts.

        The main process writes before the others, then after them: a machine that writes back a
        whole old page overwrites what was written before.
        """
        self._write_in_turn(b"A", self.main, self.others)
        self._write_in_turn(b"B", self.others, self.main)

    def _write_in_turn(self, letter, first, then):
        self.all(self._mapped)
        first(lambda: self._write_part(letter))
        then(lambda: self._write_part(letter))
        self.all(lambda: self._need_parts(letter))

    def _write_part(self, letter):
        os.pwrite(self.file.fileno(), letter * BLOCK, self.team.rank * BLOCK)
        os.fsync(self.file.fileno())

    def _need_parts(self, letter):
        whole = letter * BLOCK * self.team.count
        if not self._holds(lambda: self._content().startswith(whole)):
            self._refuse("bytes that processes write side by side are lost or seen too late")
        if not self._holds(lambda: self._mapped().startswith(whole)):
            self._refuse("bytes that other processes write are not seen in memory (mmap)")

    def _content(self):
        return self.path.read_bytes()

    def _mapped(self):
        with open(self.path, "rb") as file:
            try:
                mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
            except OSError as error:
                self._refuse(f"files cannot be mapped into memory (mmap: {error.strerror})")
            with mapped:
                return mapped[:]

    def append(self):
        """Each appends a line when it has the lock alone; all lines are there."""
        self.all(self.file.close)  # the shared locks end
        self.all(self._append_line)
        self.all(self._need_lines)

    def _append_line(self):
        with open_lines(self.lines) as file:
            if not try_lock(file, patience=TURNS):
                self._refuse("locks that processes take in turn are not let go")
            cut_half_line(file)
            append_lines(file, [self.team.rank])

    def _need_lines(self):
        ranks = list(range(self.team.count))
        if not self._holds(lambda: sorted(map(int, read_lines(self.lines)[0])) == ranks):
            self._refuse("lines that processes append in turn are lost or seen too late")

    def rename(self):
        """The main process renames another file over this one; all see the new content."""
        self.main(self._replace)
        self.all(self._need_renamed)

    def _replace(self):
        _write(self.new, b"renamed")
        os.replace(self.new, self.path)

    def _need_renamed(self):
        if not self._holds(lambda: self._content() == b"renamed"):
            self._refuse("a file that process 0 renamed is not seen")

    def close(self):
        """Close the file; the main process deletes it."""
        if self.file:
            self.file.close()
        if self.team.is_main and self.path:
            for path in (self.path, self.lines, self.new):
                with suppress(OSError):  # a probe that is OLD is deleted by the next one
                    path.unlink(missing_ok=True)

    def main(self, work):
        """Let the main process do something, while the others wait."""
        self.all(work if self.team.is_main else lambda: None)

    def others(self, work):
        """Let all but the main process do something."""
        self.all(work if not self.team.is_main else lambda: None)

    def all(self, work):
        """Do something, and go on when all processes have done it."""
        failure = None
        try:
            work()
        except InputError as error:
            failure = error
        except OSError as error:
            failure = InputError(f"{self.name}: {self.here}: {disk_problem(error)}")
        need_no_failure(self.team, failure)

    def _refuse(self, words):
        raise InputError(f"{self.name}: {self.here}: {words}; {NEEDED}")

    def _holds(self, true):
        """Say whether something comes to hold within PATIENCE seconds."""
        until = time.monotonic() + PATIENCE
        while True:
            look_anew(self.folder)
            problem = None
            try:
                if true():
                    return True
            except FileNotFoundError:  # it may still come
                pass
            except (OSError, ValueError) as error:
                problem = error
            if time.monotonic() >= until:
                break
            time.sleep(PAUSE)
        if isinstance(problem, (OSError, InputError)):
            raise problem
        return False


def _write(path, content):
    with open(path, "wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())
