"""Notes of what each page was made, so that pages of different settings are told apart."""

import json

from lvd.errors import InputError
from lvd.utils.files import load_json, save_json

NAME = "pages.json"
UNKNOWN = "not known"


class MadeOf:
    """The settings of each page of a folder. A damaged note counts as none.

    Args:
        folder: of the pages.
        settings: plain values by key: of this run.
    """

    def __init__(self, folder, settings):
        self._path = folder / NAME
        self._settings = json.loads(json.dumps(settings))
        self._known = _read(self._path)

    def forget(self, letter):
        """Note that a page is being written: until it is there, nobody knows of what it is."""
        self._known.pop(letter, None)
        save_json(self._known, self._path)

    def note(self, letter):
        """Note that a page is of these settings."""
        self._known[letter] = self._settings
        save_json(self._known, self._path)

    def others(self, letters):
        """Return {letter: keys that differ} of the pages that are of other settings."""
        found = {letter: self._differences(letter) for letter in letters}
        return {letter: text for letter, text in found.items() if text}

    def _differences(self, letter):
        made = self._known.get(letter)
        if not isinstance(made, dict):
            return UNKNOWN
        keys = [*self._settings, *(key for key in made if key not in self._settings)]
        return ", ".join(key for key in keys if made.get(key) != self._settings.get(key))


def _read(path):
    if not path.is_file():
        return {}
    try:
        content = load_json(path)
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}
