"""Mirrors and published addresses that are URLs, on a server of our own."""

import errno
import http.server
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gald.datasets._spec import Archive
from gald.download import fetch as module
from gald.download.fetch import fetch
from gald.errors import ArchiveError
from gald.files import sha256

CONTENT = bytes(range(256)) * 2000


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; counts requests, and fails the first ones if asked."""

    asked: list[str] = []  # noqa: RUF012 - one server per test, cleared by its fixture
    failures = 0

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if len(self.asked) <= type(self).failures:
            self.send_error(503)
        elif self.path == "/cut.zip":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a folder that holds a.zip; its SHA is true to `CONTENT`."""
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.delenv("GALD_MIRROR", raising=False)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.zip").write_bytes(CONTENT)
    Server.asked, Server.failures = [], 0
    handler = partial(Server, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archives"


def refused(archive: Archive, folder: Path, match: str) -> None:
    """Expect one line, and nothing left in the folder."""
    with pytest.raises(ArchiveError, match=match) as caught:
        fetch(archive, folder)
    assert "\n" not in str(caught.value)
    assert not list(folder.iterdir())


def test_mirror(server: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALD_MIRROR", f"{server}/")
    found = fetch(Archive("a.zip", urls=("http://127.0.0.1:9/never",)), folder)
    assert found is not None
    assert (found.path, found.source) == (folder / "a.zip", "mirror")
    assert found.path.read_bytes() == CONTENT


def test_what_the_mirror_lacks_comes_from_its_address(
    server: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALD_MIRROR", f"{server}/absent")
    found = fetch(Archive("a.zip", urls=(f"{server}/a.zip",)), folder)
    assert found is not None
    assert found.source == f"{server}/a.zip"
    assert Server.asked == ["/absent/a.zip", "/a.zip"]  # a 404 is not asked for twice


def test_a_second_try_and_a_rerun(server: str, folder: Path, tmp_path: Path) -> None:
    Server.failures = 2
    archive = Archive("a.zip", (f"{server}/a.zip",), digests={"sha256": sha256(tmp_path / "web" / "a.zip")})
    found = fetch(archive, folder)
    assert len(Server.asked) == 3
    assert fetch(archive, folder) == found  # the copy is kept, with its source
    assert len(Server.asked) == 3


def test_a_server_that_stays_ill(server: str, folder: Path) -> None:
    Server.failures = 99
    refused(Archive("a.zip", (f"{server}/a.zip",)), folder, r"a\.zip: HTTP status 503\. Check the network")
    assert len(Server.asked) == module.TRIES


def test_not_there(server: str, folder: Path) -> None:
    refused(Archive("a.zip", (f"{server}/absent.zip",)), folder, r"absent\.zip: HTTP status 404\. Check the network")
    assert len(Server.asked) == 1


def test_altered_on_the_way(server: str, folder: Path) -> None:
    refused(Archive("a.zip", (f"{server}/a.zip",), digests={"sha256": "00"}), folder, "expected sha256 00, found")
    assert len(Server.asked) == module.TRIES


def test_cut_off_on_the_way(server: str, folder: Path) -> None:
    refused(Archive("a.zip", (f"{server}/cut.zip",)), folder, "cannot be downloaded")


def test_no_network(server: str, folder: Path) -> None:
    refused(Archive("a.zip", ("http://127.0.0.1:9/a.zip",)), folder, r"http://127\.0\.0\.1:9/a\.zip: no connection\.")


def test_full_disk(server: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "verify", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(Archive("a.zip", (f"{server}/a.zip",)), folder)
    assert not list(folder.iterdir())


def test_nowhere_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GALD_MIRROR", raising=False)
    assert fetch(Archive("a.zip"), folder) is None
