"""How a page shows clips: inside itself, or as files that it links to."""

import base64
import os
import shutil
from pathlib import Path
from urllib.parse import quote

from lvd.data.finished_clips import CLIP_KINDS
from lvd.utils.partials import atomic

NEAR = 2  # folders that a link may go up


def inlined(path):
    """Return a clip as a data URI."""
    kind = CLIP_KINDS[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


class LinkedClips:
    """Links from a page to clips.

    A clip near the page is linked where it is. From elsewhere it is copied into a folder beside the
    page, so that the two can be moved together.

    Args:
        page: path of the page.

    Attributes:
        folder: of the copies.
        copied: how many clips were copied.
    """

    def __init__(self, page):
        self._page = Path(page).resolve().parent
        self.folder = self._page / f"{Path(page).stem}_files"
        self.copied = 0

    def link(self, path, name):
        """Return the link to a clip.

        Args:
            path: of the clip.
            name: what a copy is called, without its suffix.
        """
        relative = os.path.relpath(Path(path).resolve(), self._page)
        if Path(relative).parts.count("..") <= NEAR:
            return _address(relative)
        copy = self.folder / f"{name}{path.suffix}"
        if not _same(path, copy):
            with atomic(copy, durable=False) as partial:
                shutil.copyfile(path, partial)
        self.copied += 1
        return _address(os.path.relpath(copy, self._page))


def _address(relative):
    """A relative path as an address: the dot keeps a colon in it from naming a protocol."""
    return "./" + quote(Path(relative).as_posix())


def _same(path, copy):
    if not copy.is_file():
        return False
    return path.stat().st_size == copy.stat().st_size and path.read_bytes() == copy.read_bytes()
