"""The Hugging Face hub: what it says about a file, and the file's bytes, resumed after a stop.

huggingface_hub sends the requests, so HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and proxies count as
everywhere. Its own hf_hub_download deletes a partial file when it fails, and starts again from
nothing after a kill; for gigabytes this costs too much. So its http_get is called with a partial
file of ours.
"""

import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass

from lvd.errors import InputError
from lvd.utils.disk import naming

PUBLIC = "https://huggingface.co"
HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
GO_ON = "run the same command again to go on"


class NotReached(InputError):
    """The hub does not answer at all."""


class Unavailable(Exception):
    """A source that cannot give the files; the message says why."""


class NoAccess(Unavailable):
    """A source that gives its files to some people only."""


@dataclass(frozen=True)
class Remote:
    """A file on the hub.

    Attributes:
        url: of its bytes.
        source: manifest.Source.
        path: in the source's repository.
        revision: commit.
        size: bytes, or None.
        hashes: all that are known of its bytes (sha256 or git blob id).
    """

    url: str
    source: object
    path: str
    revision: str
    size: int | None
    hashes: tuple

    @property
    def token(self):
        """Return twelve digits that change with the file's content."""
        return hashlib.sha256(
            "".join(self.hashes or (self.url, self.revision)).encode()
        ).hexdigest()[:12]


def dataset_info(repository, revision):
    """Ask the hub about a dataset.

    Args:
        repository: owner/name.
        revision: branch, tag or commit.

    Returns:
        huggingface_hub's DatasetInfo: `sha` is the commit, `siblings` are the files.

    Raises:
        Unavailable: there is none, or not for this user.
        InputError: the hub is not reached.
    """
    address = endpoint()
    from huggingface_hub import HfApi

    with translated():
        return HfApi(endpoint=address).dataset_info(repository, revision=revision)


def locate(weight, files):
    """Find files of a weight at the first source that has all of them as they are known.

    Returns:
        {file.here: Remote}.
    """
    for place, source in enumerate(weight.sources, 1):
        try:
            return {file.here: _ask(source, file) for file in files}
        except Unavailable as error:
            if place == len(weight.sources):
                see = f"; see {source.page}" if isinstance(error, NoAccess) else ""
                raise InputError(f"{weight.name}: {source}: {error}{see}") from error
            print(f"{weight.name}: {source}: {error}; trying {weight.sources[place]}")


def endpoint():
    """Return the hub's address: HF_ENDPOINT, checked, or the public one."""
    address = os.environ.get("HF_ENDPOINT") or PUBLIC
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[\w./-]*)?", address):
        raise InputError(f"HF_ENDPOINT={address}: a URL such as {PUBLIC} is needed")
    return address.rstrip("/")


def _ask(source, file):
    """Ask for the Remote of one file; Unavailable when the source lacks it or has another one."""
    path = source.path(file.name)
    address = endpoint()
    from huggingface_hub import (  # fails at an HF_ENDPOINT that is no URL
        get_hf_file_metadata,
        hf_hub_url,
    )

    url = hf_hub_url(
        source.repository, path, repo_type=source.kind, revision=source.revision, endpoint=address
    )
    with translated():
        metadata = get_hf_file_metadata(url, endpoint=address)
    etag = metadata.etag if metadata.etag and HASH.fullmatch(metadata.etag) else None
    known = tuple(h for h in (file.hash, etag) if h)
    if file.size is not None and metadata.size not in (None, file.size):
        raise Unavailable(
            f"{path} has {metadata.size} bytes there, the known file has {file.size} (--revision "
            "takes it as it is)"
        )
    if len({h for h in known if len(h) == 64}) > 1 or len({h for h in known if len(h) == 40}) > 1:
        raise Unavailable(
            f"{path} has the hash {etag[:12]}... there, the known file has {file.hash[:12]}... "
            f"(--revision takes it as it is)"
        )
    revision = metadata.commit_hash or source.revision
    url = hf_hub_url(
        source.repository, path, repo_type=source.kind, revision=revision, endpoint=address
    )
    return Remote(
        url,
        source,
        path,
        revision,
        file.size if metadata.size is None else metadata.size,
        tuple(dict.fromkeys(known)),
    )


def fetch(remote, partial, name):
    """Append to a partial file what it lacks of the remote file.

    Args:
        remote: Remote.
        partial: path of the partial file.
        name: of the file, for messages.

    Raises:
        InputError: the hub or the connection failed; what came stays for the next try.
    """
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    have = partial.stat().st_size if partial.exists() else 0
    if remote.size is not None and have > remote.size:
        partial.unlink()
        have = 0
    # Not compressed: byte positions count in the plain file.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    try:
        with naming(partial), open(partial, "ab") as file:
            http_get(
                remote.url,
                file,
                resume_size=have,
                headers=headers,
                expected_size=remote.size,
                displayed_filename=name,
            )
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # a full disk, for example
            raise
        raise InputError(f"{name}: {_why_stopped(error, remote, partial, have)}") from error


def _why_stopped(error, remote, partial, have):
    """Say in one clause why a fetch failed; drops the partial file when it is of no use."""
    came = partial.stat().st_size
    status = _status(error)
    if status == 416 or (remote.size is not None and came > remote.size):
        partial.unlink()
        return (
            f"the hub does not send the {remote.size} bytes that it announced; {GO_ON} (this "
            "file from its start)"
        )
    reason = f"the hub answers {status}" if status else "the connection broke"
    return f"{reason} at byte {max(came, have)} of {remote.size}; {GO_ON}"


@contextmanager
def translated():
    """Turn huggingface_hub's exceptions into Unavailable (this source) or NotReached (the hub)."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise NoAccess("access is gated: accept its terms on the hub and set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise Unavailable("no such revision") from error
    except errors.EntryNotFoundError as error:
        raise Unavailable("no such file there") from error
    except errors.OfflineModeIsEnabled as error:
        raise NotReached(
            "HF_HUB_OFFLINE is set and files are missing; unset it to download them"
        ) from error
    except (errors.HTTPError, OSError) as error:
        status = _status(error)
        if status in (401, 403, 404):
            raise NoAccess(
                f"no such repository, or it needs a token (HF_TOKEN); the hub answers {status}"
            ) from error
        reason = f"answers {status}" if status else f"is not reached ({type(error).__name__})"
        raise NotReached(
            f"{endpoint()} {reason}; check the network, or name a mirror with HF_ENDPOINT"
        ) from error


def _status(error):
    """Return the HTTP status behind an exception; None if the hub did not answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def digests(path, kinds=(64,), progress=None):
    """Hash a file.

    Args:
        path: of the file.
        kinds: numbers of hex digits: 64 for sha256, 40 for git's blob id.
        progress: function that is called with the bytes read.

    Returns:
        {number of hex digits: digest}.
    """
    made = {
        64: hashlib.sha256(),
        40: hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False),
    }
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            for kind in kinds:
                made[kind].update(block)
            if progress:
                progress(len(block))
    return {kind: made[kind].hexdigest() for kind in kinds}


def difference(path, size, hashes, progress=None):
    """Compare a file with its size and hashes.

    Returns:
        (what is wrong, "" if nothing; the file's sha256, None unless it was read).
    """
    bytes_there = path.stat().st_size
    if size is not None and bytes_there != size:
        return f"{bytes_there} bytes, {size} are needed", None
    made = digests(path, tuple({64, *map(len, hashes)}), progress)
    for wanted in hashes:
        if made[len(wanted)] != wanted:
            return f"hash {made[len(wanted)][:12]}..., {wanted[:12]}... is needed", made[64]
    return "", made[64]
