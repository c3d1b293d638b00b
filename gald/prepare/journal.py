"""What a prepare has done: one line per finished sample, so that the next one goes on from there.

A folder being made has a journal. When it is whole, its records are kept beside the manifest, in order and without what
differs from machine to machine: they tell whether each file is still what was made, and let a damaged folder be mended.

A record is believed only if nothing has changed since: the raw files by size and time, the prepared ones by size and
digest. A failed sample has no line: it is always tried again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from gald.files import canonical_json, sha256, write_text
from gald.prepare.convert import Record, Task, raw_state

NAME = "journal.jsonl"
KEPT = "records.jsonl"
_TELL_FROM = 1000
"""Files whose comparison takes more than a moment, and is told."""

_log = logging.getLogger("gald")


class Journal:
    """The journal of a folder being made, open for more lines.

    Parameters
    ----------
    folder : Path
        The folder being made; must exist.
    identity : mapping
        What decides the samples' content apart from their raw files; a journal of another identity is not believed.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.path = folder / NAME
        self.records: list[Record] = []
        lines, length = _whole_lines(self.path)
        head = canonical_json(identity)
        self.known = bool(lines) and lines[0] == head
        if self.known:
            self.records = _records(lines[1:])
        self._file: IO[str] = self.path.open("a" if self.known else "w", encoding="utf-8")
        if self.known:
            self._file.truncate(length)
        else:
            self._add(head)

    @staticmethod
    def present(folder: Path) -> bool:
        """Whether a folder has one, so that it is not whole."""
        return (folder / NAME).is_file()

    def append(self, record: Record) -> None:
        """Note a finished sample."""
        self._add(json.dumps(vars(record), ensure_ascii=False))

    def remove(self) -> None:
        """Drop the journal of a folder that is whole."""
        self._file.close()
        self.path.unlink()

    def _add(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()


def still_true(records: Iterable[Record], tasks: Iterable[Task], folder: Path, threads: int) -> list[Record]:
    """Select the records of listed samples whose raw and prepared files are as they were.

    Parameters
    ----------
    records : iterable of Record
        From the journal; of several of one sample the last counts.
    tasks : iterable of Task
        Every sample listed now.
    folder : Path
        The folder being made.
    threads : int
        Files digested at a time.
    """
    latest = {(record.split, str(record.row["id"])): record for record in records}
    listed = {(task.split, task.sample.id): task for task in tasks}
    known = [(record, listed[key]) for key, record in latest.items() if key in listed]
    with ThreadPoolExecutor(threads) as pool:  # hashing releases the interpreter
        kept = pool.map(lambda pair: _is_true(pair[0], pair[1], folder), known)
        return [record for (record, _), true in zip(known, kept, strict=True) if true]


def _is_true(record: Record, task: Task, folder: Path) -> bool:
    if record.raw and [tuple(state) for state in record.raw] != raw_state(task.sample):
        return False
    names = _files(record)
    return len(names) == len(record.written) and all(
        _holds(folder / name, written) for name, written in zip(names, record.written, strict=True)
    )


def _files(record: Record) -> list[str]:
    return [str(record.row[kind]) for kind in ("image", "mask") if record.row[kind]]


def _holds(path: Path, written: Sequence[Any]) -> bool:
    size, digest = written
    try:
        return bool(path.stat().st_size == size and sha256(path) == digest)
    except OSError:
        return False


def keep(folder: Path, identity: Mapping[str, Any], records: Iterable[Record]) -> None:
    """Write the records of a folder that is becoming whole.

    Parameters
    ----------
    folder : Path
        The folder being made.
    identity : mapping
        As of its journal.
    records : iterable of Record
        One per sample, in the order of the indices. The state of their raw files is left out: the identity has the
        digest of those.
    """
    lines = [json.dumps(vars(record) | {"raw": []}, ensure_ascii=False) for record in records]
    write_text(folder / KEPT, "\n".join([canonical_json(identity), *lines]) + "\n")


def damaged(folder: Path, identity: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Compare files of a whole folder with the records that were kept.

    Parameters
    ----------
    folder : Path
        The prepared folder.
    identity : mapping
        What it should have been made of.
    names : sequence of str
        Its images and masks.

    Returns
    -------
    list of str
        Names of the files that are missing or not what was made; of all, if there are no records of this identity.
    """
    lines, _ = _whole_lines(folder / KEPT)
    if not lines or lines[0] != canonical_json(identity):
        return list(names)
    known: dict[str, Sequence[Any]] = {}
    for record in _records(lines[1:]):
        known.update(zip(_files(record), record.written, strict=False))
    if len(names) > _TELL_FROM:
        _log.info("%s: comparing %d files with their digests", folder, len(names))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        whole = pool.map(lambda name: name in known and _holds(folder / name, known[name]), names)
        return [name for name, holds in zip(names, whole, strict=True) if not holds]


def ignored_shares(folder: Path) -> dict[str, float]:
    """Tell how much of each mask is ignored, as it was counted when the mask was made.

    Parameters
    ----------
    folder : Path
        The prepared folder; of one without records, nothing is told.

    Returns
    -------
    dict from str to float
        Share of all pixels, by the sha256 of the mask's pixels.
    """
    shares = {}
    for record in _records(_whole_lines(folder / KEPT)[0][1:]):
        ignored = sum(record.ignored.values())
        pixels = ignored + sum(record.counts)
        if pixels:
            shares[str(record.row.get("mask_sha256"))] = ignored / pixels
    return shares


def reopen(folder: Path, part: Path, identity: Mapping[str, Any]) -> None:
    """Let a folder that is no longer whole become the one being made, so that what is intact of it is not made again.

    Nothing happens if it has no records of this identity, or if such a folder is being made already.

    Parameters
    ----------
    folder : Path
        The prepared folder; may be absent.
    part : Path
        The folder being made; may be absent.
    identity : mapping
        What is to be made.
    """
    head = canonical_json(identity)
    if _head(part / NAME) == head:
        return
    if _head(folder / KEPT) == head:
        (folder / KEPT).replace(folder / NAME)
    if _head(folder / NAME) == head:
        shutil.rmtree(part, ignore_errors=True)
        folder.rename(part)


def _head(path: Path) -> str:
    """First line of a journal; empty if there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n")
    except OSError:
        return ""


def _whole_lines(path: Path) -> tuple[list[str], int]:
    """Lines that end in a newline, and how many bytes they take: the last may have been cut short by a kill."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    whole = content[: content.rfind(b"\n") + 1]
    return whole.decode(errors="replace").split("\n")[:-1], len(whole)  # names may hold other ends of a line


def _records(lines: list[str]) -> list[Record]:
    """Read records; a damaged line is no record, and its sample is made again."""
    records = []
    for line in lines:
        try:
            record = Record(**json.loads(line))
            _ = record.split, record.row["id"], record.row["image"], record.row["mask"]
            _ = [(size, digest) for size, digest in (*record.written, *record.raw)]
            _ = sum(record.counts) + sum(record.ignored.values())
            records.append(record)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return records
