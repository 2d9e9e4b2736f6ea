"""weights.yaml as objects: a weight's files, where they go, and where the hub has them."""

from dataclasses import dataclass, field
from pathlib import Path

from lvd.errors import InputError, shorten
from lvd.utils.config import check_keys
from lvd.utils.files import load_yaml
from MagicTime.prepare_weights.hub import HASH, PUBLIC

MANIFEST = Path(__file__).with_name("weights.yaml")
WEIGHT_KEYS = ("what", "licence", "needed_by", "folder", "sources", "files")
FILE_KEYS = ("size", "hash", "about")
SOURCE_KEYS = ("repository", "revision", "kind", "folder", "names")
GROUPS = {"dreambooth": ("realisticvision", "toonyou", "rcnzcartoon")}


@dataclass(frozen=True)
class File:
    """A file of a weight.

    Attributes:
        name: its path below the weight's folder.
        here: its path below --dir.
        size: bytes; None where the hub's metadata must say it.
        hash: 64 hex digits (sha256) or 40 (git blob id); None where the hub must say it.
        about: bytes to plan with when the size is not known.
    """

    name: str
    here: str
    size: int | None = None
    hash: str | None = None
    about: int = 0


@dataclass(frozen=True)
class Source:
    """A place on the hub: a repository's folder at one revision.

    Attributes:
        repository: owner/name.
        revision: commit.
        kind: model, space or dataset.
        folder: in the repository.
        names: {our name of a file: theirs}, where they differ.
    """

    repository: str
    revision: str
    kind: str = "model"
    folder: str = ""
    names: dict = field(default_factory=dict)

    def path(self, name):
        """Return where the repository has our file `name`."""
        return "/".join(part for part in (self.folder, self.names.get(name, name)) if part)

    @property
    def page(self):
        """Return its address on the public hub."""
        return f"{PUBLIC}/{self._where}"

    @property
    def _where(self):
        return f"{'' if self.kind == 'model' else self.kind + 's/'}{self.repository}"

    def __str__(self):
        return f"{self._where} @ {self.revision[:8]}"


@dataclass(frozen=True)
class Weight:
    """An entry of weights.yaml."""

    name: str
    what: str
    licence: str
    needed_by: tuple
    folder: str
    sources: tuple
    files: tuple


def read_manifest(path=MANIFEST):
    """Read {name: Weight} of weights.yaml, in its order."""
    entries = load_yaml(path)
    check_keys(entries, entries, (), path)
    weights = {}
    for name, entry in entries.items():
        check_keys(entry, WEIGHT_KEYS, WEIGHT_KEYS, f"{path} ({name})")
        for file, facts in entry["files"].items():
            check_file(f"{entry['folder']}/{file}", facts, path)
        for source in entry["sources"]:
            check_keys(source, SOURCE_KEYS, ("repository", "revision"), f"{path} ({name}, sources)")
        files = tuple(
            File(file, f"{entry['folder']}/{file}", **facts)
            for file, facts in entry["files"].items()
        )
        sources = tuple(Source(**source) for source in entry["sources"])
        weights[name] = Weight(
            name,
            entry["what"],
            entry["licence"],
            tuple(entry["needed_by"]),
            entry["folder"],
            sources,
            files,
        )
    return weights


def check_file(here, facts, path):
    """InputError unless a file lies below --dir, with a size and a hash that can be."""
    where = f"{path} ({here})"
    check_keys(facts, FILE_KEYS, (), where)
    if here.startswith("/") or {"", ".", ".."} & set(here.split("/")):
        raise InputError(f"{where}: a path below --dir is needed")
    size = facts.get("size")
    digest = facts.get("hash")
    if size is not None and (type(size) is not int or size < 0):
        raise InputError(f"{where}: size={shorten(size)}, a number of bytes is needed")
    if digest is not None and not HASH.fullmatch(str(digest)):
        raise InputError(
            f"{where}: hash={shorten(digest)}, 64 hexadecimal digits (sha256) or 40 (git blob id) "
            "are needed"
        )


def choose(names, weights):
    """Return the Weights that `--what` names, once each, in the manifest's order."""
    groups = {
        **{name: (name,) for name in weights},
        "all": tuple(weights),
        **{name: members for name, members in GROUPS.items() if set(members) <= set(weights)},
    }
    for name in names:
        if name not in groups:
            raise InputError(f"--what {name}: one or more of {', '.join(groups)} are needed")
    wanted = {member for name in names for member in groups[name]}
    return [weight for name, weight in weights.items() if name in wanted]
