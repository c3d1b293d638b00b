"""Verify an archive and unpack what is needed of it, trusting nothing that it says.

Member paths may not leave the folder, links are not followed, and what comes out may be no larger than what the
archive declares and than a benchmark can be. Every failure is one `ArchiveError` that names the file.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from gald.datasets._spec import Archive
from gald.errors import ArchiveError

_CHUNK = 1 << 20
_MOST_FILES = 400_000
"""The largest benchmark here has some 44 000 files; more than this is no benchmark."""
_MOST_GROWTH, _FREE_GROWTH = 60, 64 << 20
"""Unpacked data may be this many times the archive's size, plus this many bytes: PNG and JPEG hardly shrink."""


@dataclass(frozen=True)
class _Member:
    """A regular file in an archive: its path as stored, its declared size, and how to read it."""

    path: str
    size: int
    open: Callable[[], IO[bytes]]


def checksum(path: Path, algorithm: str) -> str:
    """Return a file's digest by that algorithm, as hex digits."""
    running = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            running.update(chunk)
    return running.hexdigest()


def verify(path: Path, archive: Archive, remedy: str) -> None:
    """Compare a file with what is known of the archive: its size and its strongest published digest.

    Parameters
    ----------
    path : Path
        The copy to be checked.
    archive : Archive
        What is known; nothing may be, and then nothing is checked here.
    remedy : str
        What the reader should do, the end of the message.

    Raises
    ------
    ArchiveError
        The copy is not the published file.
    """
    found = path.stat().st_size
    if archive.size is not None and found != archive.size:
        raise ArchiveError(f"{path}: expected {archive.size} bytes, found {found}: truncated or altered; {remedy}")
    for algorithm in ("sha256", "sha1", "md5"):
        expected = archive.digests.get(algorithm)
        if expected is not None:
            digest = checksum(path, algorithm)
            if digest != expected:
                raise ArchiveError(f"{path}: expected {algorithm} {expected}, found {digest}; {remedy}")
            return


def unpack(path: Path, archive: Archive, target: Path, remedy: str) -> int:
    """Unpack the members that the archive's description asks for; a plain file is copied.

    Parameters
    ----------
    path : Path
        A zip, a tar (compressed or not), or any other file.
    archive : Archive
        Says which members are wanted, and what leading part of their paths to cut off.
    target : Path
        Existing folder; what fails half-way leaves files in it, so let it be a temporary one.
    remedy : str
        What the reader should do about a bad archive, the end of the message.

    Returns
    -------
    int
        Number of files written.

    Raises
    ------
    ArchiveError
        Damaged, unsafe, too large, or without a single wanted member.
    OSError
        The target cannot be written, for example because the disk is full.
    """
    try:
        with _opened(path, archive.name) as members:
            chosen = _chosen(members, archive, path)
            _check_room(chosen, path, target)
            for name, member in chosen.items():
                _write(member, target / name, path)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        NotImplementedError,
        ValueError,
    ) as error:
        raise ArchiveError(f"{path}: a damaged archive ({_first_line(error)}); {remedy}") from error
    except ArchiveError as error:
        raise ArchiveError(f"{error}; {remedy}") from error
    return len(chosen)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Iterator[_Member]]:
    """Open by the published name's suffix, since a copy in a cache may bear any name."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as opened:
            yield _zip_members(opened, path)
    elif name.endswith((".tar", ".tar.gz", ".tgz")):
        with tarfile.open(path, "r:" if name.endswith(".tar") else "r:gz") as opened_tar:
            yield _tar_members(opened_tar, path)
    else:
        yield iter([_Member(name, path.stat().st_size, lambda: path.open("rb"))])


def _zip_members(opened: zipfile.ZipFile, path: Path) -> Iterator[_Member]:
    for info in opened.infolist():
        if info.is_dir():
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArchiveError(f"{path}: member {info.filename!r} is a link, which no benchmark has")
        if info.flag_bits & 0x1:
            raise ArchiveError(f"{path}: member {info.filename!r} is encrypted, which no benchmark is")
        yield _Member(info.filename, info.file_size, lambda info=info: opened.open(info))  # type: ignore[misc]


def _tar_members(opened: tarfile.TarFile, path: Path) -> Iterator[_Member]:
    for info in opened.getmembers():
        if info.isdir():
            continue
        if not info.isreg():
            raise ArchiveError(f"{path}: member {info.name!r} is a link or a device, which no benchmark has")

        def reader(info: tarfile.TarInfo = info) -> IO[bytes]:
            file = opened.extractfile(info)
            assert file is not None  # regular files have content
            return file

        yield _Member(info.name, info.size, reader)


def _chosen(members: Iterator[_Member], archive: Archive, path: Path) -> dict[str, _Member]:
    """Select by the description; every member's path is checked, wanted or not."""
    strip, wanted = re.compile(archive.strip), re.compile(archive.members)
    chosen: dict[str, _Member] = {}
    for count, member in enumerate(members, start=1):
        if count > _MOST_FILES:
            raise ArchiveError(f"{path}: more than {_MOST_FILES} members, which no benchmark has")
        pure = PurePosixPath(member.path)
        if pure.is_absolute() or ".." in pure.parts or re.search(r"[\\\x00:]", member.path):
            raise ArchiveError(f"{path}: member {member.path!r} would be written outside its folder")
        start = strip.match(member.path)
        name = member.path[start.end() if start else 0 :]
        if not wanted.fullmatch(name):
            continue
        if name in chosen:
            raise ArchiveError(f"{path}: two members are both {name!r}")
        chosen[name] = member
    if not chosen:
        raise ArchiveError(f"{path}: holds no member like {archive.members!r}; is it {archive.name}?")
    return chosen


def _check_room(chosen: dict[str, _Member], path: Path, target: Path) -> None:
    """Refuse what cannot be a benchmark, and what the disk cannot hold, before anything is written."""
    declared = sum(member.size for member in chosen.values())
    most = path.stat().st_size * _MOST_GROWTH + _FREE_GROWTH
    if declared > most:
        raise ArchiveError(f"{path}: would unpack to {declared} bytes, more than the {most} that are plausible")
    free = shutil.disk_usage(target).free
    if declared > free:
        raise OSError(
            errno.ENOSPC, f"unpacking {path.name} needs {declared} bytes, {free} are free", str(target.parent)
        )


def _write(member: _Member, target: Path, path: Path) -> None:
    """Copy one member; exactly the declared bytes, or an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with member.open() as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                break
            file.write(chunk)
    if left:
        relation = "more" if left < 0 else "fewer"
        raise ArchiveError(f"{path}: member {member.path!r} holds {relation} bytes than its declared {member.size}")
