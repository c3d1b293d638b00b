"""One request over FTP that brings a part forward; pooch's own FTP downloader cannot go on where one broke off.

Size and time of change stand in for the marks that HTTP has.
"""

from __future__ import annotations

import ftplib
import logging
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from gald.datasets._spec import Archive
from gald.download.part import Part, SourceError, Version
from gald.download.places import Address
from gald.download.web import check_total

_CHUNK = 1 << 16

_log = logging.getLogger("gald")


def get(address: Address, part: Part, archive: Archive, timeout: float) -> None:
    """Ask once, and append what comes.

    Parameters
    ----------
    address : Address
        Of the file; user name and password may stand in it, and are anonymous otherwise.
    part : Part
        Closed; what of it belongs to the same version is kept.
    archive : Archive
        Says what is known of the file.
    timeout : float
        Seconds without a byte after which the connection counts as dead.

    Raises
    ------
    SourceError
        No answer, a refusal, or an end before the end; the message holds no secret, and neither does its chain.
    ArchiveError
        The disk cannot hold what the source announces.
    OSError
        The disk is full.
    """
    problem: SourceError | None = None
    with part:
        try:
            _retrieve(address, part, archive, timeout)
        except (ftplib.Error, OSError, EOFError, ValueError) as error:
            if part.failure is not None:
                raise
            problem = _problem(address.shown, error, timeout)
    if problem is not None:
        raise problem


def _problem(url: str, error: Exception, timeout: float) -> SourceError:
    """Say in a few words why a request failed."""
    if isinstance(error, ftplib.error_perm):
        return SourceError(f"{url}: FTP answer {str(error)[:3]}", again=False)
    if isinstance(error, TimeoutError):
        return SourceError(f"{url}: no answer within {timeout:g} s")
    return SourceError(f"{url}: no connection, or it broke off")


def _retrieve(address: Address, part: Part, archive: Archive, timeout: float) -> None:
    parts = urlsplit(address.url)
    path = unquote(parts.path)
    with ftplib.FTP(timeout=timeout) as server:
        server.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        server.login(unquote(parts.username or ""), unquote(parts.password or ""))
        server.voidcmd("TYPE I")
        version = _version(server, path, address.shown)
        check_total(version, archive, part)
        rest = _rest(server, part, version, archive)
        receiver = _Receiver(part, version, rest)
        if rest and rest == version.total:
            receiver.start()
            return  # another source has sent all of it, and servers differ in what they answer to no rest at all
        server.retrbinary(f"RETR {path}", receiver, _CHUNK, rest or None)
        all_there = rest and version.total is None  # nothing is left of a file whose size the server does not tell
        if not receiver.started and not all_there:
            raise SourceError(f"{address.shown}: sends nothing")


class _Receiver:
    """Takes what comes; until the first chunk is here, the file need not be, and what other sources sent stays."""

    def __init__(self, part: Part, version: Version, rest: int) -> None:
        self.started = False
        self._part = part
        self._version = version
        self._rest = rest

    def start(self) -> None:
        """Note in the part whose bytes come."""
        self.started = True
        if self._rest:
            _log.info("%s: going on from %.1f MB", self._part.name, self._rest / 1e6)
            self._part.go_on(self._version)
        else:
            self._part.begin(self._version)
        self._part.expect(self._version.total)

    def __call__(self, chunk: bytes) -> None:
        """Append a chunk."""
        if not self.started:
            self.start()
        self._part.write(chunk)


def _rest(server: ftplib.FTP, part: Part, version: Version, archive: Archive) -> int:
    """Return the number of bytes that stay: all, if they are of this version and the server can send the rest alone."""
    known, pinned = part.version, bool(archive.digests)
    if known is None or not part.resumable(version.url, pinned=pinned):
        return 0
    if not known.goes_on_as(version, pinned=pinned):
        _log.warning("%s: the file may have changed at its source; starting over", archive.name)
        return 0
    try:
        server.sendcmd(f"REST {part.size}")  # asked beforehand: later, its refusal looks like one of the file
    except ftplib.error_perm:
        _log.warning("%s: the source does not send the rest alone; starting over", archive.name)
        return 0
    return part.size


def _version(server: ftplib.FTP, path: str, url: str) -> Version:
    """Ask for size and time of change; a server need not know the one or the other."""
    total, modified = None, None
    with suppress(ftplib.error_perm):  # RETR tells whether the file is there at all
        total = server.size(path)
    with suppress(ftplib.error_perm):
        modified = server.voidcmd(f"MDTM {path}")[4:].strip()
    return Version(url, None, modified, total)
