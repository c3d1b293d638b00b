"""One request over HTTP or HTTPS that brings a part forward: pooch transfers, the answer is checked before it writes.

A part is continued with ``Range`` and ``If-Range``. What the server answers decides: 206 of the same version appends,
206 of another one or 416 starts over, 200 means that the whole file comes. A web page in place of an archive is what a
login form, or a host that has closed, looks like.
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from gald.datasets._spec import Archive
from gald.download.part import Part, SourceError, Version
from gald.download.places import Address, shown
from gald.download.space import check_transfer

if TYPE_CHECKING:
    from requests import Response
    from requests.cookies import RequestsCookieJar

_CHUNK = 1 << 16
_LONGEST_WAIT_S = 60.0
_HOPELESS = (401, 403, 404, 410)  # a further try would get the same answer

_log = logging.getLogger("gald")


class PageError(SourceError):
    """The source answers with a web page, as for somebody who has not logged in."""


def get(address: Address, part: Part, archive: Archive, cookies: RequestsCookieJar | None, timeout: float) -> None:
    """Ask once, and append what comes.

    Parameters
    ----------
    address : Address
        Of the file.
    part : Part
        Closed; what of it belongs to the same version is kept.
    archive : Archive
        Says what is known of the file.
    cookies : RequestsCookieJar or None
        Of a host that asks for a login.
    timeout : float
        Seconds without a byte after which the connection counts as dead.

    Raises
    ------
    SourceError
        No answer, a refusal, or an end before the end; the message holds no secret, and neither does its chain.
    ArchiveError
        The disk cannot hold what the source announces.
    OSError
        The disk is full.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)  # its debug lines hold whole addresses
    check = _Check(address.shown, part, archive)
    problem: SourceError | None = None
    with part:
        try:
            pooch.HTTPDownloader(
                progressbar=False,
                chunk_size=_CHUNK,
                timeout=timeout,
                headers=check.headers(),
                cookies=cookies,
                hooks={"response": check},
            )(address.url, part, None)
        except (requests.RequestException, UnicodeError, ValueError) as error:
            problem = _problem(address.shown, error, timeout)
        finally:
            check.close()
    if problem is not None and not check.complete:
        raise problem


