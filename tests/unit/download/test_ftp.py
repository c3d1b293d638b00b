"""A mirror or address that speaks FTP, which has REST for the rest of a file, and time of change for its version."""

import errno
import hashlib
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from gald.datasets._spec import Archive
from gald.download import part, transfer
from gald.download.fetch import fetch
from gald.download.part import Part, Version
from gald.errors import ArchiveError
from gald.files import write_json
from tests.unit.download.ftp_server import CONTENT, FtpSite

HALF = len(CONTENT) // 2


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


@pytest.mark.parametrize("knows_sizes", [True, False])
def test_what_another_source_sent_stays_where_the_file_is_not(
    ftp_site: FtpSite, site: Any, folder: Path, knows_sizes: bool
) -> None:
    ftp_site.knows_sizes = knows_sizes
    site.add("a.zip", content=CONTENT, faults=["cut 196608", "404"])
    digests = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    wanted = Archive("a.zip", (f"{site.url}/a.zip", f"{ftp_site.url}/absent.zip"), digests=digests)
    with pytest.raises(ArchiveError, match=r"absent\.zip: FTP answer 550$"):
        fetch(wanted, folder, None, threading.Event())
    begun = Part(folder, "a.zip")
    assert begun.size == 196608
    assert begun.version is not None
    assert begun.version.url == wanted.urls[0]
    found = fetch(wanted, folder, None, threading.Event())
    assert found is not None
    assert found.source == wanted.urls[0]
    assert site.sent == len(CONTENT)


def test_an_empty_file_takes_nothing_away(ftp_site: FtpSite, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TRIES", 1)
    ftp_site.cuts = [HALF]
    with pytest.raises(ArchiveError, match="broke off"):
        get(ftp_site, folder)
    ftp_site.content = b""
    with pytest.raises(ArchiveError, match=r"a\.zip: sends nothing$"):
        get(ftp_site, folder)
    assert Part(folder, "a.zip").size == HALF


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ETIMEDOUT])
@pytest.mark.parametrize("begun", [False, True])
def test_a_disk_that_fails_is_no_fault_of_the_network(
    ftp_site: FtpSite, site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, begun: bool, number: int
) -> None:
    """When a source is noted beside the bytes: with the first one, or with the first one after another source's."""

    def failing(path: Path, content: dict[str, Any]) -> None:
        if content["url"].startswith("ftp:"):
            raise OSError(number, os.strerror(number))
        write_json(path, content)

    monkeypatch.setattr(part, "write_json", failing)
    site.add("a.zip", content=CONTENT, faults=["cut 196608", "404"])
    urls = (*([f"{site.url}/a.zip"] if begun else []), f"{ftp_site.url}/a.zip")
    wanted = Archive("a.zip", urls, digests={"sha256": hashlib.sha256(CONTENT).hexdigest()})
    with pytest.raises(OSError, match=os.strerror(number)):
        fetch(wanted, folder, None, threading.Event())
    assert Part(folder, "a.zip").size == (196608 if begun else 0)


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


@pytest.mark.parametrize("pinned", [True, False])
def test_all_of_a_file_of_unknown_size_was_there(ftp_site: FtpSite, folder: Path, pinned: bool) -> None:
    """As after a kill between the last byte and the verification."""
    ftp_site.knows_sizes = False
    with Part(folder, "a.zip") as begun:
        begun.begin(Version(f"{ftp_site.url}/a.zip", modified=ftp_site.changed))
        begun.write(CONTENT)
    digests = {"sha256": hashlib.sha256(CONTENT).hexdigest()} if pinned else {}
    assert get(ftp_site, folder, digests=digests) == CONTENT
    assert f"REST {len(CONTENT)}" in ftp_site.asked


def test_what_was_there_of_a_file_of_unknown_size_is_verified(
    ftp_site: FtpSite, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    ftp_site.knows_sizes = False
    with Part(folder, "a.zip") as begun:
        begun.begin(Version(f"{ftp_site.url}/a.zip", modified=ftp_site.changed))
        begun.write(bytes(len(CONTENT)))
    assert get(ftp_site, folder, digests={"sha256": hashlib.sha256(CONTENT).hexdigest()}) == CONTENT
    assert sum(line.startswith("RETR") for line in ftp_site.asked) == 2


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
