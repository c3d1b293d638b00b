"""Free disk space, looked at before the first byte: of a whole benchmark and its unpacking, and of each transfer."""

from __future__ import annotations

import shutil
from pathlib import Path

from gald import paths
from gald.datasets._spec import Archive, DatasetSpec
from gald.download.part import Part
from gald.download.places import here
from gald.errors import ArchiveError

_GROWTH = 1.05
"""Unpacked size of an archive of PNG and JPEG, where none is known, relative to its own."""


def check_room(spec: DatasetSpec, archives: Path, files: Path) -> None:
    """Refuse a download that this disk cannot hold.

    Parameters
    ----------
    spec : DatasetSpec
        Says how large its archives are, packed and unpacked; one of unknown size counts nothing, see `check_transfer`.
    archives : Path
        Existing folder of the archives.
    files : Path
        Folder that they are unpacked into. The rest of an unpacking that was killed is removed: it is made again from
        its beginning, and must not count as taken.

    Raises
    ------
    ArchiveError
        The disk has too little room; the message says how much is missing, and where.
    """
    for rest in files.parent.glob(f".{files.name}.*"):
        shutil.rmtree(rest, ignore_errors=True)
    to_come = sum(_to_come(archive, archives) for archive in spec.archives)
    unpacked = sum(unpacked_size(archive, archives) or 0 for archive in spec.archives)
    free = shutil.disk_usage(archives).free
    if to_come + unpacked > free:
        raise ArchiveError(
            f"full/{spec.name} needs {to_come + unpacked} bytes ({size(to_come)} to download, {size(unpacked)} "
            f"unpacked) {_where(archives, free)}"
        )


def check_transfer(part: Part, total: int | None) -> None:
    """Refuse a file whose announced size this disk cannot hold.

    Parameters
    ----------
    part : Part
        What is there of it takes no more room.
    total : int or None
        Bytes that the source announces; without them nothing is known, and nothing checked.

    Raises
    ------
    ArchiveError
        The disk has too little room: at any other source too.
    """
    needed, free = (total or 0) - part.size, shutil.disk_usage(part.path.parent).free
    if needed > free:
        raise ArchiveError(f"{part.name} needs {needed} bytes to download {_where(part.path.parent, free)}")


def _where(folder: Path, free: int) -> str:
    """Say what is free, and what to do: the end of a message."""
    return (
        f"on the disk of {folder}, where {free} ({size(free)}) are free; make room, or "
        f"move the data folder to another disk and leave a symbolic link {paths.DATA_ROOT} in its place (trainings "
        "know their data by path); for a fresh start, set GALD_DATA to a folder on another disk"
    )


def download_size(archive: Archive) -> int | None:
    """Bytes of an archive, or about so many; None if not known."""
    return archive.size if archive.size is not None else archive.about


def unpacked_size(archive: Archive, folder: Path) -> int | None:
    """Bytes that an archive takes once it is unpacked, roughly; None if not known."""
    if archive.unpacked is not None:
        return archive.unpacked
    copy = here(archive, folder)
    packed = copy.stat().st_size if copy is not None else download_size(archive)
    return None if packed is None else int(_GROWTH * packed)


def size(count: int) -> str:
    """Spell a number of bytes for reading.

    Examples
    --------
    >>> size(967382037), size(11_000_000_000), size(2_100_000_000), size(30_700_000), size(900)
    ('967 MB', '11 GB', '2.1 GB', '31 MB', '1 kB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.{1 if count < 9.95 * unit and name == 'GB' else 0}f} {name}"
    return f"{count / 1e3:.0f} kB"


def _to_come(archive: Archive, folder: Path) -> int:
    if here(archive, folder) is not None:
        return 0
    return max(0, (download_size(archive) or 0) - Part(folder, archive.name).size)
