"""What is in an archive: a zip, a tar (compressed or not), or any other file, which is its own only member.

Links and encrypted members are refused here, and so is a tar whose headers or end have no end. A folder that somebody
has unpacked archives into is listed in the same form; there, links are how people keep large data, and are followed.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from gald.datasets._spec import Archive
from gald.download.bounded import BoundedTar
from gald.errors import ArchiveError

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    NotImplementedError,
    OverflowError,
    RecursionError,
    ValueError,
)
"""What the libraries raise about an archive that is not whole."""


_ODD = ":\\"  # in a name: what other systems note about a file, or their paths
_TAR = (".tar", ".tar.gz", ".tgz")
PACKED = (".zip", *_TAR)
"""Suffixes of archives with members; anything else is a plain file."""


@dataclass(frozen=True)
class Member:
    """A regular file in an archive: its path as stored, its declared size, and how to read it."""

    path: str
    size: int
    open: Callable[[], IO[bytes]]


def shortened(member: Member, archive: Archive) -> str:
    """Return a member's path without the leading part that its archive's description cuts off.

    Examples
    --------
    >>> shortened(Member("top/a/x.png", 0, open), Archive("a.zip", strip="top/"))
    'a/x.png'
    >>> shortened(Member("a/top/x.png", 0, open), Archive("a.zip", strip="top/"))
    'a/top/x.png'
    """
    start = re.match(archive.strip, member.path)
    return member.path[start.end() if start else 0 :]


@contextmanager
def opened(path: Path, name: str) -> Iterator[Iterator[Member]]:
    """Open an archive, and list its regular files.

    Parameters
    ----------
    path : Path
        The copy, which may bear any name.
    name : str
        Published name, whose suffix tells what kind it is.

    Raises
    ------
    ArchiveError
        While members are listed: one is none that a benchmark has.
    """
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as opened:
            yield _zip_members(opened, path)
    elif name.endswith(_TAR):
        with path.open("rb") if name.endswith(".tar") else gzip.open(path) as stream:
            bounded = BoundedTar(cast(IO[bytes], stream), path)
            with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as opened_tar:
                yield _tar_members(opened_tar, bounded, path)
    else:
        yield iter([Member(name, path.stat().st_size, lambda: path.open("rb"))])


def _zip_members(opened: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    for info in opened.infolist():
        if not info.filename:
            raise ArchiveError(f"{path}: a damaged archive (a member without a name)")
        if info.is_dir():
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArchiveError(f"{path}: member {info.filename!r} is a link, which no benchmark has")
        if info.flag_bits & 0x1:
            raise ArchiveError(f"{path}: member {info.filename!r} is encrypted, which no benchmark is")
        yield Member(info.filename, info.file_size, lambda info=info: opened.open(info))  # type: ignore[misc]


def _tar_members(opened: tarfile.TarFile, stream: BoundedTar, path: Path) -> Iterator[Member]:
    for info in opened:
        stream.next_member()
        if info.isdir():
            continue
        if not info.isreg():
            raise ArchiveError(f"{path}: member {info.name!r} is a link or a device, which no benchmark has")

        def reader(info: tarfile.TarInfo = info) -> IO[bytes]:
            file = opened.extractfile(info)
            assert file is not None  # regular files have content
            return file

        yield Member(info.name, info.size, reader)
    stream.to_end()


def in_folder(folder: Path) -> Iterator[Member]:
    """List the files of an unpacked tree, each folder once, whatever links lead there.

    Hidden files, as those that file managers leave, are passed over, and names that no benchmark has.

    Parameters
    ----------
    folder : Path
        Paths are below it.
    """
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        for name in [] if real in seen else sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and not set(name) & set(_ODD) and path.is_file():
                yield Member(path.relative_to(folder).as_posix(), path.stat().st_size, partial(_read, path))
        seen.add(real)


def _read(path: Path) -> IO[bytes]:
    return path.open("rb")