def _problem(url: str, error: Exception, timeout: float) -> SourceError:
    """Say in a few words why a request failed; the library's own words run to several lines, and may hold secrets."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        status, wait_s = error.response.status_code, _asked_to_wait(error.response)
        again = status not in _HOPELESS and wait_s <= _LONGEST_WAIT_S
        return SourceError(f"{url}: HTTP status {status}", again=again, wait_s=wait_s)
    text = str(error)
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return SourceError(f"{url}: no answer within {timeout:g} s")
    if isinstance(error, requests.TooManyRedirects):
        return SourceError(f"{url}: too many redirects", again=False)
    if isinstance(error, requests.exceptions.SSLError):
        return SourceError(f"{url}: its certificate cannot be verified", again=False)
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or "IncompleteRead" in text:
        return SourceError(f"{url}: the connection broke off")
    if isinstance(error, requests.ConnectionError):
        return SourceError(f"{url}: no connection")
    return SourceError(f"{url}: {type(error).__name__}, not an address that can be asked", again=False)


def _asked_to_wait(answer: Response) -> float:
    """Return the seconds that a source asks to be left alone, which it tells as a number or as a date."""
    after = answer.headers.get("Retry-After", "").strip()
    if after.isdecimal():
        return float(after)
    try:
        until = parsedate_to_datetime(after)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without its zone
        return 0.0


class _Check:
    """Looks at each answer before a byte of it is written; `requests` calls it."""

    def __init__(self, url: str, part: Part, archive: Archive) -> None:
        self.complete = False
        self._url = url
        self._part = part
        self._archive = archive
        self._answer: Response | None = None
        self._pinned = bool(archive.digests)
        resumable = part.resumable(self._url, pinned=self._pinned)
        self._offset = part.size if resumable else 0
        self._known = part.version if resumable else None

    def headers(self) -> dict[str, str]:
        """Headers of the request: never compressed on the way, since ranges count the bytes that are sent."""
        headers = {"Accept-Encoding": "identity"}
        if self._known is not None:
            headers["Range"] = f"bytes={self._offset}-"
            etag = self._known.etag
            strong = etag if etag is not None and not etag.startswith("W/") else self._known.modified
            if strong is not None and self._known.url == self._url:  # another source has marks of its own
                headers["If-Range"] = strong
        return headers

    def close(self) -> None:
        """Hang up."""
        if self._answer is not None:
            self._answer.close()

    def __call__(self, answer: Response, **_: object) -> None:
        """Prepare the part for the answer's bytes, or refuse them."""
        self._answer = answer
        if answer.is_redirect or (answer.status_code >= 400 and answer.status_code != 416):
            return  # followed, or raised by pooch
        if answer.status_code == 416:
            self._unsatisfiable(answer)
            return
        self._refuse_page(answer)
        if answer.status_code not in (200, 206):
            raise SourceError(f"{self._url}: HTTP status {answer.status_code}")
        # Some hosts call a .tar.gz a compressed tar, and would have it unpacked on arrival.
        answer.raw.headers.pop("Content-Encoding", None)
        if answer.status_code == 206:
            self._continue(answer)
        else:
            self._start(answer)

    def _refuse_page(self, answer: Response) -> None:
        kind = answer.headers.get("Content-Type", "")
        login = self._archive.login
        if kind.startswith("text/html") or (login is not None and shown(answer.url or "").startswith(login.url)):
            hint = "" if login is None else f"; is the account allowed to have it? Log in at {login.url} and see"
            raise PageError(
                f"{self._url}: answers with a web page, not with the archive{hint}", again=login is not None
            )

    def _version(self, answer: Response, total: int | None) -> Version:
        return Version(self._url, answer.headers.get("ETag"), answer.headers.get("Last-Modified"), total)

    def _start(self, answer: Response) -> None:
        """Take the whole file from its first byte."""
        length = answer.headers.get("Content-Length", "")
        version = self._version(answer, int(length) if length.isdigit() else None)
        check_total(version, self._archive, self._part)
        if self._known is not None:
            same = self._known.url != self._url or self._known.same_as(version)
            why = "the source does not send the rest alone" if same else "the file has changed at its source"
            _log.warning("%s: %s; starting over", self._archive.name, why)
        self._part.begin(version)
        self._part.expect(version.total)

    def _continue(self, answer: Response) -> None:
        """Append the rest, if it is the rest of the same version."""
        first, total = _content_range(answer)
        version = self._version(answer, total)
        check_total(version, self._archive, self._part)  # before bytes are dropped for a file that nobody wants
        if first != self._offset or not self._goes_on_as(version):
            self._part.drop()
            raise SourceError(f"{self._url}: the file has changed at its source, or cannot be told from another")
        _log.info("%s: going on from %.1f MB", self._archive.name, self._offset / 1e6)
        self._part.go_on(version)
        self._part.expect(total)

    def _goes_on_as(self, version: Version) -> bool:
        return self._known is not None and self._known.goes_on_as(version, pinned=self._pinned)

    def _unsatisfiable(self, answer: Response) -> None:
        """Nothing lies beyond the part: either it is all there is, or it is of something else."""
        total = _content_range(answer)[1]
        version = self._version(answer, total)
        check_total(version, self._archive, self._part)  # before bytes are dropped for a file that nobody wants
        self.complete = total is not None and total == self._offset and self._goes_on_as(version)
        if not self.complete:
            self._part.drop()
            raise SourceError(f"{self._url}: the file has changed at its source")


def check_total(version: Version, archive: Archive, part: Part) -> None:
    """Refuse a file of the wrong size, or one that the disk cannot hold, before its first byte.

    Raises
    ------
    SourceError
        The source announces another size than the published one.
    ArchiveError
        The disk has too little room.
    """
    if None not in (version.total, archive.size) and version.total != archive.size:
        raise SourceError(
            f"{version.url}: announces {version.total} bytes, the published {archive.name} has {archive.size}",
            again=False,
        )
    check_transfer(part, version.total)


def _content_range(answer: Response) -> tuple[int | None, int | None]:
    """First byte and whole size, each None if not told.

    The two forms are ``bytes 5-9/10`` and, with status 416, ``bytes */10``.
    """
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if found is None:
        return None, None
    first, total = found.groups()
    return (None if first is None else int(first), None if total == "*" else int(total))
