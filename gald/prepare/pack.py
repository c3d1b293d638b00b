"""Pack a prepared benchmark: its pixels, decoded once, into flat shards that a reader maps into memory.

The size is known, and told, before anything is written, and the same prepared folder always gives the same bytes.
Finished shards outlive a kill. The format is told in `gald.datasets._packed`, what goes where in `_layout`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gald import paths
from gald.datasets._packed import STORE, Pixels, read_store
from gald.errors import DatasetError
from gald.files import sha256, write_json, write_text
from gald.prepare._layout import Layout, Shard
from gald.process import locking

_JOURNAL = ".finished.json"
_TELL_EVERY_S = 5.0

_log = logging.getLogger("gald")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def pack(edition: str, dataset: str) -> Path:
    """Make ``data/packed/<edition>/<dataset>``, or check the one there by digest and make again what is damaged.

    Parameters
    ----------
    edition : {"mini", "full"}
        Which prepared data.
    dataset : str
        Name of a file in ``gald/datasets``.

    Returns
    -------
    Path
        The list of shards, store.json.

    Raises
    ------
    DatasetError
        Nothing was prepared, a file does not hold the pixels that were prepared, or the disk has no room for the store.
    RunBusy
        Another process packs the same benchmark.
    OSError
        The disk is full or read-only.
    """
    folder = paths.packed(edition, dataset)
    work = folder.with_name(f".{folder.name}.part")
    with (
        locking.held(f"prepare/{edition}/{dataset}", wait_s=math.inf, say=_log.warning),  # the prepared files stay
        locking.held(f"pack/{edition}/{dataset}", wait_s=locking.WAIT_S),
    ):
        layout = Layout.of(edition, dataset)
        try:
            if not _is_whole(layout, folder, work):
                work.mkdir(parents=True, exist_ok=True)
                finished = _resume(layout, work)
                _check_room(layout, finished, work)
                _write_shards(layout, finished, work)
                _conclude(layout, finished, work, folder)
        except OSError as error:
            if error.filename is None:  # that of a full disk names no file
                error.filename = str(folder)
            raise
    return paths.packed_json(edition, dataset)


def _is_whole(layout: Layout, folder: Path, work: Path) -> bool:
    """Check the store there is. One of other data goes; what is intact of a damaged one becomes the work folder."""
    try:
        record = read_store(folder)
    except DatasetError as error:
        _log.warning("%s: %s", layout.name, error)
        record = None
    if record is None or not layout.fits(record):
        _remove(folder)
        return False
    intact = _intact(layout, folder, {shard["name"]: shard["sha256"] for shard in record["shards"]})
    damaged = [shard.name for shard in layout.shards if shard.name not in intact]
    damaged += [f"{split}.csv" for split, text in layout.indices.items() if not _holds(folder / f"{split}.csv", text)]
    shutil.rmtree(work, ignore_errors=True)
    if not damaged:
        (folder / _JOURNAL).unlink(missing_ok=True)
        _log.info("%s: the packed store is whole: %s", layout.name, _extent(layout))
        return True
    _log.warning("%s: damaged in the packed store, made again: %s", layout.name, ", ".join(damaged))
    _note(layout, intact, folder)
    folder.rename(work)
    return False


def _remove(folder: Path) -> None:
    """Remove a store that no reader would use, its list first: half of it must not pass for a store."""
    if folder.exists():
        if (folder / STORE).exists() or any(folder.glob("*.bin")):  # Snakemake makes an empty folder for its output
            _log.info("%s: not a store of the data as it is prepared now, so it is removed", folder)
        (folder / STORE).unlink(missing_ok=True)
        shutil.rmtree(folder)


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _note(layout: Layout, finished: dict[str, str], folder: Path) -> None:
    write_json(folder / _JOURNAL, {"layout": layout.digest, "shards": finished})


def _resume(layout: Layout, work: Path) -> dict[str, str]:
    """Keep the finished shards of an earlier attempt, by digest, and remove everything else of it."""
    try:
        journal = json.loads((work / _JOURNAL).read_text(encoding="utf-8"))
        noted = dict(journal["shards"]) if journal["layout"] == layout.digest else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        noted = {}
    finished = _intact(layout, work, noted)
    for path in work.iterdir():
        if path.name not in finished and path.name != _JOURNAL:
            path.unlink()
    _note(layout, finished, work)
    return finished


def _intact(layout: Layout, folder: Path, digests: dict[str, str]) -> dict[str, str]:
    """Find the shards that are there in full, by size and sha256; return their digests by name."""

    def is_intact(shard: Shard) -> bool:
        path = folder / shard.name
        return path.is_file() and path.stat().st_size == shard.bytes and sha256(path) == digests[shard.name]

    shards = [shard for shard in layout.shards if shard.name in digests]
    progress = _Progress(f"{layout.name}: checked", sum(shard.bytes for shard in shards))
    intact = {}
    for shard, good in zip(shards, _ahead(is_intact, shards), strict=True):
        progress.add(shard.bytes)
        if good:
            intact[shard.name] = digests[shard.name]
    return intact


def _check_room(layout: Layout, finished: dict[str, str], work: Path) -> None:
    """Tell the size, and refuse what the disk cannot hold."""
    needed = sum(shard.bytes for shard in layout.shards if shard.name not in finished)
    free = shutil.disk_usage(work).free
    kept = f", {len(finished)} of them kept from before" if finished else ""
    _log.info("%s: packing %s%s, %s free", layout.name, _extent(layout), kept, _spell(free))
    if needed > free:
        raise DatasetError(
            f"{work.parent}: no room to pack {layout.name}: {needed:,} bytes are needed, {free:,} are free; make room, "
            "or set prepare.store: files in params/base.yaml to read the prepared files themselves, or set GALD_DATA "
            "to a folder on another disk"
        )


def _write_shards(layout: Layout, finished: dict[str, str], work: Path) -> None:
    """Write the shards that are missing, and note each in `finished` and in the journal."""
    pending = [shard for shard in layout.shards if shard.name not in finished]
    progress = _Progress(f"{layout.name}: packed", sum(shard.bytes for shard in pending))
    pixels = _ahead(layout.read, [sample for shard in pending for sample in shard.samples])
    try:
        for shard in pending:
            finished[shard.name] = _write_shard(shard, pixels, work / shard.name, progress)
            _note(layout, finished, work)
    finally:
        pixels.close()


def _write_shard(shard: Shard, pixels: Iterator[tuple[Pixels, Pixels | None]], path: Path, progress: _Progress) -> str:
    """Write one shard under a temporary name, then give it its own; return its sha256."""
    temporary = path.with_name(f"{path.name}.part")
    running = hashlib.sha256()
    end = 0
    try:
        with temporary.open("wb") as file:
            for sample in shard.samples:
                for offset, array in zip((sample.image, sample.mask), next(pixels), strict=True):
                    if offset is None or array is None:
                        continue
                    for content in (bytes(offset - end), array.reshape(-1).data):
                        running.update(content)
                        file.write(content)
                    progress.add(offset + array.nbytes - end)
                    end = offset + array.nbytes
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk, room is worth more than half a shard
        raise
    return running.hexdigest()


def _conclude(layout: Layout, finished: dict[str, str], work: Path, folder: Path) -> None:
    """Write the indices and then the list of shards; the folder takes its name in one step."""
    for split, text in layout.indices.items():
        write_text(work / f"{split}.csv", text)
    write_json(work / STORE, layout.record(finished))
    work.rename(folder)
    (folder / _JOURNAL).unlink()
    _log.info("%s: packed %s", layout.name, _extent(layout))


def _ahead(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Generator[_Result]:
    """Map in threads, in order and a few items ahead; decoding and hashing release the interpreter's lock."""
    threads = len(os.sched_getaffinity(0))
    pending: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(threads, "pack")
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Progress:
    """A line in the log every few seconds: bytes done, rate, time left."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._begun = self._told = time.monotonic()

    def add(self, count: int) -> None:
        """Count bytes done."""
        self._done += count
        now = time.monotonic()
        if now - self._told >= _TELL_EVERY_S:
            self._told = now
            rate = self._done / (now - self._begun)
            done, total = _spell(self._done), _spell(self._total)
            left = (self._total - self._done) / rate
            _log.info("%s %s of %s, %s/s, %.0f s left", self._what, done, total, _spell(rate), left)


def _extent(layout: Layout) -> str:
    samples = sum(len(split) for split in layout.splits.values())
    shards = len(layout.shards)
    return f"{samples} samples, {_spell(layout.bytes)} in {shards} shard{'' if shards == 1 else 's'}"


def _spell(count: float) -> str:
    """Spell a number of bytes.

    Examples
    --------
    >>> _spell(41_943_040_000), _spell(310e6), _spell(12)
    ('41.9 GB', '310.0 MB', '0.0 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
