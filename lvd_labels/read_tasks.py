"""Ratings in Label Studio's JSON exports.

A JSON export is a list of tasks with annotations; a JSON-MIN export is a list of annotations.

Source: https://labelstud.io/guide/export
"""

import json
from typing import Annotated, Any

from pydantic import BeforeValidator

from lvd.errors import InputError, shorten
from lvd.utils.schema import Name, OneLine, Schema, checked
from lvd_labels.label_studio import CHOICES
from lvd_labels.ratings import RaterName, Rating, answer_of


class Data(Schema, extra="allow"):
    """What is shown of a task."""

    video: OneLine | None = None
    video_name: Name | None = None
    video_sha256: Name | None = None


def _user(value):
    """The name in what some exports say of a user."""
    return value.get("email") or value.get("id") if isinstance(value, dict) else value


User = Annotated[RaterName, BeforeValidator(_user)]


class Result(Schema, extra="allow"):
    """An answer."""

    from_name: OneLine | None = None
    value: dict[str, Any] = {}


class Annotation(Schema, extra="allow"):
    """What a rater submitted for a task."""

    completed_by: User = None
    result: list[Result] = []
    was_cancelled: bool = False
    created_at: OneLine | None = None
    updated_at: OneLine | None = None


class Task(Schema, extra="allow"):
    """A video, with its annotations."""

    data: Data
    annotations: list[Annotation] = []


class Answer(Schema, extra="allow"):
    """An entry of a JSON-MIN export."""

    video: OneLine | None = None
    video_name: Name | None = None
    video_sha256: Name | None = None
    annotator: User = None
    created_at: OneLine | None = None
    updated_at: OneLine | None = None


def ratings_of_json(content, path):
    """Read an export.

    Args:
        content: of the file, parsed.
        path: of the file.

    Returns:
        [Rating]. Of a task that a rater has skipped, it says so.

    Raises:
        InputError: it is no export, or has no answers to the question of the labelling page.
    """
    if not isinstance(content, list):
        raise InputError(
            f"{path}: found a {type(content).__name__}, a list of tasks is needed: Label Studio's "
            "export as JSON"
        )
    if content and all(isinstance(one, dict) and "data" in one for one in content):
        return _of_tasks(checked(list[Task], content, path), path)
    return _of_answers(checked(list[Answer], content, path), path)


def _of_tasks(tasks, path):
    ratings, asked = [], set()
    for place, task in enumerate(tasks):
        for annotation in task.get("annotations", []):
            results = annotation.get("result", [])
            asked |= {result.get("from_name") for result in results}
            chosen = [result for result in results if result.get("from_name") == CHOICES]
            where = f"{path}: task {place} (from 0)"
            choices = [one for result in chosen for one in _choices(result["value"], where)]
            ratings.append(
                Rating(
                    video=_video(task["data"], where),
                    rater=_rater(annotation.get("completed_by")),
                    answer=answer_of(choices, annotation.get("was_cancelled", False)),
                    time=_time(annotation),
                    digest=task["data"].get("video_sha256"),
                    where=where,
                )
            )
    if asked and CHOICES not in asked:
        raise InputError(
            f"{path}: no answers to '{CHOICES}', but to {shorten(sorted(map(str, asked)))}; the "
            "labelling page of label_videos.py export is needed"
        )
    return ratings


def _of_answers(entries, path):
    ratings = []
    for place, entry in enumerate(entries):
        where = f"{path}: entry {place} (from 0)"
        if CHOICES not in entry and "annotator" not in entry:
            raise InputError(f"{where}: neither '{CHOICES}' nor 'annotator'; is this an export?")
        ratings.append(
            Rating(
                video=_video(entry, where),
                rater=_rater(entry.get("annotator")),
                answer=answer_of(choices_of(entry.get(CHOICES), where)),
                time=_time(entry),
                digest=entry.get("video_sha256"),
                where=where,
            )
        )
    return ratings


def choices_of(value, where):
    """Return the choices of JSON-MIN and of CSV exports: "warped", or {"choices": ["warped", ...]}.

    A CSV holds the latter as a text.
    """
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError(f"{where}: {CHOICES}: {shorten(value)} is not valid JSON") from None
    if isinstance(value, str):
        return [value]
    return _choices({"choices": value} if isinstance(value, list) else value, where)


def _choices(value, where):
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
        raise InputError(f"{where}: {CHOICES}: found {shorten(value)}; a list of choices is needed")
    return choices


def _video(data, where):
    name = data.get("video_name") or data.get("video")
    if not name:
        raise InputError(f"{where}: neither video_name nor video says which video it is")
    return name


def _rater(user):
    name = _user(user)
    return "" if name is None else str(name)


def _time(annotation):
    return annotation.get("updated_at") or annotation.get("created_at") or ""
