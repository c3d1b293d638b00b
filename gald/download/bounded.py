"""A tar whose headers cannot fill the memory, and whose end comes."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from gald.errors import ArchiveError

_MOST_HEADER, _MOST_HEADERS = 1 << 20, 256 << 20
"""Bytes of a tar between two members, and of all headers of one: their extensions are held in memory."""
_MOST_PADDING = 16 << 20
"""Bytes after the last member. Tars are filled up to a multiple of some kB, with zeros, which compress to nothing."""
_CHUNK = 1 << 16


class BoundedTar:
    """A tar's bytes, of which the headers may only be so many: `tarfile` holds each whole, whatever size it claims.

    Parameters
    ----------
    stream : binary file
        Decompressed.
    path : Path
        The archive, for messages.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self._path = path
        self._all = 0
        self._between: int | None = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._stream.tell()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def read(self, size: int = -1) -> bytes:
        """Read; while headers are read, within their bounds."""
        if self._between is not None:
            self._between += size
            self._all += size
            if size < 0 or self._between > _MOST_HEADER or self._all > _MOST_HEADERS:
                raise ArchiveError(f"{self._path}: a tar header of implausible size, which no benchmark has")
        return self._stream.read(size)

    def next_member(self) -> None:
        """Begin to count anew."""
        self._between = 0

    def to_end(self) -> None:
        """Read what follows the last member, to the very end, where a compressed tar has its checksum.

        From then on no headers are counted: what is read are members.
        """
        self._between = None
        left = _MOST_PADDING
        while chunk := self._stream.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise ArchiveError(
                    f"{self._path}: more than {_MOST_PADDING} bytes after the last member, which no benchmark has"
                )
