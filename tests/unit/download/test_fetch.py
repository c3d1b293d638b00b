"""Mirrors and published addresses: what a source may do wrong, and that no byte is asked for twice."""

import dataclasses
import errno
import hashlib
import json
import logging
import shutil
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from gald.datasets._spec import Archive
from gald.download import part, transfer
from gald.download.fetch import fetch
from tests.unit.download.conftest import CONTENT, DIGESTS, HALF, archive, get, refused

TRIES, PAUSE = transfer.TRIES, transfer.PAUSE  # as users have them; the fixture shortens both
PART = [".a.zip.part", ".a.zip.part.json"]


def test_what_the_mirror_lacks_comes_from_its_address(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("a.zip")
    monkeypatch.setenv("GALD_MIRROR", f"{site.url}/absent")
    assert get(archive(site), folder).source == f"{site.url}/a.zip"
    assert site.paths() == ["/absent/a.zip", "/a.zip"]  # a 404 is not asked for twice


def test_a_second_try_and_a_rerun(site: Any, folder: Path) -> None:
    site.add("a.zip", faults=["503", "503"])
    found = get(archive(site), folder)
    assert len(site.asked) == 3
    assert get(archive(site), folder) == found  # the copy is kept, with its source
    assert len(site.asked) == 3


def test_a_copy_that_took_the_place_of_a_download_is_none(site: Any, folder: Path) -> None:
    site.add("a.zip")
    wanted = archive(site, pinned=False)
    assert get(wanted, folder).source == f"{site.url}/a.zip"
    (folder / "a.zip").write_bytes(CONTENT[1:])  # by a person, for which the note of the download does not speak
    found = fetch(wanted, folder, None, threading.Event())
    assert found is not None
    assert (found.source, found.sha256) == ("by hand", hashlib.sha256(CONTENT[1:]).hexdigest())
    (folder / "a.zip").write_bytes(CONTENT)
    assert get(wanted, folder).source == f"{site.url}/a.zip"
    for note in (b"", b"\xff\xfe", f"{site.url}/a.zip\n".encode(), DIGESTS["sha256"].encode()):
        (folder / ".a.zip.source").write_bytes(note)
        assert get(wanted, folder).source == "by hand"


def test_pauses_double_and_the_source_may_ask_for_more(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(part.Part, "pause", lambda _, seconds: pauses.append(seconds))
    monkeypatch.setattr(transfer, "TRIES", TRIES)
    monkeypatch.setattr(transfer, "PAUSE", PAUSE)
    site.add("a.zip", faults=["503", "busy 7", "busy 1", "429", "busy soon"])
    get(archive(site), folder)
    assert pauses == [2.0, 7.0, 8.0, 16.0, 32.0]
    date = formatdate(time.time() + 40, usegmt=True)
    site.add("b.zip", faults=[f"busy {date}"])
    (folder.parent / "other").mkdir()
    get(archive(site, name="b.zip"), folder.parent / "other")
    assert 30 < pauses[5] <= 40
    hour = formatdate(time.time() + 3600, usegmt=True)
    for after in ("3600", hour):
        site.add("c.zip", faults=[f"busy {after}"] * 9)
        refused(archive(site, name="c.zip"), folder, r"c\.zip: HTTP status 503$")
        assert len(pauses) == 6  # nobody waits an hour


def test_a_source_has_a_minute_to_come_back() -> None:
    assert TRIES >= 5
    assert 45 <= sum(PAUSE * 2**number for number in range(TRIES - 1)) <= 75


@pytest.mark.parametrize("status", [500, 503, 403, 404, 410])
def test_a_server_that_stays_ill(site: Any, folder: Path, status: int) -> None:
    site.add("a.zip", faults=[str(status)] * 9)
    assert refused(archive(site), folder, rf"a\.zip: HTTP status {status}$") == [".a.zip.part"]
    assert len(site.asked) == (transfer.TRIES if status >= 500 else 1)


def test_a_length_that_is_not_told(site: Any, folder: Path) -> None:
    site.add("a.zip", length=False)
    get(archive(site, pinned=False), folder)


def test_a_wrong_size_is_refused_before_its_first_byte(site: Any, folder: Path) -> None:
    site.add("a.zip")
    assert refused(archive(site, size=5), folder, "announces 2048000 bytes, the published a.zip has 5") == [PART[0]]
    assert len(site.asked) == 1
    assert (folder / PART[0]).stat().st_size == 0


def test_what_the_disk_cannot_hold_is_refused_before_its_first_byte(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of an archive of unknown size, which counts nothing before a source announces it."""
    site.add("a.zip", faults=["", f"cut {1 << 20}", "404"])
    wanted = archive(site, pinned=False)
    usage, free = shutil.disk_usage(folder), len(CONTENT) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    text = (
        rf"^a\.zip needs {len(CONTENT)} bytes to download on the disk of {folder}, where {free} .2 MB. are free; make"
    )
    twice = dataclasses.replace(wanted, urls=wanted.urls * 2)
    assert refused(twice, folder, text) == PART[:1]
    assert (folder / PART[0]).stat().st_size == 0
    assert len(site.asked) == 1  # no other source has a smaller one
    free = len(CONTENT)
    assert refused(wanted, folder, "404") == PART
    free = len(CONTENT) - (1 << 20)  # what has arrived takes no more room
    get(wanted, folder)


def test_altered_on_the_way(site: Any, folder: Path) -> None:
    site.add("a.zip", faults=["alter"])
    get(archive(site), folder)
    site.add("b.zip", faults=["alter"] * 9)
    refused(archive(site, name="b.zip"), folder, f"expected sha256 {DIGESTS['sha256']}, found .*altered it")
    assert len(site.asked) == 2 + transfer.TRIES
    assert not (folder / ".b.zip.part").exists()


def test_a_web_page_is_no_archive(site: Any, folder: Path) -> None:
    site.add("a.zip", faults=["html"])
    refused(archive(site, pinned=False), folder, "answers with a web page, not with the archive")
    assert len(site.asked) == 1


def test_nothing_is_no_archive(site: Any, folder: Path) -> None:
    site.add("a.zip", faults=["empty"] * 9)
    refused(archive(site, pinned=False), folder, "sends nothing")


def test_redirects(site: Any, folder: Path) -> None:
    site.add("a.zip", redirect="/elsewhere")
    site.add("elsewhere", faults=[f"cut {HALF}"])
    get(archive(site), folder)
    assert site.paths() == ["/a.zip", "/elsewhere"] * 2
    assert site.ranges()[3] is not None
    site.add("loop.zip", redirect="/loop.zip")
    refused(archive(site, name="loop.zip"), folder, "too many redirects")


def test_a_compressed_tar_stays_compressed(site: Any, folder: Path) -> None:
    site.add("a.tar.gz", encoding="x-gzip", kind="application/x-tar")
    get(archive(site, name="a.tar.gz"), folder)


def test_no_network(site: Any, folder: Path) -> None:
    wanted = Archive("a.zip", ("http://127.0.0.1:9/a.zip", "sftp://x/a.zip"))
    refused(wanted, folder, r"http://127\.0\.0\.1:9/a\.zip: no connection; sftp://x/a\.zip: not of the kind http")


def test_full_disk(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    site.add("a.zip")
    with monkeypatch.context() as patch:
        patch.setattr(part.Part, "flush", full)
        with pytest.raises(OSError, match="No space left"):
            fetch(archive(site), folder, None, threading.Event())
    get(archive(site), folder)


def test_stopped(site: Any, folder: Path) -> None:
    site.add("a.zip", rate=1e6)
    stop = threading.Event()

    def stop_soon() -> None:
        while site.sent < HALF // 2:
            time.sleep(0.01)
        stop.set()

    threading.Thread(target=stop_soon, daemon=True).start()
    with pytest.raises(part.Stopped):
        fetch(archive(site), folder, None, stop)
    assert 0 < (folder / ".a.zip.part").stat().st_size < len(CONTENT)
    site.pages["/a.zip"].rate = None
    get(archive(site), folder)
    assert site.ranges()[-1] is not None


def test_progress(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(part, "_TELL_S", 0.0)
    site.add("a.zip")
    get(archive(site), folder)
    assert "a.zip: 2 of 2 MB, " in caplog.text
    assert "MB/s, 0 s left" in caplog.text


def test_what_is_remembered_holds_no_secret_and_is_written_before_the_first_byte(site: Any, folder: Path) -> None:
    site.add("a.zip", faults=["cut 0", "404"])
    refused(archive(site), folder, "404")
    memo = json.loads((folder / ".a.zip.part.json").read_text())
    assert memo == {
        "url": f"{site.url}/a.zip",
        "etag": '"one"',
        "modified": "Mon, 02 Nov 2026 10:00:00 GMT",
        "total": len(CONTENT),
        "stitched": False,
    }
    (folder / ".a.zip.part.json").write_text("{}")  # what cannot be read is as if it were not there
    get(archive(site), folder)
