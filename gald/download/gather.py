"""All archives of one benchmark: found or downloaded side by side, and whatever is amiss told in one message."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from gald.datasets._spec import Archive, DatasetSpec, Login
from gald.download.fetch import Fetched, fetch
from gald.download.login import Account, advice, credentials, half_told
from gald.download.parallel import in_parallel
from gald.download.part import SourceError
from gald.download.places import MIRROR, OFFLINE, here, mirrors, offline
from gald.errors import ArchiveError


def gather(spec: DatasetSpec, folder: Path) -> list[Fetched]:
    """Find or download every archive.

    Parameters
    ----------
    spec : DatasetSpec
        Names the archives.
    folder : Path
        The benchmark's archives folder, which exists.

    Returns
    -------
    list of Fetched
        Verified copies, in the order of the archives.

    Raises
    ------
    ArchiveError
        Some cannot be had, or are not what they should be; the message names all of them and what to do.
    OSError
        The disk is full or read-only.
    """
    offline()  # what cannot be read of the environment is told once, and not for each archive
    other = misnamed(spec, folder, [folder])
    if other is not None:
        raise ArchiveError(f"{other}; move it out of that folder and run the command again")
    accounts = {
        archive.login: Account(archive.login)
        for archive in spec.archives
        if archive.login is not None and credentials(archive.login) is not None
    }

    def one(archive: Archive, stop: threading.Event) -> Fetched | None:
        account = accounts.get(archive.login) if archive.login is not None else None
        return fetch(archive, folder, account, stop, lookalikes=spec.lookalikes)

    results = in_parallel(one, spec.archives)
    found = [result for result in results if isinstance(result, Fetched)]
    if len(found) < len(results):
        amiss = [
            (archive, None if isinstance(result, Fetched) else result)
            for archive, result in zip(spec.archives, results, strict=True)
            if not isinstance(result, Fetched)
        ]
        raise ArchiveError(_message(spec, folder, amiss, accounts))
    return found


def misnamed(spec: DatasetSpec, folder: Path, places: list[Path]) -> str | None:
    """Say which file is taken for an archive that is missing, if one is.

    Parameters
    ----------
    spec : DatasetSpec
        Names archives and lookalikes.
    folder : Path
        The benchmark's archives folder.
    places : list of Path
        Folders whose files are looked at.
    """
    if all(here(archive, folder) is not None for archive in spec.archives):
        return None
    names = {archive.name for form in spec.sources.values() for archive in form.archives}
    for place in places:
        for path in sorted(place.iterdir()):
            if path.name in names or path.name.startswith("."):
                continue
            for one in spec.lookalikes:
                if re.match(one.pattern, path.name):
                    return f"{path} is {one.what}"
    return None


def _message(
    spec: DatasetSpec,
    folder: Path,
    amiss: list[tuple[Archive, ArchiveError | None]],
    accounts: dict[Login, Account],
) -> str:
    """Tell every archive that is amiss, then what a reader can do about it."""
    told = [str(error) for _, error in amiss if error is not None]
    lines = [f"full/{spec.name}: {'; '.join(told)}"] if told else []
    missing = [archive for archive, error in amiss if error is None]
    if missing:
        wanted = "; ".join(f"{archive.name} from {archive.page}{_known(archive)}" for archive in missing)
        lines.append(f"full/{spec.name} needs archives that a person must get: {wanted}")
        halves = {archive.login: half_told(archive.login) for archive in missing if archive.login is not None}
        lines += [f"{half}." for half in halves.values() if half is not None]
    if any(isinstance(error, SourceError) for _, error in amiss):
        lines.append(_network_advice(folder))
    logins = {
        archive.login: None
        for archive, error in amiss
        if archive.login is not None and (error is None or _refused(accounts.get(archive.login)))
    }
    lines += [advice(login, spec.terms, folder) for login in logins]
    if missing and not logins:
        lines.append(f"Download them there, and put them into {folder} under these names")
    if missing:
        lines.append(f"A folder that {MIRROR} names does as well. Then run the command again; copies are verified.")
    in_mirrors = misnamed(spec, folder, [mirror for mirror in mirrors() if isinstance(mirror, Path)])
    if in_mirrors is not None:
        lines.append(f"Not taken: {in_mirrors}")
    return "\n".join(lines)


def _refused(account: Account | None) -> bool:
    return account is not None and account.refused


def _network_advice(folder: Path) -> str:
    if offline():
        return f"Unset {OFFLINE}, put the files into {folder}, or set {MIRROR} to a folder that holds them."
    return (
        "Check the network and run the command again, which goes on where this one stopped; or put the files into "
        f"{folder}, or set {MIRROR} to a folder that holds them."
    )


def _known(archive: Archive) -> str:
    """Strongest published digest, by which a person can tell the right file."""
    return next((f" ({key} {archive.digests[key]})" for key in ("sha256", "sha1", "md5") if key in archive.digests), "")
