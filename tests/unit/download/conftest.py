"""A web site of our own that misbehaves on demand: it stalls, cuts, alters, forgets ranges, redirects, wants logins."""

import hashlib
import http.server
import io
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from gald.datasets._spec import Archive, Login
from gald.download import transfer
from gald.download.archives import unpack
from gald.download.fetch import Fetched, fetch
from gald.errors import ArchiveError
from tests.unit.download.ftp_server import FtpSite, serving

CONTENT = bytes(range(256)) * 8000  # some 2 MB
HALF = len(CONTENT) // 2
DIGESTS = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
USER, PASSWORD = "someone@example.org", "hunter2-never-shown"


@dataclass
class Page:
    """A file of the site; `faults` says what goes wrong with the first requests for it, one each.

    A fault is a word and sometimes a number: ``cut 1000`` sends so many bytes and hangs up, ``stall 1000`` falls silent
    instead, ``alter`` flips a bit, ``whole`` answers 200 to a Range, ``shifted`` names another range than was asked
    for, ``416``, ``503`` and so on are statuses, ``busy 1`` is a 503 that asks to wait a second (or until a date),
    ``html`` is a form, ``empty`` a 200 without content, ``pause`` delays, ``meet`` answers when three are asking.
    """

    content: bytes = CONTENT
    etag: str | None = '"one"'
    modified: str | None = "Mon, 02 Nov 2026 10:00:00 GMT"
    faults: list[str] = field(default_factory=list)
    redirect: str | None = None
    protected: bool = False
    length: bool = True
    kind: str = "application/zip"
    encoding: str | None = None
    rate: float | None = None  # bytes a second


