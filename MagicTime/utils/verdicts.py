"""verdicts.jsonl: what the guard said of each video, and what that saved."""

import json
import os
from dataclasses import asdict
from math import isfinite
from pathlib import Path

from lvd.errors import InputError, plural
from lvd.guard.session import SAFE, STOPPED, UNCHECKED, UNSAFE
from lvd.utils.files import read_text
from lvd.utils.locks import try_lock

NAMED = 8  # stopped videos that the summary of a run names
VERDICTS, PREVIEWS = "verdicts.jsonl", "previews"
PATIENCE = 600  # seconds to wait for another process's line


class Verdicts:
    """verdicts.jsonl: one line of JSON a video, appended whole, by one process or several.

    A line that a killed process left half-written does not count, and the next line takes its
    place.
    """

    def __init__(self, folder):
        self.path = Path(folder) / VERDICTS

    def read(self):
        """{row: line} of all there are; of two about one row the later. InputError for a damaged
        line."""
        if not self.path.exists():
            return {}
        found, text = {}, read_text(self.path)
        for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
            try:
                entry = json.loads(line)
                row, verdict = entry["row"], entry["verdict"]
                known = (
                    type(row) is int
                    and verdict in (UNSAFE, SAFE, UNCHECKED)
                    and type(entry["stopped"]) is bool
                )
            except (ValueError, TypeError, KeyError):
                known = False
            if not known:
                raise InputError(
                    f"{self.path}: line {number} is damaged; delete it, and its video will be "
                    "sampled again"
                )
            found[row] = entry
        return found

    def count(self):
        """How many lines there are."""
        return self.path.read_bytes().count(b"\n") if self.path.exists() else 0

    def append(self, lines):
        """Dicts, on the disk when this returns."""
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with open(self.path, "a+b", buffering=0) as file:
            if try_lock(file, patience=PATIENCE) is False:
                raise InputError(
                    f"{self.path}: locked by another process for {PATIENCE} s; stop it, and run "
                    "the same command again"
                )
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            try:
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(whole)
                raise


def verdict_line(row, prompt, result, dry_run):
    """What verdicts.jsonl says of a video, plain JSON. prompt: prompts.Prompt; result: GuardResult."""
    scores = {
        category: [score if isfinite(score) else None for score in steps]
        for category, steps in result.scores.items()
    }
    return {
        "row": row,
        "video": prompt.name,
        "prompt": prompt.text,
        "stopped": result.stopped and not dry_run,
        "dry_run": dry_run,
        **asdict(result),
        "scores": scores,
    }


def tell(lines):
    """{fact: text} for the summary of a run, of the lines of its verdicts."""
    count = {
        verdict: sum(line["verdict"] == verdict for line in lines)
        for verdict in (UNSAFE, UNCHECKED, SAFE)
    }
    gone = [line for line in lines if line["verdict"] in STOPPED]
    would = "would have been " if any(line["dry_run"] for line in lines) else ""
    steps, total = (
        sum(line[key] for line in part)
        for key, part in (("steps_saved", gone), ("steps_total", lines))
    )
    seconds = sum(line["seconds_saved"] for line in gone)
    more = [f"and {len(gone) - NAMED} more"] if len(gone) > NAMED else []
    names = {f"{would}stopped": "; ".join([*map(_stopped, gone[:NAMED]), *more])} if gone else {}
    return {
        "guard": (
            f"{count[UNSAFE]} unsafe and {count[UNCHECKED]} unchecked {would}stopped, "
            f"{count[SAFE]} passed"
        ),
        **names,
        "saved": f"{steps} of {total} steps {would}saved, about {seconds:.1f} s; and "
        f"{plural(len(gone), 'video')} not decoded",
    }


def _stopped(line):
    """What one video was stopped for, and how soon: of its line."""
    why = (
        UNCHECKED
        if line["verdict"] == UNCHECKED
        else " and ".join(line.get("categories") or [UNSAFE])
    )
    when = (
        "at the end"
        if line["step"] is None
        else f"after {line['step'] + 1} of {plural(line['steps_total'], 'step')}"
    )
    return f"{line['video']} {why}, {when}"
