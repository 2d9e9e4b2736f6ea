"""What all scripts share on the command line.

A parser with one-line errors, exit statuses, lists of numbers such as "0-9,20", the last summary.
"""

import argparse
import errno
import os
import re
import signal
import sys
import threading
from contextlib import contextmanager, suppress

from lvd.errors import ArgumentError, InputError, words_of
from lvd.utils.disk import FULL, disk_problem, first_behind
from lvd.utils.partials import forget_sweeps

INTERRUPTED, TERMINATED = 130, 143  # exit statuses, as of a process that the signal killed


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are InputErrors of one line.

    Args:
        description: what the script does.
        example: a command line, shown at the end of --help as it is.
        others: of ArgumentParser; subcommands get theirs, such as `prog`, from argparse.
    """

    def __init__(self, description, example, **others):
        super().__init__(
            description=description,
            epilog=f"example:\n  {example}",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **others,
        )

    def add_overrides(self):
        """Accept `key=value` words after the flags: settings that win over YAML and flags."""
        self.add_argument(
            "overrides", nargs="*", metavar="key=value", help="settings of the config, these win"
        )

    def parse_args(self, args=None, namespace=None):
        """See argparse. A flag that is given a blank text or `--` is refused.

        A blank text comes of a shell variable that is not set. A path "" would be the current
        folder, and other flags would count as not given. Of `--flag=--` argparse makes a list.
        """
        words = sys.argv[1:] if args is None else list(args)
        for word, following in zip(words, [*words[1:], None]):
            flag, equals, value = word.partition("=")
            value = value if equals else following
            is_missing = value is not None and (not value.strip() or (equals and value == "--"))
            if word.startswith("--") and is_missing:
                self.error(f"{flag} {value!r}: a value is needed")
        return super().parse_args(args, namespace)

    def flag_of(self, name):
        """Return the flag that sets a Python argument, such as "--guard-allow-unknown" of
        "allow_unknown"; None where there is none."""
        words = name.rstrip("_")
        flags = [flag for action in self._actions for flag in action.option_strings]
        for wanted in (f"--{words}", f"-{words.replace('_', '-')}", f"--{words}s"):
            if found := next((flag for flag in flags if flag.endswith(wanted)), None):
                return found
        return None

    def error(self, message):
        """Called by argparse for a bad flag."""
        raise InputError(f"{message} (see {self.prog} --help)")


def run_command(parser, work, argv=None):
    """Parse argv and call work(args). What goes wrong is told in one line on stderr.

    Args:
        parser: a Parser.
        work: function of the parsed arguments.
        argv: list of words; None: those of the command line.

    Returns:
        The exit status: 0; 2 for bad input, files that cannot be written or too little memory;
        130 when interrupted (Ctrl-C), 143 when terminated (SIGTERM).
    """
    forget_sweeps()
    try:
        with _sigterm_interrupts():
            work(parser.parse_args(argv))
            if sys.stdout:
                sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        # Libraries that are interrupted while they write a file raise errors of their own.
        interrupt = first_behind(error, lambda each: isinstance(each, KeyboardInterrupt))
        if interrupt:
            status = TERMINATED if isinstance(interrupt, _Terminated) else INTERRUPTED
            return _fail("interrupted; run the same command again to go on", status)
        if isinstance(error, ArgumentError):
            return _fail(f"error: {error.as_flag(parser.flag_of(error.name))}")
        if isinstance(error, InputError):
            return _fail(f"error: {error}")
        if isinstance(error, OSError):  # a full disk, no permission, a file in a folder's place
            unnamed = _unnamed(error) if error.filename is None else None
            return _fail(f"error: {disk_problem(error, unnamed)}")
        if not _out_of_memory(error):
            raise
        return _fail(
            f"error: out of memory ({words_of(error, 160)}); a smaller batch, fewer "
            "workers or another device is needed"
        )
    return 0


def one_line(text):
    """Return a message as one line of fewer than 300 characters.

    A flag's value or a path in it may be long, or hold a line break. The middle of the longest
    word is left out first: a path still says which file it is.
    """
    words = " ".join(text.splitlines()).split(" ")
    while len(" ".join(words)) >= 300:
        place = max(range(len(words)), key=lambda place: len(words[place]))
        shorter = _shorter(words[place])
        if len(shorter) >= len(words[place]):  # many words
            line = " ".join(words)
            return f"{line[:180]} ... {line[-110:]}"
        words[place] = shorter
    return " ".join(words)


def _shorter(word):
    """A word without its middle; of key=value the key stays whole."""
    key, equals, _ = word.partition("=")
    begin = len(key) + 1 if equals and len(key) <= 40 else 0
    return f"{word[: begin + 12]}...{word[-30:]}"


def _fail(line, status=2):
    """Say what went wrong; returns the exit status."""
    with suppress(OSError):  # stderr may lie on the full disk
        print(one_line(line), file=sys.stderr)
    return status


class _Terminated(KeyboardInterrupt):
    """SIGTERM: what ends an interrupted command well ends a terminated one well, too."""


@contextmanager
def _sigterm_interrupts():
    """Let SIGTERM raise in the block, so that files, locks and processes are tidied up.

    Not in a process of `accelerate launch`, which waits for the others in compiled code: SIGTERM
    ends it at once, and the next run sweeps up.
    """
    here = threading.current_thread() is threading.main_thread()
    default = here and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not default or os.environ.get("WORLD_SIZE", "1") != "1":
        yield
        return

    def interrupt(*_):
        raise _Terminated

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _unnamed(error):
    """Return what an OSError is about that names no file. All files that are written are named."""
    if error.errno not in (*FULL, errno.EPIPE):
        return "the system"
    with suppress(OSError, ValueError):
        # What is left in its buffer would fail again at the end of Python, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return "standard output"


def _out_of_memory(error):
    """Torch raises OutOfMemoryError on a GPU, and a bare RuntimeError on the CPU."""
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    return type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)


def summary(title, facts, paths):
    """Print what was done.

    Args:
        title: such as "dataset built".
        facts: {name: value}.
        paths: the files that were written.
    """
    print(f"\n{title}")
    for name, value in facts.items():
        print(f"  {name}: {value}")
    for path in paths:
        print(f"  wrote {path}")


def parse_numbers(text, available, flag):
    """Read a list of groups or steps.

    Args:
        text: a number, a list "0,5,10", a range "1-5" with both ends, a mixture, or "all".
        available: the numbers that exist.
        flag: what a message calls the text, such as "--step_num".

    Returns:
        The numbers, sorted. Of a range, those that exist.

    Raises:
        InputError: the text is no such list, or a number in it does not exist.
    """
    available = sorted(available)
    exist = f"{available[0]} to {available[-1]}" if available else "none"
    if str(text).strip() == "all":
        return available
    numbers = set()
    for part in str(text).split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        if not match:
            raise InputError(
                f"{flag} {text}: '{part.strip()}' is not a number, a range such as 0-9, or all"
            )
        first = int(match[1])
        last = int(match[2] or match[1])
        if last < first:
            raise InputError(f"{flag} {text}: the range {part.strip()} runs backwards")
        for number in (first, last):
            if number not in available:
                raise InputError(f"{flag} {text}: {number} does not exist (there are {exist})")
        numbers |= set(range(first, last + 1)) & set(available)
    return sorted(numbers)
