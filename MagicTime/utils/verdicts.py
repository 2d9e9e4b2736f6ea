"""verdicts.jsonl: what the guard said of each video, and what that saved."""

import json
import sys
from collections import Counter
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Literal

from lvd.errors import InputError, plural
from lvd.guard.result import STOPPED, UNCHECKED
from lvd.rules.rule import SAFE, UNSAFE
from lvd.utils.jsonl import append_lines, cut_half_line, open_lines, read_lines
from lvd.utils.locks import try_lock
from lvd.utils.schema import Count, Finite, Row, Schema, checked

NAMED = 8  # stopped videos that the summary of a run names
VERDICTS, PREVIEWS = "verdicts.jsonl", "previews"
SILENT = 2  # seconds of waiting before it is told
PATIENCE = 600  # seconds to wait for another process's line


class VerdictLine(Schema, extra="allow"):
    """A line of verdicts.jsonl: three keys decide, the others are told if they are there."""

    row: Row
    verdict: Literal["unsafe", "safe", "unchecked"]
    stopped: bool
    video: str = ""
    dry_run: bool = False
    step: Row | None = None
    steps_saved: Count = 0
    steps_total: Count = 0
    seconds_saved: Finite = 0.0
    categories: list[str] = []
    flags: list[str] = []


class Verdicts:
    """verdicts.jsonl of a folder: one line of JSON a video, written by one process or several."""

    def __init__(self, folder):
        self.path = Path(folder) / VERDICTS

    def read(self):
        """Read all lines.

        Returns:
            {row: dict of its line}; of two lines about one row the later.

        Raises:
            InputError: a damaged line.
        """
        if not self.path.exists():
            return {}
        lines, _ = read_lines(self.path)
        verdicts = {}
        for number, line in enumerate(lines, 1):
            entry = _parsed(line)
            if entry is None:
                raise InputError(
                    f"{self.path}: line {number} is damaged; delete it, and its video will be "
                    "sampled again"
                )
            verdicts[entry["row"]] = entry
        return verdicts

    def count(self):
        """Return how many lines there are."""
        return len(read_lines(self.path)[0]) if self.path.exists() else 0

    def append(self, lines):
        """Append lines (dicts), which are on the disk when this returns."""
        with open_lines(self.path) as file:
            if try_lock(file, patience=SILENT) is False:
                self._wait(file)
            cut_half_line(file)
            append_lines(file, lines)

    def _wait(self, file):
        """Wait for another process that has locked the file, and say so."""
        print(
            f"{self.path}: waiting for another process that has locked this file, {PATIENCE} s at "
            "most",
            file=sys.stderr,
        )
        if try_lock(file, patience=PATIENCE) is False:
            raise InputError(
                f"{self.path}: locked by another process for {PATIENCE} s; stop it, and run the "
                "same command again"
            )


def _parsed(line):
    """Return the dict of a line of verdicts.jsonl; None for a damaged one."""
    try:
        entry = json.loads(line)
        return checked(VerdictLine, entry, "line")
    except (ValueError, RecursionError):  # an InputError is a ValueError
        return None


def verdict_line(row, prompt, result, dry_run):
    """Return what verdicts.jsonl says of a video.

    Args:
        row: of the prompt.
        prompt: MagicTime.utils.prompt.Prompt.
        result: lvd.guard.result's GuardResult.
        dry_run: whether the guard stops nothing.

    Returns:
        A plain JSON dict.
    """
    scores = {
        category: [score if isfinite(score) else None for score in steps]
        for category, steps in result.scores.items()
    }
    told = asdict(result)
    if result.other_guidance is None:
        del told["other_guidance"]
    return {
        "row": row,
        "video": prompt.name,
        "prompt": prompt.text,
        "stopped": result.stopped and not dry_run,
        "dry_run": dry_run,
        **told,
        "scores": scores,
    }


def tell(lines):
    """Sum up verdicts for the summary of a run.

    Args:
        lines: [dict of verdicts.jsonl].

    Returns:
        {fact: text}.
    """
    count = Counter(line["verdict"] for line in lines)
    stopped = [line for line in lines if line["verdict"] in STOPPED]
    dry_run = any(line.get("dry_run") for line in lines)
    would = "would have been " if dry_run else ""
    facts = {
        "guard": f"{count[UNSAFE]} unsafe and {count[UNCHECKED]} unchecked {would}stopped, "
        f"{count[SAFE]} passed"
    }
    if dry_run:
        facts["rate"] = _rate(len(stopped), len(lines))
    if stopped:
        names = [_stopped(line) for line in stopped[:NAMED]]
        if len(stopped) > NAMED:
            names.append(f"and {len(stopped) - NAMED} more")
        facts[f"{would}stopped"] = "; ".join(names)
    flagged = [line for line in lines if line["verdict"] == SAFE and line.get("flags")]
    if flagged:
        names = [f"{_name(line)} {' and '.join(line['flags'])}" for line in flagged[:NAMED]]
        if len(flagged) > NAMED:
            names.append(f"and {len(flagged) - NAMED} more")
        facts["flagged"] = f"{plural(len(flagged), 'video')} that passed: {'; '.join(names)}"
    saved = sum(line.get("steps_saved", 0) for line in stopped)
    total = sum(line.get("steps_total", 0) for line in lines)
    seconds = sum(line.get("seconds_saved", 0) for line in stopped)
    videos = plural(len(stopped), "video")
    undecoded = f"{videos} not decoded"
    if dry_run:
        undecoded = f"{videos} {would}left undecoded; all were decoded and written"
    facts["saved"] = (
        f"{saved} of {total} steps {would}saved, about {seconds:.1f} s; and {undecoded}"
    )
    return facts


def _rate(stopped, videos):
    """Say what share of the videos would have been stopped, and how sure that is."""
    from scipy.stats import binomtest

    interval = binomtest(stopped, videos).proportion_ci(0.95, method="wilson")
    return (
        f"{stopped / videos:.1%} of {plural(videos, 'video')} would have been stopped (95% Wilson "
        f"interval {interval.low:.1%} to {interval.high:.1%})"
    )


def _stopped(line):
    """Say what one video was stopped for, and how soon."""
    why = UNCHECKED
    if line["verdict"] != UNCHECKED:
        why = " and ".join(line.get("categories") or [UNSAFE])
    when = "at the end"
    if line.get("step") is not None:
        when = f"after {line['step'] + 1} of {plural(line.get('steps_total', 0), 'step')}"
    return f"{_name(line)} {why}, {when}"


def _name(line):
    return line.get("video", line["row"])
