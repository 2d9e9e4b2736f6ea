"""The folder that a run fills: where it lies, who writes into it, and whose results it holds."""

import os
import shutil
from pathlib import Path

from lvd.data.finished_clips import VIDEOS
from lvd.errors import InputError
from lvd.utils.config import claim_output
from lvd.utils.disk import nearest
from lvd.utils.files import load_yaml, save_yaml
from lvd.utils.locks import try_lock
from lvd.utils.partials import sweep_partials
from MagicTime.utils.config import MAGICTIME
from MagicTime.utils.hardware import HARMLESS

# What two runs into one folder may differ in: none of it changes a video (a batch or a kernel only
# to float tolerance).
MAY_DIFFER = ("batch_size", "save_path", "file_path", "format", "versions", *HARMLESS)


def output_folder(config, save_path):
    """Return where a run writes.

    Args:
        config: MagicTime.utils.config.Config; its save_path lies under MagicTime/.
        save_path: --save-path, which lies under the current folder and wins; or None.

    Returns:
        Path. Without either: MagicTime/outputs/{the YAML's name}.
    """
    if save_path:
        return Path(save_path)
    return MAGICTIME / (config.settings.save_path or Path("outputs") / config.path.stem)


class OutputFolder:
    """An output folder. One run at a time writes into it, and all its runs have one config."""

    def __init__(self, path):
        self.path = Path(path)
        self.videos = self.path / VIDEOS
        self.config = self.path / "config.yaml"
        self._lock = None

    def video(self, prompt):
        """Return the path of a prompt's video, without its suffix."""
        return self.videos / prompt.name

    def need_writable(self):
        """Refuse a folder that cannot be made or written."""
        need_writable(self.path, "--save-path")

    def free_bytes(self):
        """Return how many bytes are free on the folder's disk."""
        return shutil.disk_usage(nearest(self.path)).free

    def lock(self):
        """Make the folder and keep other runs out of it until `unlock`, or this process's end."""
        self.videos.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.videos, os.O_RDONLY)
        if try_lock(self._lock) is False:
            self.unlock()
            raise InputError(
                f"{self.path}: another running process is writing into this folder; wait for it "
                "or stop it"
            )
        sweep_partials(self.videos)

    def unlock(self):
        """Let other runs into the folder. Does nothing where this one has no lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def made_with(self):
        """Return the config that the folder was made with; {} where there is none yet."""
        before = load_yaml(self.config) if self.config.exists() else {}
        return before if isinstance(before, dict) else {}  # `claim` refuses another kind

    def claim(self, identity):
        """Save the config as config.yaml, or refuse another one than the folder was made with."""
        claim_output(self.path, identity, ignore=MAY_DIFFER)

    def claim_for_more(self, identity):
        """Save the config with more prompts in the place of that with fewer."""
        save_yaml(identity, self.config)


def need_writable(folder, asked_by):
    """Refuse a folder that cannot be made or written; asked_by: the flag or setting of it."""
    there = nearest(folder)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(
            f"{folder}: cannot be made, {there} is not a folder that may be written ({asked_by})"
        )
