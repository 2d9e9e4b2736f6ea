"""Files of ratings: which kind one is, and whose ratings count."""

import os
from datetime import datetime, timezone
from pathlib import Path

from lvd.errors import InputError, shorten
from lvd.utils.files import load_json, read_text
from lvd.utils.parsing import parse_json
from lvd.utils.schema import Name, Schema, checked
from lvd_labels.categories import SEPARATOR, plain
from lvd_labels.label_studio import CHOICES
from lvd_labels.names import NAME_COLUMNS, column_of, find_video, read_columns
from lvd_labels.ratings import BLANK, SKIPPED, RaterName, Rating, answer_of
from lvd_labels.read_tasks import choices_of, ratings_of_json

RATERS = ("rater", "annotator")
LONGEST_NAME = 100  # of a rater
MOST_RATINGS = 2_000_000
LAST = "last"
NO_ANSWERS = (SKIPPED, BLANK)  # who skips a video may answer later


class Line(Schema):
    """A line of JSON lines."""

    video: Name
    rater: RaterName = None
    categories: list[str]


def read_ratings(paths, videos, twice="refuse", raters_from_files=False):
    """Read the ratings of all files, at most one for each video and rater.

    Args:
        paths: of the files.
        videos: Videos of the recording.
        twice: "refuse", or "last": of two ratings of a video by the same rater, the later one
            counts; where one of them has no time, the one that stands later.
        raters_from_files: whether each file is of one rater, who is named as the file.

    Returns:
        ([Rating], how many were replaced by later ones, the files without ratings).

    Raises:
        InputError: naming file and line or task, for anything that cannot be used.
    """
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise InputError(f"{shorten([str(path) for path in paths])}: a file is named twice")
    if raters_from_files and len({_folded(path.stem) for path in paths}) < len(paths):
        raise InputError("--raters_from_files: two files have the same name")
    counting, replaced, empty = {}, 0, []
    spelled = {}  # rater, folded → name as it stands first
    for path in paths:
        ratings = _read(path)
        if not ratings:
            empty.append(path)
        for rating in ratings:
            if raters_from_files:
                rating.rater = path.stem
            _need_rater(rating)
            rating.rater = spelled.setdefault(_folded(rating.rater), rating.rater)
            try:
                rating.video = find_video(rating.video, videos)
            except ValueError as error:
                raise InputError(f"{rating.where}: {error}") from None
            replaced += _enter(rating, counting, twice)
        if len(counting) > MOST_RATINGS:
            raise InputError(f"{path}: more than {MOST_RATINGS} ratings")
    if not counting:
        raise InputError(f"{paths[0]}: no ratings in it{' and the others' * (len(paths) > 1)}")
    return list(counting.values()), replaced, empty


def _enter(rating, counting, twice):
    """Let a rating count, if it does.

    Args:
        rating: Rating.
        counting: {(video, rater): Rating} of those that count so far.
        twice: see `read_ratings`.

    Returns:
        Whether two answers of this rater to this video were given, of which one counts.
    """
    key = rating.video, rating.rater
    before = counting.get(key)
    if before is None or before.answer.no_judgement in NO_ANSWERS:
        counting[key] = rating
        return False
    if rating.answer.no_judgement in NO_ANSWERS:
        return False
    _need_last(before, rating, twice)
    if _is_later(rating, before):
        counting[key] = rating
    return True


def _need_rater(rating):
    name = rating.rater.strip()
    if not name:
        raise InputError(
            f"{rating.where}: no rater; a name is needed, or --raters_from_files where each file "
            "is of one rater"
        )
    if len(name) > LONGEST_NAME or set(name) & set('<>"\\') or name[0] in "=+@-":
        raise InputError(
            f"{rating.where}: rater {shorten(name)}: a name of at most {LONGEST_NAME} characters "
            'without < > " \\ is needed, that begins with none of = + @ -'
        )
    rating.rater = name


