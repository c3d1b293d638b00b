"""What a prepare that was stopped had done: one line per finished sample, so that the next one goes on from there.

A record is believed only if nothing has changed since: the raw files by size and time, the prepared ones by size and
digest. A failed sample has no line: it is always tried again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from gald.files import canonical_json, sha256
from gald.prepare.convert import Record, Task, raw_state

NAME = "journal.jsonl"


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
    if [tuple(state) for state in record.raw] != raw_state(task.sample):
        return False
    names = [str(record.row[kind]) for kind in ("image", "mask") if record.row[kind]]
    try:
        return len(names) == len(record.written) and all(
            (folder / name).stat().st_size == size and sha256(folder / name) == digest
            for name, (size, digest) in zip(names, record.written, strict=True)
        )
    except OSError:
        return False


def _whole_lines(path: Path) -> tuple[list[str], int]:
    """Lines that end in a newline, and how many bytes they take: the last may have been cut short by a kill."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    whole = content[: content.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), len(whole)


def _records(lines: list[str]) -> list[Record]:
    """Read records; a damaged line is no record, and its sample is made again."""
    records = []
    for line in lines:
        try:
            record = Record(**json.loads(line))
            _ = record.split, record.row["id"], record.row["image"], record.row["mask"]
            records.append(record)
        except (ValueError, TypeError, KeyError):
            continue
    return records
