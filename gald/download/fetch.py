"""Where an archive comes from: the benchmark's archives folder, then a mirror, then its published addresses.

A copy that is there but wrong is an error that says so, never a reason to quietly take the next source: whoever put it
there should know.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

from gald.datasets._spec import Archive
from gald.download.archives import verify
from gald.errors import ArchiveError

MIRROR = "GALD_MIRROR"
"""Environment variable: a folder, or the URL of one, that holds archives by file name."""
TRIES = 3
PAUSE = 2.0
"""Seconds before the second try; doubled before each further one."""
_TIMEOUT = 30.0
_DELETE = "delete it and run the command again"

_log = logging.getLogger("gald")


class Fetched(NamedTuple):
    """A verified copy, and where it came from: "mirror", "by hand", or a URL. Never a local path."""

    path: Path
    source: str
    remedy: str


def fetch(archive: Archive, folder: Path) -> Fetched | None:
    """Find or download one archive.

    Parameters
    ----------
    archive : Archive
        What to get.
    folder : Path
        The benchmark's archives folder: copies laid there by hand are taken, and downloads go there.

    Returns
    -------
    Fetched or None
        None if it is nowhere, and nothing can be downloaded without a login.

    Raises
    ------
    ArchiveError
        A copy is not the published file, or no source can be reached.
    """
    local = folder / archive.name
    if local.is_file():
        verify(local, archive, _DELETE)
        note = _note(local)
        return Fetched(local, note.read_text().strip() if note.is_file() else "by hand", _DELETE)
    failures: list[str] = []
    found = _from_mirror(archive, folder, failures)
    if found is not None:
        return found
    for url in archive.urls:
        if _download(url, url, archive, folder, failures):
            return Fetched(local, url, _DELETE)
    if failures:
        tried = "; ".join(dict.fromkeys(failures))
        raise ArchiveError(
            f"{archive.name} cannot be downloaded: {tried}. Check the network and run the command again, lay the file "
            f"into {folder}, or set {MIRROR} to a folder that holds it"
        )
    return None


def _from_mirror(archive: Archive, folder: Path, failures: list[str]) -> Fetched | None:
    """Look in the mirror, if there is one; a mirror that is a folder is read in place."""
    mirror = os.environ.get(MIRROR, "")
    if mirror.startswith(("http://", "https://")):
        if _download(f"{mirror.rstrip('/')}/{archive.name}", "mirror", archive, folder, failures):
            return Fetched(folder / archive.name, "mirror", _DELETE)
        _log.warning("%s cannot be had from the mirror: %s", archive.name, failures[-1])
    elif mirror:
        root = Path(mirror)
        if not root.is_dir():
            raise ArchiveError(f"{MIRROR} names {root}, which is no folder; create it, or unset {MIRROR}")
        if (root / archive.name).is_file():
            remedy = f"replace it, or unset {MIRROR}"
            verify(root / archive.name, archive, remedy)
            return Fetched(root / archive.name, "mirror", remedy)
        _log.info("%s is not in the mirror", archive.name)
    return None


def _note(local: Path) -> Path:
    """File beside a download that remembers its source, so that a rerun writes the same raw.json."""
    return local.with_name(f".{local.name}.source")


def _download(url: str, source: str, archive: Archive, folder: Path, failures: list[str]) -> bool:
    """Try a URL a few times; True if the archive now lies, verified, in the folder."""
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{archive.name}.part"
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        _log.info("downloading %s%s", url, f", try {attempt + 1} of {TRIES}" if attempt else "")
        progress = _Progress(archive.name)
        try:
            pooch.HTTPDownloader(progressbar=progress, chunk_size=1 << 16, timeout=_TIMEOUT)(url, str(partial), None)
            verify(partial, archive, "the source or the connection altered it")
        except (requests.RequestException, ArchiveError, ValueError) as error:
            partial.unlink(missing_ok=True)
            failures.append(_reason(url, error))
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status is not None and status in (401, 403, 404, 410):
                return False  # a further try would get the same answer
            continue
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _note(folder / archive.name).write_text(f"{source}\n")
        partial.rename(folder / archive.name)
        return True
    return False


def _reason(url: str, error: Exception) -> str:
    """Say in a few words why a download failed; the library's own words run to several lines."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{url}: HTTP status {error.response.status_code}"
    if isinstance(error, requests.ConnectTimeout | requests.ReadTimeout):
        return f"{url}: no answer within {_TIMEOUT:.0f} s"
    if isinstance(error, requests.ConnectionError):
        return f"{url}: no connection"
    return f"{url}: {error}"


class _Progress:
    """Logs how far a download is, at most every five seconds; pooch asks for this interface."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = 0
        self._done = 0
        self._begun = self._told = time.monotonic()

    def update(self, count: int) -> None:
        """Note that `count` more bytes have arrived."""
        self._done += count
        now = time.monotonic()
        if now - self._told >= 5.0:
            self._told = now
            rate = self._done / (now - self._begun)
            left = f", {(self.total - self._done) / rate:.0f} s left" if self.total else ""
            _log.info("%s: %.0f of %.0f MB%s", self.name, self._done / 1e6, self.total / 1e6, left)

    def reset(self) -> None:
        """Start again; pooch calls it before it reports the whole size once more."""
        self._done = 0

    def close(self) -> None:
        """End the progress; there is nothing to clean up."""
