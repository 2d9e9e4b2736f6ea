"""Bring a dataset of build_x0.py up to date in place, when its label file was corrected or its
recordings have grown.

The order keeps a killed run harmless. First built.json says that no step is whole, so that nothing
reads the dataset. Clips are linked into their new folders, those that belong nowhere are deleted,
and config.yaml gets the new state. Then the missing clips are written as in any run.
"""

import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path

from lvd.data.clip_file import link_clip, list_clips
from lvd.data.clip_folders import BUILT, NORMAL, group_name, step_folders
from lvd.errors import InputError, plural
from lvd.utils.changes import noun_of, what_changed
from lvd.utils.config import claim_output
from lvd.utils.files import load_json, load_yaml, save_json, save_yaml
from lvd.utils.locks import try_lock
from lvd.utils.progress import progress

CONFIG = "config.yaml"
MAY_CHANGE = ("label_sha256", "categories", "pred_x0_made_by", "normal_pred_x0_made_by")


@contextmanager
def only_run(out):
    """Let one build_x0.py at a time write a dataset: one of older labels would put back clips that
    another one has moved.

    Args:
        out: the dataset's folder.

    Raises:
        InputError: another one writes it.
    """
    out = Path(out)
    with suppress(OSError):  # told by what writes into it
        out.mkdir(parents=True, exist_ok=True)
    if not out.is_dir():
        yield
        return
    handle = os.open(out, os.O_RDONLY)
    try:
        locked = None
        with suppress(OSError):  # no locks of folders here
            locked = try_lock(handle)
        if locked is False:
            raise InputError(f"{out}: another build_x0.py writes here; wait for it or stop it")
        yield
    finally:
        os.close(handle)


class DatasetUpdate:
    """What has to change in a dataset's folder before its missing clips are written.

    Args:
        out: the dataset's folder.
        identity: what the dataset is made from now, as `claim_output` saves it.
        recordings: {key of the identity: X0File or None}.
        homes: {"unsafe" or "normal": {row: [folder name, ...]}} of all clips there shall be.
        ignore: keys of the identity that may differ.

    Raises:
        InputError: the folder was made from something else than an earlier state of these.
    """

    def __init__(self, out, identity, recordings, homes, ignore):
        self.out, self.identity, self.homes = Path(out), identity, homes
        self.before = _saved(self.out / CONFIG)
        if self.before is not None:
            self._need_same_set(recordings, ignore)
        now = {key: identity.get(key) for key in MAY_CHANGE}
        there = {key: (self.before or now).get(key) for key in MAY_CHANGE}
        self.is_needed = self.before is not None and (there != now or self._was_broken_off())

    def _need_same_set(self, recordings, ignore):
        claim_output(self.out, self.identity, CONFIG, (*ignore, *MAY_CHANGE))
        for key, x0 in recordings.items():
            known = x0.fingerprints if x0 else [None]
            there = self.before.get(key)
            if there in known:
                continue
            changed = f"{x0.path} is another {noun_of(key)}" if x0 and there else ""
            raise InputError(
                f"{self.out / CONFIG}: after this folder was made, "
                f"{changed or what_changed(key, there, x0)}; use another folder or delete this one"
            )
        if self.before.get("label_sha256") != self.identity["label_sha256"]:
            there, now = self.before.get("label_file_dir"), self.identity["label_file_dir"]
            if there is None or Path(there).resolve() != Path(now).resolve():
                raise InputError(
                    f"{self.out / CONFIG}: made with another label file ({there}) than {now}; use "
                    "another folder, or put the corrected file in the old one's place"
                )

    def _was_broken_off(self):
        note = self.out / BUILT
        content = load_json(note) if note.exists() else {}
        return isinstance(content, dict) and content.get("updating") is True

    def changes(self):
        """Return what changes, in words: "3 rows changed category, 2 new"; "" for nothing."""
        names = self.before.get("categories") or []
        there = {
            row: {names[k] if k < len(names) else group_name(k + 1) for k in groups}
            for row, groups in self._groups_there().items()
        }
        now = self.identity["categories"]
        here = {
            row: {now[int(folder.removeprefix("group")) - 1] for folder in folders}
            for row, folders in self.homes["unsafe"].items()
        }
        moved = sum(there[row] != here[row] for row in there.keys() & here.keys())
        parts = [f"{plural(moved, 'row')} changed category"] if moved else []
        for count, word in (
            (len(here.keys() - there.keys()), "new"),
            (len(there.keys() - here.keys()), "no longer labelled"),
        ):
            parts += [f"{count} {word}"] if count else []
        normal = set(self._rows_there(NORMAL)) ^ set(self.homes["normal"])
        if normal:
            parts.append(f"{plural(len(normal), 'normal video')} more")
        return ", ".join(parts)

    def apply(self):
        """Link clips into their new folders, delete those that belong nowhere, note the state."""
        videos = {folder.name: 0 for folder in self._folders()}
        save_json({"steps": [], "videos": videos, "updating": True}, self.out / BUILT)
        steps = sorted({step for folder in self._folders() for step in step_folders(folder)})
        for step in progress(steps, "clips in their new folders", unit="step"):
            self._link(step)
            for folder in self._folders():
                self._delete(folder, step)
        for folder in self._folders():
            if not step_folders(folder):
                _remove(folder)
        save_yaml(self.identity, self.out / CONFIG)

    def _folders(self):
        """The folders of categories and of normal videos that are there."""
        named = [path for path in self.out.iterdir() if re.fullmatch(r"group[1-9]\d*", path.name)]
        return [path for path in (*sorted(named), self.out / NORMAL) if path.is_dir()]

    def _rows_there(self, name):
        """The rows that a folder has clips of, at any step."""
        folder = self.out / name
        return {row for step in step_folders(folder) for row in list_clips(folder / str(step))}

    def _groups_there(self):
        """{row: {number of a category from 0}} of the clips that are there."""
        groups = {}
        for folder in self._folders():
            if folder.name != NORMAL:
                for row in self._rows_there(folder.name):
                    groups.setdefault(row, set()).add(int(folder.name.removeprefix("group")) - 1)
        return groups

    def _clips(self, folder, step):
        place = folder / str(step)
        return list_clips(place) if place.is_dir() else {}

    def _link(self, step):
        """Link a row's clip into all folders where it belongs, from one where it is."""
        there = {}
        for folder in self._folders():
            if folder.name != NORMAL:
                there |= self._clips(folder, step)
        for row, folders in self.homes["unsafe"].items():
            for name in folders if row in there else ():
                target = self.out / name / str(step) / there[row].name
                if not target.exists():
                    link_clip(there[row], target)

    def _delete(self, folder, step):
        kind = "normal" if folder.name == NORMAL else "unsafe"
        clips = self._clips(folder, step)
        for row, path in clips.items():
            if folder.name not in self.homes[kind].get(row, ()):
                path.unlink()
        if (folder / str(step)).is_dir() and not self._clips(folder, step):
            _remove(folder / str(step))


def _saved(path):
    """The identity that a dataset was saved with, or None. `claim_output` refuses a damaged one."""
    content = load_yaml(path) if path.exists() else None
    return content if isinstance(content, dict) else ({} if path.exists() else None)


def _remove(folder):
    """Remove a folder that holds nothing but temporary files of killed runs."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            with suppress(FileNotFoundError):
                path.unlink()
    try:
        folder.rmdir()
    except OSError as error:
        raise InputError(
            f"{folder}: belongs to no category any more, and holds more than clips; move it away"
        ) from error
