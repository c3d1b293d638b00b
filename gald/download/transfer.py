"""One URL to one verified file: several tries with growing pauses, each of which goes on where the last one ended."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from urllib.parse import urlsplit

from gald.datasets._spec import Archive
from gald.download import ftp, web
from gald.download.archives import verify
from gald.download.login import Account
from gald.download.part import Part, SourceError, StitchError
from gald.download.places import Address
from gald.errors import ArchiveError

TRIES = 6
"""Failed tries in a row before a source is given up."""
PAUSE = 2.0
"""Seconds before the second try; doubled before each further one, so that a source has a minute to come back."""
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as dead."""
STEP = 1 << 20
"""A try that brings this many bytes more than ever before has not failed, whatever ended it: a file of many gigabytes
may well see more broken connections than `TRIES`."""

_log = logging.getLogger("gald")


def transfer(address: Address, archive: Archive, folder: Path, account: Account | None, stop: threading.Event) -> str:
    """Download a file and verify it.

    Parameters
    ----------
    address : Address
        Of the kind http, https or ftp.
    archive : Archive
        What the file must be; it takes this name in `folder`.
    folder : Path
        Existing folder; a part from an earlier try or command is continued.
    account : Account or None
        Of a host that asks for a login.
    stop : Event
        Ends the download; its part stays.

    Returns
    -------
    str
        Sha256 of the file, as hex digits. It is still called a part: the caller renames it, see `Part.finish`.

    Raises
    ------
    SourceError
        The source does not deliver; the message says why.
    ArchiveError
        The disk cannot hold what the source announces.
    OSError
        The disk is full or read-only.
    """
    part = Part(folder, archive.name, stop)
    failures, furthest = 0, part.size
    while True:
        try:
            if not _is_there(part, address.shown):
                _ask(address, part, archive, account)
            return _verified(part, archive, address.shown)
        except StitchError as error:
            _log.warning("%s; starting over", error)
            continue  # once: what comes now is from this source alone
        except SourceError as error:
            if part.size >= furthest + STEP:
                furthest, failures = part.size, 0
            failures += 1
            if not error.again or failures == TRIES:
                raise
            pause = max(PAUSE * 2 ** (failures - 1), error.wait_s)
            _log.info("%s; trying again in %.0f s", error, pause)
        part.pause(pause)


def _is_there(part: Part, url: str) -> bool:
    """Whether a command was killed between the last byte and the verification."""
    version = part.version
    return version is not None and version.url == url and part.whole


def _ask(address: Address, part: Part, archive: Archive, account: Account | None) -> None:
    scheme = urlsplit(address.url).scheme
    if scheme == "ftp":
        ftp.get(address, part, archive, TIMEOUT)
    elif scheme in ("http", "https"):
        try:
            web.get(address, part, archive, account.cookies() if account is not None else None, TIMEOUT)
        except web.PageError:
            if account is not None:
                account.leave()  # a session ends after a while; the next try begins another
            raise
    else:
        raise SourceError(f"{address.shown}: not of the kind http, https, ftp or file", again=False)


def _verified(part: Part, archive: Archive, url: str) -> str:
    version = part.version
    if version is not None and version.total not in (None, part.size):
        raise SourceError(f"{url}: the connection broke off")
    if part.size == 0:
        raise SourceError(f"{url}: sends nothing")
    try:
        return verify(part.path, archive, "the source or the connection altered it")
    except ArchiveError as error:
        stitched = version is not None and version.stitched
        problem = (StitchError if stitched else SourceError)(f"{url}: {error}")
    part.drop()
    raise problem
