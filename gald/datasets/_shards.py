"""Shards of a packed store: mapped as they are when they are opened, and held against their digests once.

A mapped file stays what it was: a store that is made again gives its names to other files. A file that was checked is
remembered by what the file system says of it, so that twenty trainings do not read the same gigabytes twenty times.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gald import paths
from gald.errors import DatasetError
from gald.files import write_json

_CHUNK = 64 << 20
_TELL_BYTES = 2 << 30  # some seconds of reading

_log = logging.getLogger("gald")


class Shard(NamedTuple):
    """One mapped file.

    Attributes
    ----------
    path : Path
        Where it was when it was opened.
    content : ndarray of uint8, shape (bytes,)
        The map, copy-on-write.
    sha256 : str
        What store.json promises of the content.
    state : tuple of int
        Inode, bytes and time of the last change in nanoseconds.
    """

    path: Path
    content: npt.NDArray[np.uint8]
    sha256: str
    state: tuple[int, int, int]


def open_shard(path: Path, size: int, sha256: str, *, remedy: str) -> Shard:
    """Map a shard into memory.

    Parameters
    ----------
    path : Path
        The file.
    size, sha256 : int and str
        What store.json promises; the digest is not looked at here, see `check`.
    remedy : str
        What cures a damaged store.

    Raises
    ------
    DatasetError
        The file is missing, has another size, or cannot be mapped.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_size != size:  # a map reaching past a file's end would kill the process with a bus error later
                raise DatasetError(f"{path} has {found.st_size} bytes, store.json promises {size}; {remedy}")
            try:  # a plain array over the map: slices of np.memmap itself cost more
                content = np.asarray(np.memmap(file, np.uint8, mode="c"))
            except OSError as error:
                raise DatasetError(
                    f"{path} cannot be mapped into memory ({error}); raise the limit of address space (ulimit -v), "
                    "or set prepare.store: files in params/base.yaml to read the prepared files instead"
                ) from error
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing; {remedy}") from error
    return Shard(path, content, sha256, (found.st_ino, found.st_size, found.st_mtime_ns))


def check(shards: Iterable[Shard], store: tuple[str, str], *, remedy: str, pulse: Callable[[], None]) -> None:
    """Hold shards against their digests, except those that were found whole before and have not changed since.

    Parameters
    ----------
    shards : iterable of Shard
        Mapped files.
    store : tuple of str
        Edition and dataset, under which is remembered what was checked.
    remedy : str
        What cures a damaged store.
    pulse : callable
        Called every 64 MiB; it may raise to stop.

    Raises
    ------
    DatasetError
        A shard does not hold the bytes that were packed; the message names it.
    """
    memory = paths.verified(*store)
    known = _remembered(memory)
    new = [shard for shard in shards if known.get(shard.path.name) != [shard.sha256, *shard.state]]
    size = sum(shard.state[1] for shard in new)
    if size >= _TELL_BYTES:
        _log.info("%s: checking the packed store before its first use, %.1f GB", "/".join(store), size / 1e9)
    begun = time.monotonic()
    for shard in new:
        found = _sha256(shard.content, pulse)
        if found != shard.sha256:
            raise DatasetError(
                f"{shard.path} does not hold the pixels that were packed (sha256 {found}, store.json says "
                f"{shard.sha256}); {remedy}"
            )
        known[shard.path.name] = [shard.sha256, *shard.state]
        write_json(memory, known)  # shard by shard: who stops here does not begin again
    if size >= _TELL_BYTES:
        rate = size / 1e9 / max(time.monotonic() - begun, 1e-9)
        _log.info("%s: the packed store is whole, checked at %.2f GB/s", "/".join(store), rate)


def _remembered(memory: Path) -> dict[str, list[str | int]]:
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # all it costs is to check again
    return known if isinstance(known, dict) else {}


def _sha256(content: npt.NDArray[np.uint8], pulse: Callable[[], None]) -> str:
    running = hashlib.sha256()
    for start in range(0, len(content), _CHUNK):
        pulse()
        running.update(content[start : start + _CHUNK].data)
    return running.hexdigest()
