"""A file on its way: the bytes so far, and which version of the file at its source they belong to.

Bytes are appended to ``.<name>.part``; beside it ``.<name>.part.json`` remembers the version as soon as the source has
named it, before the first byte. Both survive a kill, so that the next try, or the next command, goes on with what is
there, and never stitches two versions of a file together: only a file with a published digest, which would find that
out, is continued from another source than it was begun from.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from gald.errors import ArchiveError
from gald.files import write_json

_TELL_S = 5.0

_log = logging.getLogger("gald")


class Stopped(Exception):
    """The command ends, and with it this download; its part stays."""


class SourceError(ArchiveError):
    """One try at one source failed.

    Attributes
    ----------
    again : bool
        Whether a further try may go better.
    wait_s : float
        Seconds that the source asks to be left alone.
    """

    def __init__(self, message: str, *, again: bool = True, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.again = again
        self.wait_s = wait_s


class StitchError(SourceError):
    """What came from several sources is not the published file; it is gone, and the next try asks for all of it."""


@dataclass(frozen=True)
class Version:
    """What tells one version of a file at a source from another: as much of it as the source names.

    `stitched` is no such mark: it says that the bytes so far came from several sources, the last one being `url`.
    """

    url: str
    etag: str | None = None
    modified: str | None = None
    total: int | None = None
    stitched: bool = False

    @property
    def marked(self) -> bool:
        """Whether a change of the file at its source would show."""
        return self.etag is not None or self.modified is not None

    def same_as(self, other: Version) -> bool:
        """Whether nothing that both name differs.

        Examples
        --------
        >>> Version("u", etag="a").same_as(Version("u", etag="a", total=3))
        True
        >>> Version("u", etag="a").same_as(Version("u", etag="b"))
        False
        """
        mine, others = asdict(self), asdict(other)
        marks = ("url", "etag", "modified", "total")
        return all(None in (mine[key], others[key]) or mine[key] == others[key] for key in marks)

    def goes_on_as(self, other: Version, *, pinned: bool) -> bool:
        """Whether bytes of the other may follow those of this one.

        Parameters
        ----------
        other : Version
            What the source tells now.
        pinned : bool
            Whether a published digest would find out bytes of two versions; without one a mark has to be repeated, and
            no other source will do.

        Examples
        --------
        >>> Version("u", etag="a").goes_on_as(Version("u"), pinned=True)
        True
        >>> Version("u", etag="a").goes_on_as(Version("u"), pinned=False)
        False
        >>> Version("u", etag="a", total=3).goes_on_as(Version("v", etag="b", total=3), pinned=True)
        True
        """
        if self.url != other.url:
            return pinned and self.total is not None and self.total == other.total
        repeated = any(
            mark is not None and mark == again
            for mark, again in ((self.etag, other.etag), (self.modified, other.modified))
        )
        return self.same_as(other) and (pinned or repeated)


class Part:
    """The file on its way, open for more bytes while in a ``with`` block.

    Parameters
    ----------
    folder : Path
        Existing folder.
    name : str
        Name of the file that this becomes.
    stop : Event, optional
        Once set, no more bytes are taken.
    """

    def __init__(self, folder: Path, name: str, stop: threading.Event | None = None) -> None:
        self.name = name
        self.path = folder / f".{name}.part"
        self.failure: OSError | None = None  # of this disk; what else is an OSError is one of the network
        self._memo = folder / f".{name}.part.json"
        self._stop = stop or threading.Event()
        self._file: IO[bytes] | None = None
        self._progress = _Progress(name, 0)

    def __enter__(self) -> Part:
        """Open for appending."""
        self._file = self.path.open("ab")
        self._progress = _Progress(self.name, self.size)
        return self

    def __exit__(self, *_: object) -> None:
        """Close; what has arrived stays."""
        assert self._file is not None  # opened on entry
        self._file.close()
        self._file = None

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> Version | None:
        """Version that the bytes belong to; None if nothing is remembered."""
        try:
            return Version(**json.loads(self._memo.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def whole(self) -> bool:
        """Whether all bytes have arrived, as far as their number is known."""
        version = self.version
        return version is not None and version.total is not None and version.total == self.size

    def resumable(self, url: str, *, pinned: bool) -> bool:
        """Whether the bytes may be continued from a URL.

        Parameters
        ----------
        url : str
            Source, as in `Version`.
        pinned : bool
            Whether a published digest would find out bytes of two versions.
        """
        version = self.version
        if version is None or self.size == 0:
            return False
        if version.total is not None and self.size > version.total:
            return False  # its source did not send what it was asked for
        if version.url != url:
            return pinned and version.total is not None
        return pinned or version.marked

    def begin(self, version: Version) -> None:
        """Start over, with the first byte of a version."""
        assert self._file is not None  # in the with block
        with self._on_disk():
            self._file.truncate(0)
            write_json(self._memo, asdict(version))
        self._progress = _Progress(self.name, 0)

    def go_on(self, version: Version) -> None:
        """Keep what is there; note if what comes next is of another source."""
        known = self.version
        if known is not None and known.url != version.url:
            with self._on_disk():
                write_json(self._memo, asdict(replace(version, stitched=True)))

    def expect(self, total: int | None) -> None:
        """Note how many bytes there will be, for the progress."""
        self._progress.total = total

    def write(self, chunk: bytes) -> int:
        """Append bytes.

        Raises
        ------
        Stopped
            The command ends.
        OSError
            The disk is full; kept as `failure`.
        """
        if self._stop.is_set():
            raise Stopped
        assert self._file is not None  # in the with block
        with self._on_disk():
            count = self._file.write(chunk)
        self._progress.update(count)
        return count

    def flush(self) -> None:
        """Hand buffered bytes to the system; pooch calls it after each chunk."""
        assert self._file is not None  # in the with block
        with self._on_disk():
            self._file.flush()

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Keep the error of a disk that is full, which looks like one of the network."""
        try:
            yield
        except OSError as error:
            self.failure = error
            raise

    def pause(self, seconds: float) -> None:
        """Wait, unless the command ends.

        Raises
        ------
        Stopped
            It does.
        """
        if self._stop.wait(seconds):
            raise Stopped

    def drop(self) -> None:
        """Forget the bytes."""
        if self._file is not None:
            self._file.truncate(0)
        else:
            self.path.unlink(missing_ok=True)
        self._memo.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Give the whole file its name."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.rename(target)
        self._memo.unlink(missing_ok=True)


class _Progress:
    """Logs how far a download is, at most every five seconds."""

    def __init__(self, name: str, done: int) -> None:
        self.total: int | None = None
        self._name = name
        self._done = self._first = done
        self._begun = self._told = time.monotonic()

    def update(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._told < _TELL_S:
            return
        self._told = now
        rate = (self._done - self._first) / (now - self._begun)
        if self.total is None:
            _log.info("%s: %.0f MB, %.1f MB/s", self._name, self._done / 1e6, rate / 1e6)
        else:
            left = (self.total - self._done) / rate
            _log.info(
                "%s: %.0f of %.0f MB, %.1f MB/s, %s left",
                self._name,
                self._done / 1e6,
                self.total / 1e6,
                rate / 1e6,
                f"{left / 60:.0f} min" if left >= 120 else f"{left:.0f} s",
            )
