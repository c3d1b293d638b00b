"""Where archives lie or are asked for: the archives folder, the mirrors of the environment, the published addresses.

User name, password and tokens may stand in the address of a mirror. They are sent to it and to nobody else: messages
and files have the address without them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit
from urllib.request import url2pathname

from gald.datasets._spec import Archive
from gald.errors import ArchiveError

MIRROR = "GALD_MIRROR"
"""Environment variable: folders, or URLs of such, that hold archives by file name; several are parted by blanks.

Folders are looked into before any URL is asked.
"""
OFFLINE = "GALD_OFFLINE"
"""Environment variable: whether nothing is to be asked of the network."""
_ON, _OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_MAY_BE_SECRET = "@:?=&"  # an entry with one of these may be an address with its password, but without its scheme


class Address(NamedTuple):
    """One address of a file: as it is asked, as it is shown, and as raw.json names the file's source."""

    url: str
    shown: str
    source: str

    @classmethod
    def published(cls, url: str) -> Address:
        """Take an address of a SPEC, which is known to everybody."""
        return cls(url, url, url)

    @classmethod
    def in_mirror(cls, mirror: str, name: str) -> Address:
        """Put a file's name behind a mirror's path, and so before its query, where storage services want their token.

        Examples
        --------
        >>> Address.in_mirror("https://me:secret@host/data/?sig=token", "a.zip")[:2]
        ('https://me:secret@host/data/a.zip?sig=token', 'https://host/data/a.zip?sig=...')
        """
        parts = urlsplit(mirror)
        url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}", fragment=""))
        return cls(url, shown(url), "mirror")


def shown(url: str) -> str:
    """Return a URL without user name, password, the values of its query, and its fragment: for messages and files.

    Examples
    --------
    >>> shown("https://me:secret@mirror.org:8080/a.zip?version=1&sig=secret#secret")
    'https://mirror.org:8080/a.zip?version=...&sig=...'
    """
    parts = urlsplit(url)
    fields = [field.partition("=") for field in parts.query.split("&")] if parts.query else []
    query = "&".join(f"{name}=..." if equals else "..." for name, equals, _ in fields)
    return urlunsplit(SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def offline() -> bool:
    """Whether the network is not to be asked.

    Raises
    ------
    ArchiveError
        The variable says neither yes nor no.
    """
    value = os.environ.get(OFFLINE, "").strip()
    if value.lower() not in (*_ON, *_OFF):
        raise ArchiveError(f"{OFFLINE} is {value!r}; set it to 1 (true, yes, on) or 0 (false, no, off), or unset it")
    return value.lower() in _ON


def mirrors() -> tuple[Path | str, ...]:
    """Return the mirrors in order, each a folder or a URL.

    Raises
    ------
    ArchiveError
        One is neither a URL of a known kind nor a folder that exists.
    """
    value = os.environ.get(MIRROR, "").strip()
    entries = [value] if value and _folder(value) is not None else value.split()
    return tuple(_mirror(entry, number) for number, entry in enumerate(entries, start=1))


def here(archive: Archive, folder: Path) -> Path | None:
    """Return the copy that is at hand, not yet verified: in the archives folder, or in a mirror that is a folder."""
    folders = [folder, *(mirror for mirror in mirrors() if isinstance(mirror, Path))]
    return next((place / archive.name for place in folders if (place / archive.name).is_file()), None)


def _folder(name: str) -> Path | None:
    """Return the folder of that name, if there is one; ``~`` is a home, as in GALD_DATA."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # longer than a name may be, as a URL with its token; a user without a home
        return None


def _mirror(entry: str, number: int) -> Path | str:
    """Read one entry; one that may hold a password is never repeated in a message."""
    folder = _folder(entry)
    if folder is not None:
        return folder
    try:
        parts = urlsplit(entry)
        _ = parts.port  # an error where a password with a slash is taken for one
    except ValueError:
        raise ArchiveError(f"{MIRROR} holds what is neither a folder nor a URL; mend it, or unset it") from None
    if parts.scheme in ("http", "https", "ftp"):
        return entry
    named = url2pathname(parts.path) if parts.scheme == "file" else entry
    if parts.scheme == "file" and (folder := _folder(named)) is not None:
        return folder
    if parts.scheme != "file" and "://" in entry:
        raise ArchiveError(f"{MIRROR} holds a URL that is none of http, https, ftp and file; mend it, or unset it")
    if parts.scheme != "file" and any(sign in entry for sign in _MAY_BE_SECRET):
        raise ArchiveError(
            f"entry {number} of {MIRROR}, not repeated here since it may hold a password, is neither a folder that "
            "exists nor a URL, which begins with http://, https:// or ftp://; mend it, or unset it"
        )
    raise ArchiveError(f"{MIRROR} names {named}, which is no folder; create it, or unset {MIRROR}")
