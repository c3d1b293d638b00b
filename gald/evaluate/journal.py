"""What an evaluation has counted so far: an entry for each image, so that after a kill it goes on with the next one.

Each process appends to a file of its own. An entry bears its length and checksum; one cut short by a kill is dropped,
and its image counted again. Entries are believed only under the identity that they were made with: the digests of
weights, data, params and code.

Processes of one start know each other by the name of their group. The others begin when the first has the run to
itself, and it publishes when they have left: a second start by mistake then writes into nobody's file.
"""

from __future__ import annotations

import io
import logging
import struct
import time
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from gald import files
from gald.errors import RunBusy
from gald.metrics import Counts
from gald.metrics.counts import Layout

_HEAD = struct.Struct("<4sIII")  # mark, index of the image, bytes, checksum
_MARK = b"gald"
_LOOK_S = 0.25
_TELL_EVERY_S = 15.0
_LOOKS = 4  # a minute
_PATIENCE_S = 600.0
_LOG = logging.getLogger("gald.evaluate")


class Journal:
    """The counts of the images that were scored, on disk as they come.

    Parameters
    ----------
    folder : Path
        Of the run's evaluation; journals of other identities in it are removed by the first process.
    identity : str
        Digest of all that decides the counts.
    layout : Layout
        Families of counts and their shapes.
    rank, size : int
        Which of how many processes this is.
    group : str
        Name that the processes of one start have in common; where it is empty, none waits for the first.

    Raises
    ------
    RunBusy
        The first process of the group did not begin within ten minutes.
    """

    def __init__(
        self, folder: Path, identity: str, layout: Layout, rank: int = 0, size: int = 1, group: str = ""
    ) -> None:
        self._root = folder
        self.folder = folder / identity[:16]
        self._shapes = layout.shapes()
        self._rank, self._others, self._group = rank, range(1, size) if group else (), group
        if rank == 0:
            self._begin()
        elif group:
            self._wait_for_first()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{rank}.counts"
        self._file: BinaryIO = path.open("ab")
        self._file.truncate(_whole_bytes(path))

    def append(self, index: int, counts: Mapping[str, Counts]) -> None:
        """Note the counts of an image."""
        payload = _packed(counts)
        self._file.write(_HEAD.pack(_MARK, index, len(payload), zlib.crc32(payload)) + payload)
        self._file.flush()

    def indices(self) -> set[int]:
        """Images that any process has noted."""
        return {index for path in self._files() for index, _ in _entries(path)}

    def counts(self, wanted: Collection[int]) -> Iterator[dict[str, Counts]]:
        """Counts of images, in ascending order of their indices; each must have been noted."""
        found = {index: payload for path in self._files() for index, payload in _entries(path)}
        return (_unpacked(found[index], self._shapes) for index in sorted(wanted))

    def wait_for(self, wanted: Collection[int]) -> None:
        """Wait until the others have noted what is left, and left. One that fails ends all, which torchrun sees to.

        Where nothing is left, one that does not say that it leaves is waited for a minute: what it signed may have gone
        when this process began, if an earlier start had the same name.
        """
        told, looks = time.monotonic(), 0
        while not all(map(self._signed, self._others)) or set(wanted) - self.indices():
            if time.monotonic() - told > _TELL_EVERY_S:
                told, left = time.monotonic(), len(set(wanted) - self.indices())
                looks = 0 if left else looks + 1
                if looks == _LOOKS:
                    return
                _LOG.info("waiting for the other processes: %d images left", left)
            time.sleep(_LOOK_S)

    def remove(self) -> None:
        """Drop what was noted: the evaluation is published."""
        self._file.close()
        files.remove_folder(self._root)  # half of it would pass for all that was kept

    def _begin(self) -> None:
        """Remove what is of no use, and let the other processes begin."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self._root.iterdir():
            if other != self.folder:
                files.remove_folder(other)
        for signed in self.folder.glob("*.group"):
            signed.unlink()
        self._sign()

    def _sign(self) -> None:
        files.write_text(self.folder / f"{self._rank}.group", self._group)

    def _signed(self, rank: int) -> bool:
        try:
            return (self.folder / f"{rank}.group").read_text(encoding="utf-8") == self._group
        except FileNotFoundError:
            return False

    def _wait_for_first(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not self._signed(0):
            if time.monotonic() > deadline:
                raise RunBusy(
                    f"{self.folder}: process {self._rank} waited {_PATIENCE_S:.0f} s, and process 0 did not begin "
                    "there; start all processes together, with the same code, params and data, in a folder that all see"
                )
            time.sleep(_LOOK_S)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.counts"))

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; a process that is not the first has done its share then."""
        self._file.close()
        if kind is None and self._rank and self._group:
            self._sign()


def _entries(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole entries of a file, up to the first that is not."""
    content = path.read_bytes()
    for index, start, end in _bounds(content):
        yield index, content[start:end]


def _whole_bytes(path: Path) -> int:
    """Length of the part of a file that holds whole entries."""
    return max((end for _, _, end in _bounds(path.read_bytes())), default=0)


def _bounds(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Index, start and end of each whole entry's payload."""
    place = 0
    while place + _HEAD.size <= len(content):
        mark, index, length, checksum = _HEAD.unpack_from(content, place)
        start, end = place + _HEAD.size, place + _HEAD.size + length
        if mark != _MARK or end > len(content) or zlib.crc32(content[start:end]) != checksum:
            return
        yield index, start, end
        place = end


def _packed(counts: Mapping[str, Counts]) -> bytes:
    buffer = io.BytesIO()
    arrays = {}
    for name, values in counts.items():
        cells = np.flatnonzero(values)
        arrays[name] = np.stack([cells, values.ravel()[cells]])
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
    return buffer.getvalue()


def _unpacked(payload: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Counts]:
    found = {}
    with np.load(io.BytesIO(payload)) as arrays:
        for name, shape in shapes.items():
            dense = np.zeros(int(np.prod(shape)), np.int64)
            cells, values = arrays[name]
            dense[cells] = values
            found[name] = dense.reshape(shape)
    return found
