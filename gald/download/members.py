"""What is in an archive: a zip, a tar (compressed or not), or any other file, which is its own only member.

Links and encrypted members are refused here, and so is a tar whose headers or end have no end.
"""

from __future__ import annotations

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

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


@dataclass(frozen=True)
class Member:
    """A regular file in an archive: its path as stored, its declared size, and how to read it."""

    path: str
    size: int
    open: Callable[[], IO[bytes]]


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
    elif name.endswith((".tar", ".tar.gz", ".tgz")):
        with path.open("rb") if name.endswith(".tar") else gzip.open(path) as stream:
            bounded = BoundedTar(cast(IO[bytes], stream), path)
            with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as opened_tar:
                yield _tar_members(opened_tar, bounded, path)
    else:
        yield iter([Member(name, path.stat().st_size, lambda: path.open("rb"))])


def _zip_members(opened: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    for info in opened.infolist():
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
