"""Where an archive comes from: the benchmark's archives folder, then the mirrors, then its published addresses.

A copy that is there but wrong is an error that says so, never a reason to quietly take the next source: whoever put it
there should know.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from gald.datasets._spec import Archive
from gald.download.archives import verify
from gald.download.login import Account
from gald.download.part import Part, SourceError
from gald.download.transfer import transfer
from gald.download.web import shown
from gald.errors import ArchiveError

MIRROR = "GALD_MIRROR"
"""Environment variable: folders, or URLs of such, that hold archives by file name; several are parted by blanks.

Folders are looked into before any URL is asked.
"""
OFFLINE = "GALD_OFFLINE"
"""Environment variable: when set, and not to 0, nothing is asked of the network."""
_DELETE = "delete it and run the command again"
_TELL_FROM = 1 << 30
"""Bytes of a copy whose verification takes more than a moment, and is told."""

_log = logging.getLogger("gald")


class Fetched(NamedTuple):
    """A verified copy, and where it came from: "mirror", "by hand", "drawn", or a URL. Never a local path."""

    path: Path
    source: str
    sha256: str
    remedy: str


def offline() -> bool:
    """Whether the network is not to be asked."""
    return os.environ.get(OFFLINE, "0") not in ("", "0")


def mirrors() -> tuple[Path | str, ...]:
    """Return the mirrors in order, each a folder or a URL.

    Raises
    ------
    ArchiveError
        One is neither a URL of a known kind nor a folder that exists.
    """
    value = os.environ.get(MIRROR, "").strip()
    found: list[Path | str] = []
    for entry in [value] if value and Path(value).is_dir() else value.split():
        try:
            scheme = urlsplit(entry).scheme
        except ValueError:
            raise ArchiveError(f"{MIRROR} holds what is neither a folder nor a URL; mend it, or unset it") from None
        if scheme in ("http", "https", "ftp"):
            found.append(entry.rstrip("/"))
            continue
        if scheme != "file" and "://" in entry:  # not repeated, since it may hold a password
            raise ArchiveError(f"{MIRROR} holds a URL that is none of http, https, ftp and file; mend it, or unset it")
        folder = Path(url2pathname(urlsplit(entry).path)) if scheme == "file" else Path(entry)
        if not folder.is_dir():
            raise ArchiveError(f"{MIRROR} names {folder}, which is no folder; create it, or unset {MIRROR}")
        found.append(folder)
    return tuple(found)


def here(archive: Archive, folder: Path) -> Path | None:
    """Return the copy that is at hand, not yet verified: in the archives folder, or in a mirror that is a folder."""
    folders = [folder, *(mirror for mirror in mirrors() if isinstance(mirror, Path))]
    return next((place / archive.name for place in folders if (place / archive.name).is_file()), None)


def fetch(archive: Archive, folder: Path, account: Account | None, stop: threading.Event) -> Fetched | None:
    """Find or download one archive.

    Parameters
    ----------
    archive : Archive
        What to get.
    folder : Path
        The benchmark's archives folder, which exists: copies laid there by hand are taken, and downloads go there.
    account : Account or None
        Of the archive's host, if it asks for a login and there are user name and password.
    stop : Event
        Ends a download; what has arrived stays.

    Returns
    -------
    Fetched or None
        None if a person must get it: it has no address, or one behind a login that we have no words for.

    Raises
    ------
    ArchiveError
        A copy is not the published file.
    SourceError
        No source delivers; what has arrived stays for the next command.
    OSError
        The disk is full or read-only.
    """
    local = here(archive, folder)
    if local is not None:
        copy = _at_hand(local, archive, in_mirror=local.parent != folder)
        Part(folder, archive.name).drop()  # begun before the copy was laid there
        return copy
    failures: list[str] = []
    addresses = [(f"{mirror}/{archive.name}", "mirror") for mirror in mirrors() if isinstance(mirror, str)]
    if account is not None or archive.login is None:
        addresses += [(url, url) for url in archive.urls]
    for url, source in addresses:
        if offline():
            failures.append(f"{shown(url)}: not asked, since {OFFLINE} is set")
            continue
        for_login = account if source != "mirror" else None
        download = _downloaded(url, source, archive, folder, for_login, stop, failures)
        if download is not None:
            return download
    if failures:
        raise SourceError(f"{archive.name} cannot be downloaded: {'; '.join(dict.fromkeys(failures))}")
    return None


def _at_hand(local: Path, archive: Archive, *, in_mirror: bool) -> Fetched:
    """Take a copy that is there, once it is verified."""
    remedy = f"replace it, or unset {MIRROR}" if in_mirror else _DELETE
    if local.stat().st_size > _TELL_FROM:
        _log.info("%s: verifying the copy that is there", archive.name)
    digest = verify(local, archive, remedy)
    if in_mirror:
        return Fetched(local, "mirror", digest, remedy)
    note = _note(local)
    return Fetched(local, note.read_text().strip() if note.is_file() else "by hand", digest, remedy)


def _note(local: Path) -> Path:
    """File beside a download that remembers its source, so that a rerun writes the same raw.json."""
    return local.with_name(f".{local.name}.source")


def _downloaded(
    url: str,
    source: str,
    archive: Archive,
    folder: Path,
    account: Account | None,
    stop: threading.Event,
    failures: list[str],
) -> Fetched | None:
    """Try one address; on failure note why."""
    _log.info("%s: downloading %s", archive.name, shown(url))
    try:
        digest = transfer(url, archive, folder, account, stop)
    except SourceError as error:
        failures.append(str(error))
        _log.warning("%s cannot be had there: %s", archive.name, error)
        return None
    local = folder / archive.name
    _note(local).write_text(f"{source}\n")
    Part(folder, archive.name).finish(local)
    return Fetched(local, source, digest, _DELETE)