def _need_last(before, rating, twice):
    if twice != LAST:
        raise InputError(
            f"{rating.where}: rater {shorten(rating.rater)} has rated video "
            f"{shorten(rating.video)} before ({before.where}); --twice last takes the last one, "
            "--raters_from_files tells raters of different files apart"
        )


def _folded(rater):
    """A rater's name as it is compared: Ann and ann are one person, who has one vote."""
    return plain(rater).casefold()


def _is_later(rating, before):
    """Whether a rating is later than one that stands before it; so it is where one has no time."""
    if not rating.time or not before.time:
        return True
    return _moment(rating) >= _moment(before)


def _moment(rating):
    try:
        moment = datetime.fromisoformat(rating.time.replace("Z", "+00:00"))
    except ValueError:
        raise InputError(
            f"{rating.where}: time {shorten(rating.time)}; to tell the last rating, times such as "
            "2024-05-17T09:30:00Z are needed"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _read(path):
    """Return the [Rating] of one file."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return ratings_of_json(load_json(path), path)
    if suffix in (".jsonl", ".ndjson"):
        return _of_lines(path)
    if suffix in (".csv", ".tsv", ".txt", ".xlsx"):
        return _of_table(path)
    raise InputError(f"{path}: files of ratings end in .json, .jsonl, .csv, .tsv or .xlsx")


def _of_lines(path):
    ratings = []
    for number, text in enumerate(read_text(path).split("\n"), 1):  # a text may hold U+2028
        if text.strip():
            where = f"{path}: line {number}"
            line = checked(Line, parse_json(text, where), where)
            rater = line.get("rater")
            rater = "" if rater is None else str(rater)
            ratings.append(Rating(line["video"], rater, answer_of(line["categories"]), where=where))
    return ratings


def _of_table(path):
    columns, lines = read_columns(path)
    video = column_of(columns, NAME_COLUMNS, path)
    chosen = column_of(columns, (CHOICES, "category"), path)
    rater = _maybe(columns, RATERS, path)
    time = _maybe(columns, ("updated_at", "created_at"), path)
    digest = _maybe(columns, ("video_sha256",), path)
    ratings = []
    for line, cells in lines:
        where = f"{path}: line {line}"
        if not cells[chosen]:
            continue  # not judged, as most lines of a sheet that is half filled in
        ratings.append(
            Rating(
                video=checked(Name, cells[video], f"{where}, column {columns[video]}"),
                rater=cells[rater] if rater is not None else "",
                answer=answer_of(_choices(cells[chosen], where)),
                time=cells[time] if time is not None else "",
                digest=cells[digest] or None if digest is not None else None,
                where=where,
            )
        )
    return ratings


def _maybe(columns, names, path):
    """The place of the first of some columns, None without one."""
    return column_of(columns, names, path) if set(names) & set(columns) else None


def _choices(cell, where):
    """The choices in a cell: "warped; striped", or as Label Studio's CSV exports write them."""
    if cell.lstrip().startswith(("{", "[")):
        return choices_of(cell, where)
    text = cell.replace("|", SEPARATOR).replace(",", SEPARATOR)
    return text.split(SEPARATOR)


def need_same_files(ratings, videos):
    """Check that raters saw the videos that the recording has.

    Args:
        ratings: [Rating].
        videos: Videos.

    Returns:
        How many videos could not be checked: nobody says what was seen, or the file is gone.

    Raises:
        InputError: a video is another one now.
    """
    seen = {}
    for rating in ratings:
        seen.setdefault(rating.video, set()).add(rating.digest)
    digests = videos.digests([name for name in seen if seen[name] != {None}])
    unchecked = 0
    for name, shown in seen.items():
        now = digests.get(name)
        if now is None:
            unchecked += 1
        elif others := shown - {None, now}:
            raise InputError(
                f"--recording: video {shorten(name)} is not the one that raters saw "
                f"({min(others)[:20]} then, {now} now); name the recording that was exported"
            )
    return unchecked
