"""Where an archive comes from: the benchmark's archives folder, then the mirrors, then its published addresses.

A copy that is there but wrong is an error that says so, never a reason to quietly take the next source: whoever put it
there should know.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gald.datasets._spec import Archive, Lookalike
from gald.download.archives import verify
from gald.download.login import Account
from gald.download.part import Part, SourceError, Version
from gald.download.places import MIRROR, OFFLINE, Address, here, mirrors, offline
from gald.download.transfer import transfer

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


def fetch(
    archive: Archive,
    folder: Path,
    account: Account | None,
    stop: threading.Event,
    *,
    lookalikes: Sequence[Lookalike] = (),
) -> Fetched | None:
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
    lookalikes : sequence of Lookalike
        Archives that are taken for this one, to be named if a copy is one of them.

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
        copy = _at_hand(local, archive, lookalikes, in_mirror=local.parent != folder)
        Part(folder, archive.name).drop()  # begun before the copy was laid there
        return copy
    failures: list[str] = []
    begun = Part(folder, archive.name).version
    for address in _addresses(archive, begun, may_log_in=account is not None):
        if offline():
            failures.append(f"{address.shown}: not asked, since {OFFLINE} is set")
            continue
        for_login = account if address.source != "mirror" else None
        download = _downloaded(address, archive, folder, for_login, stop, failures)
        if download is not None:
            return download
    if failures:
        raise SourceError(f"{archive.name} cannot be downloaded: {'; '.join(dict.fromkeys(failures))}")
    return None


def _addresses(archive: Archive, begun: Version | None, *, may_log_in: bool) -> list[Address]:
    """List where an archive may be asked for, in order: first where it was begun, which alone is sure to go on."""
    found = [Address.in_mirror(mirror, archive.name) for mirror in mirrors() if isinstance(mirror, str)]
    if may_log_in or archive.login is None:
        found += [Address.published(url) for url in archive.urls]
    return sorted(found, key=lambda address: begun is None or address.shown != begun.url)


def _at_hand(local: Path, archive: Archive, lookalikes: Sequence[Lookalike], *, in_mirror: bool) -> Fetched:
    """Take a copy that is there, once it is verified."""
    remedy = f"replace it, or unset {MIRROR}" if in_mirror else _DELETE
    if local.stat().st_size > _TELL_FROM:
        _log.info("%s: verifying the copy that is there", archive.name)
    digest = verify(local, archive, remedy, lookalikes)
    if in_mirror:
        return Fetched(local, "mirror", digest, remedy)
    return Fetched(local, _noted(local, digest), digest, remedy)


def _note(local: Path) -> Path:
    """File beside a download that remembers its digest and source, so that a rerun writes the same raw.json."""
    return local.with_name(f".{local.name}.source")


def _noted(local: Path, digest: str) -> str:
    """Read the source from the note; it speaks for this copy only if it names its digest, since another may be here."""
    try:
        noted, _, source = _note(local).read_text(encoding="utf-8").strip().partition("  ")
    except (OSError, ValueError):
        return "by hand"
    return source if noted == digest and source else "by hand"


def _downloaded(
    address: Address,
    archive: Archive,
    folder: Path,
    account: Account | None,
    stop: threading.Event,
    failures: list[str],
) -> Fetched | None:
    """Try one address; on failure note why."""
    _log.info("%s: downloading %s", archive.name, address.shown)
    try:
        digest = transfer(address, archive, folder, account, stop)
    except SourceError as error:
        failures.append(str(error))
        _log.warning("%s cannot be had there: %s", archive.name, error)
        return None
    local = folder / archive.name
    _note(local).write_text(f"{digest}  {address.source}\n", encoding="utf-8")
    Part(folder, archive.name).finish(local)
    return Fetched(local, address.source, digest, _DELETE)
