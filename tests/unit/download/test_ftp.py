"""A mirror or address that speaks FTP, which has REST for the rest of a file, and time of change for its version."""

import hashlib
import logging
import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gald.datasets._spec import Archive
from gald.download import transfer
from gald.download.fetch import fetch
from gald.errors import ArchiveError

CONTENT = bytes(range(256)) * 2000
HALF = len(CONTENT) // 2


@dataclass
class FtpSite:
    """What the server holds, and how it misbehaves: `cuts` are numbers of bytes after which it hangs up."""

    url: str = ""
    content: bytes = CONTENT
    changed: str = "20261102100000"
    cuts: list[int] = field(default_factory=list)
    knows_sizes: bool = True
    knows_rests: bool = True
    asked: list[str] = field(default_factory=list)


class Handler(socketserver.StreamRequestHandler):
    site: FtpSite
    rest = 0
    listening: socket.socket

    def handle(self) -> None:
        self.say("220 ready")
        for line in self.rfile:
            verb, _, rest = line.decode().strip().partition(" ")
            self.site.asked.append(f"{verb} {rest}".strip())
            getattr(self, f"do_{verb.lower()}", lambda _: self.say("502 unknown"))(rest)
            if verb == "QUIT":
                return

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def do_user(self, _: str) -> None:
        self.say("331 and the password?")

    def do_pass(self, _: str) -> None:
        self.say("230 welcome")

    def do_type(self, _: str) -> None:
        self.say("200 so be it")

    def do_size(self, _: str) -> None:
        self.say(f"213 {len(self.site.content)}" if self.site.knows_sizes else "502 unknown")

    def do_mdtm(self, _: str) -> None:
        self.say(f"213 {self.site.changed}")

    def do_rest(self, first: str) -> None:
        if not self.site.knows_rests:
            self.say("502 unknown")
            return
        self.rest = int(first)
        self.say("350 from there")

    def do_pasv(self, _: str) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        port = self.listening.getsockname()[1]
        self.say(f"227 here (127,0,0,1,{port // 256},{port % 256})")

    def do_retr(self, path: str) -> None:
        if not path.endswith("a.zip"):
            self.say("550 no such file")
            self.listening.close()
            return
        self.say("150 here it comes")
        body = self.site.content[self.rest :]
        cut = self.site.cuts.pop(0) if self.site.cuts else None
        taken, _ = self.listening.accept()
        with taken, self.listening:
            taken.sendall(body[:cut])
        self.say("226 done" if cut is None else "426 broken off")

    def do_quit(self, _: str) -> None:
        self.say("221 bye")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client may hang up."""


@pytest.fixture
def ftp_site(site: Any) -> Iterator[FtpSite]:
    handler = type("Bound", (Handler,), {"site": FtpSite()})
    with Server(("127.0.0.1", 0), handler) as listening:
        handler.site.url = f"ftp://127.0.0.1:{listening.server_address[1]}/pub"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler.site
        listening.shutdown()
        thread.join()


def get(ftp_site: FtpSite, folder: Path, name: str = "a.zip", **fields: Any) -> bytes:
    found = fetch(Archive(name, (f"{ftp_site.url}/{name}",), **fields), folder, None, threading.Event())
    assert found is not None
    return found.path.read_bytes()


def test_a_file(ftp_site: FtpSite, folder: Path) -> None:
    assert get(ftp_site, folder, size=len(CONTENT)) == CONTENT
    assert "USER anonymous" in ftp_site.asked
    assert "RETR /pub/a.zip" in ftp_site.asked


def test_as_a_mirror_with_a_password(
    ftp_site: FtpSite, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("GALD_MIRROR", ftp_site.url.replace("ftp://", "ftp://me:s3cr3t@"))
    found = fetch(Archive("a.zip"), folder, None, threading.Event())
    assert found is not None
    assert found.source == "mirror"
    assert {"USER me", "PASS s3cr3t"} <= set(ftp_site.asked)
    assert "s3cr3t" not in caplog.text


def test_the_rest_alone_is_asked_for(ftp_site: FtpSite, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ftp_site.cuts = [HALF]
    assert get(ftp_site, folder) == CONTENT
    assert f"REST {HALF}" in ftp_site.asked
    assert "or it broke off; trying again" in caplog.text


@pytest.mark.parametrize("pinned", [True, False])
def test_a_server_that_does_not_send_the_rest_alone(
    ftp_site: FtpSite, folder: Path, caplog: pytest.LogCaptureFixture, pinned: bool
) -> None:
    ftp_site.cuts, ftp_site.knows_rests = [HALF], False
    digests = {"sha256": hashlib.sha256(CONTENT).hexdigest()} if pinned else {}
    assert get(ftp_site, folder, digests=digests) == CONTENT
    assert "the source does not send the rest alone; starting over" in caplog.text
    assert sum(line.startswith("REST") for line in ftp_site.asked) == 1
    assert sum(line.startswith("RETR") for line in ftp_site.asked) == 2


def test_it_goes_on_with_what_another_source_began(ftp_site: FtpSite, site: Any, folder: Path) -> None:
    site.add("a.zip", content=CONTENT, faults=["cut 196608", "404"])
    digests = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    urls = (f"{site.url}/a.zip", f"{ftp_site.url}/a.zip")
    found = fetch(Archive("a.zip", urls, digests=digests), folder, None, threading.Event())
    assert found is not None
    assert found.path.read_bytes() == CONTENT
    assert "REST 196608" in ftp_site.asked


def test_another_version_is_not_stitched(
    ftp_site: FtpSite, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ftp_site.cuts = [HALF]
    ftp_site.content = bytes(len(CONTENT))
    monkeypatch.setattr(transfer, "TRIES", 1)
    with pytest.raises(ArchiveError, match="broke off"):
        get(ftp_site, folder)
    ftp_site.content, ftp_site.changed = CONTENT, "20261103100000"
    assert get(ftp_site, folder) == CONTENT
    assert "the file may have changed at its source; starting over" in caplog.text
    assert not any(line.startswith("REST") for line in ftp_site.asked)


def test_a_server_that_knows_no_sizes(ftp_site: FtpSite, folder: Path) -> None:
    ftp_site.knows_sizes = False
    assert get(ftp_site, folder) == CONTENT


def test_not_there(ftp_site: FtpSite, folder: Path) -> None:
    with pytest.raises(ArchiveError, match=r"absent\.zip: FTP answer 550$"):
        get(ftp_site, folder, "absent.zip")
    assert sum(line.startswith("RETR") for line in ftp_site.asked) == 1


def test_of_another_size(ftp_site: FtpSite, folder: Path) -> None:
    with pytest.raises(ArchiveError, match=r"announces 512000 bytes, the published a\.zip has 5$"):
        get(ftp_site, folder, size=5)
    assert not any(line.startswith("RETR") for line in ftp_site.asked)


def test_what_the_disk_cannot_hold(ftp_site: FtpSite, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(CONTENT) - 1))
    with pytest.raises(ArchiveError, match=rf"^a\.zip needs {len(CONTENT)} bytes to download on the disk of"):
        get(ftp_site, folder)
    assert not any(line.startswith("RETR") for line in ftp_site.asked)