@dataclass
class Site:
    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, Message]] = field(default_factory=list)
    sent: int = 0
    logins: int = 0
    tokens: set[str] = field(default_factory=set)
    closing: threading.Event = field(default_factory=threading.Event)
    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(3))

    def add(self, name: str, **fields: Any) -> Page:
        self.pages[f"/{name}"] = Page(**fields)
        return self.pages[f"/{name}"]

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.asked]

    @property
    def login(self) -> Login:
        return Login(
            title="The Site",
            url=f"{self.url}/login",
            register=f"{self.url}/register/",
            variables=("SITE_USERNAME", "SITE_PASSWORD"),
            client="siteclient",
            author="site",
        )


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        self.site.asked.append((self.path, self.headers))
        page = self.site.pages.get(self.path)
        if self.path == "/login":
            self._form()
        elif page is None:
            self._status(404)
        elif page.redirect is not None:
            self._headers(302, {"Location": page.redirect, "Content-Length": "0"})
        elif page.protected and self._token() not in self.site.tokens:
            self._headers(302, {"Location": "/login", "Content-Length": "0"})
        else:
            self._file(page, (page.faults.pop(0) if page.faults else "").partition(" "))

    def do_POST(self) -> None:
        self.site.asked.append((self.path, self.headers))
        self.site.logins += 1
        fields = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if fields == {"username": [USER], "password": [PASSWORD], "submit": ["Login"]}:
            token = f"token{self.site.logins}"
            self.site.tokens.add(token)
            self._headers(302, {"Location": "/", "Set-Cookie": f"session={token}; Path=/", "Content-Length": "0"})
        else:
            self._form()

    def _token(self) -> str:
        return (self.headers.get("Cookie") or "").partition("session=")[2].partition(";")[0]

    def _form(self) -> None:
        body = b"<html><form>Log in</form></html>"
        self._headers(200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _status(self, status: int, headers: dict[str, str] | None = None) -> None:
        self._headers(status, {"Content-Length": "0", **(headers or {})})

    def _headers(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, page: Page, fault: tuple[str, str, str]) -> None:
        word, _, number = fault
        if word == "html":
            return self._form()
        if word == "busy":
            return self._status(503, {"Retry-After": number})
        if word == "empty":
            return self._status(200)
        if word.isdigit() and word != "416":
            return self._status(int(word))
        if word == "pause":
            time.sleep(float(number))
        if word == "meet":
            self.site.meeting.wait(timeout=10.0)
        first = 0 if word in ("whole", "416") else self._first(page)
        marks = {"ETag": page.etag, "Last-Modified": page.modified, "Content-Encoding": page.encoding}
        headers = {"Content-Type": page.kind} | {name: value for name, value in marks.items() if value is not None}
        total = len(page.content)
        if word == "416" or first >= total > 0:
            return self._status(416, headers | {"Content-Range": f"bytes */{total}"})
        body = page.content[first:]
        if first:
            told = first + (7 if word == "shifted" else 0)
            headers["Content-Range"] = f"bytes {told}-{total - 1}/{total}"
        if page.length:
            headers["Content-Length"] = str(len(body))
        else:
            headers["Connection"] = "close"
        self._headers(206 if first else 200, headers)
        self._body(page, body, word, number)
        return None

    def _first(self, page: Page) -> int:
        asked = self.headers.get("Range", "")
        condition = self.headers.get("If-Range")
        if not asked or (condition is not None and condition not in (page.etag, page.modified)):
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _body(self, page: Page, body: bytes, word: str, number: str) -> None:
        if word == "alter":
            body = bytes([body[0] ^ 1]) + body[1:]
        if word in ("cut", "stall"):
            body = body[: int(number)]
        step = 1 << 14
        for start in range(0, len(body), step):
            if self.site.closing.is_set():
                break
            self.wfile.write(body[start : start + step])
            self.site.sent += len(body[start : start + step])
            if page.rate is not None:
                time.sleep(step / page.rate)
        if word == "stall":
            self.wfile.flush()
            self.site.closing.wait(30.0)
        if word in ("cut", "stall") or not page.length:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that was killed hangs up in the middle."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The site, empty; tries are few and quick, and no mirror or account of this machine is used."""
    monkeypatch.setattr(transfer, "TRIES", 3)
    monkeypatch.setattr(transfer, "PAUSE", 0.01)
    monkeypatch.setattr(transfer, "TIMEOUT", 5.0)
    for name in ("GALD_MIRROR", "GALD_OFFLINE", "SITE_USERNAME", "SITE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Bound", (Handler,), {})
    with Server(("127.0.0.1", 0), handler) as listening:
        handler.site = Site(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler.site
        handler.site.closing.set()
        listening.shutdown()
        thread.join()


@pytest.fixture
def ftp_site(site: Site) -> Iterator[FtpSite]:
    """A server of FTP, with what holds for the site."""
    with serving() as found:
        yield found


@pytest.fixture
def repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As everywhere, without a mirror or an account of this machine."""
    monkeypatch.delenv("GALD_MIRROR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(repository / "home"))
    return repository


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "archives").mkdir()
    return tmp_path / "archives"


def archive(site: Site, *, name: str = "a.zip", pinned: bool = True, **fields: Any) -> Archive:
    return Archive(name, (f"{site.url}/{name}",), digests=DIGESTS if pinned else {}, **fields)


def get(wanted: Archive, folder: Path) -> Fetched:
    """Fetch what holds `CONTENT`; nothing else may be left in the folder."""
    found = fetch(wanted, folder, None, threading.Event())
    assert found is not None
    assert found.path.read_bytes() == CONTENT
    assert found.sha256 == DIGESTS["sha256"]
    assert sorted(path.name for path in folder.iterdir()) == [f".{wanted.name}.source", wanted.name]
    return found


def refused(wanted: Archive, folder: Path, match: str) -> list[str]:
    """Expect an error in one line; return the names of what is left."""
    with pytest.raises(ArchiveError, match=match) as caught:
        fetch(wanted, folder, None, threading.Event())
    assert "\n" not in str(caught.value)
    return sorted(path.name for path in folder.iterdir())


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def unpack_refused(path: Path, archive: Archive, match: str) -> None:
    """Expect one ArchiveError that names the file and ends with the remedy."""
    target = path.parent / "target"
    target.mkdir(exist_ok=True)
    with pytest.raises(ArchiveError, match=match) as caught:
        unpack(path, archive, target, "get it again")
    assert path.name in str(caught.value)
    assert str(caught.value).endswith("get it again")
    assert "\n" not in str(caught.value)
