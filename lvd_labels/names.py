"""Videos by name: in tables that people write, a name may come with a folder or a suffix."""

from urllib.parse import unquote

from lvd.data.finished_clips import CLIP_KINDS
from lvd.errors import InputError, shorten
from lvd.utils.tables import read_table

NAME_COLUMNS = ("video_name", "video")  # the first that a table has


def find_video(text, videos):
    """Return the name of a video as the recording knows it.

    Args:
        text: "0003", "0003.mp4", "videos/0003.mp4", or the address of a task.
        videos: Videos.

    Raises:
        ValueError: the recording has no such video.
    """
    name = text.strip()
    if name in videos.rows:
        return name
    last = unquote(name.rpartition("?d=")[2]).replace("\\", "/").rpartition("/")[2]
    for suffix in ("", *CLIP_KINDS):
        stem = last.removesuffix(suffix)
        if stem in videos.rows:
            return stem
    known = next(iter(videos.rows))
    raise ValueError(
        f"video {shorten(name)} is none of the recording's {len(videos.rows)} in {videos.folder} "
        f"(its first is {shorten(known)})"
    )


def without_suffix(name):
    """Return a name without the suffix of a video."""
    suffix = next((suffix for suffix in CLIP_KINDS if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


def read_columns(path):
    """Read a table of videos or ratings.

    Args:
        path: of the file.

    Returns:
        ([column name in small letters], [(line, [cell, ...])] without blank lines).

    Raises:
        InputError: it is no such table, or a line is shorter than the header.
    """
    table = read_table(path, "a header and a line for each video or rating")
    columns = [cell.lower() for cell in table[0][1]]
    for line, cells in table[1:]:
        if len(cells) != len(columns):
            raise InputError(
                f"{path}: line {line} has {len(cells)} cells, the header has {len(columns)}"
            )
    return columns, table[1:]


def column_of(columns, names, path):
    """Return the place of the first of some columns.

    Raises:
        InputError: none is there, or it is there twice.
    """
    for name in names:
        if columns.count(name) > 1:
            raise InputError(f"{path}: two columns are named {name} (line 1)")
        if name in columns:
            return columns.index(name)
    needed = " or ".join(names)
    found = ", ".join(columns)[:80]
    raise InputError(f"{path}: no column {needed} in the header, found {found}")


def names_of_file(path, videos):
    """Read the videos that a table names, such as unlabelled.csv, each once.

    Raises:
        InputError: it names none, or one that the recording does not have.
    """
    columns, lines = read_columns(path)
    place = column_of(columns, NAME_COLUMNS, path)
    names = {}
    for line, cells in lines:
        try:
            names[find_video(cells[place], videos)] = line
        except ValueError as error:
            raise InputError(f"{path}: line {line}: {error}") from None
    if not names:
        raise InputError(f"{path}: names no video")
    return sorted(names, key=videos.rows.get)
