"""Mirrors and published addresses: what a source may do wrong, and that no byte is asked for twice."""

import dataclasses
import errno
import hashlib
import json
import logging
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gald.commands.datasets import datasets
from gald.datasets import load_spec
from gald.datasets._spec import Archive
from gald.download import part, transfer, web
from gald.download.fetch import Fetched, fetch, mirrors
from gald.errors import ArchiveError

CONTENT = bytes(range(256)) * 8000
DIGESTS = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
HALF = len(CONTENT) // 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "archives").mkdir()
    return tmp_path / "archives"


def archive(site: Any, *, name: str = "a.zip", pinned: bool = True, **fields: Any) -> Archive:
    return Archive(name, (f"{site.url}/{name}",), digests=DIGESTS if pinned else {}, **fields)


def get(wanted: Archive, folder: Path) -> Fetched:
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


PART = [".a.zip.part", ".a.zip.part.json"]


def test_mirrors_in_order(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("second/a.zip")
    monkeypatch.setenv("GALD_MIRROR", f"{site.url}/first {site.url}/second/ {site.url}/third")
    found = get(Archive("a.zip", ("http://127.0.0.1:9/never",)), folder)
    assert (found.path, found.source) == (folder / "a.zip", "mirror")
    assert site.paths() == ["/first/a.zip", "/second/a.zip"]


def test_mirrors_that_are_folders(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = tmp_path / "with blanks"
    spaced.mkdir()
    (spaced / "a.zip").write_bytes(CONTENT)
    for value in (str(spaced), f"{spaced.as_uri()}", f"{folder} {spaced.as_uri()}"):
        monkeypatch.setenv("GALD_MIRROR", value)
        found = fetch(Archive("a.zip", digests=DIGESTS), folder, None, threading.Event())
        assert found is not None
        assert (found.path, found.source) == (spaced / "a.zip", "mirror")
    monkeypatch.setenv("GALD_MIRROR", f"{folder} {tmp_path}/nowhere")
    with pytest.raises(ArchiveError, match=r"GALD_MIRROR names .*nowhere, which is no folder; create it, or unset"):
        mirrors()
    monkeypatch.setenv("GALD_MIRROR", "")
    assert mirrors() == ()


@pytest.mark.parametrize("entry", ["htps://me:s3cr3t@host/x", "sftp://me:s3cr3t@host", "://me:s3cr3t@host"])
def test_a_mirror_of_unknown_kind_is_not_told(entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GALD_MIRROR", f"http://127.0.0.1:9 {entry}")
    section = SimpleNamespace(seed=0, source=lambda name: load_spec(name).source)
    for ask in (mirrors, lambda: datasets(section)):
        with pytest.raises(ArchiveError, match=r"GALD_MIRROR holds a URL that is none of http") as caught:
            ask()
        assert "s3cr3t" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_what_the_mirror_lacks_comes_from_its_address(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("a.zip")
    monkeypatch.setenv("GALD_MIRROR", f"{site.url}/absent")
    assert get(archive(site), folder).source == f"{site.url}/a.zip"
    assert site.paths() == ["/absent/a.zip", "/a.zip"]  # a 404 is not asked for twice


def test_secrets_of_a_mirror_are_not_told(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    host = site.url.removeprefix("http://")
    monkeypatch.setenv("GALD_MIRROR", f"http://me:s3cr3t@{host}/absent ftp://me:s3cr3t@127.0.0.1:9 http://me:s3cr3t@[/")
    with pytest.raises(ArchiveError, match="GALD_MIRROR holds what is neither a folder nor a URL") as caught:
        fetch(Archive("a.zip"), folder, None, threading.Event())
    assert "s3cr3t" not in str(caught.value)
    monkeypatch.setenv("GALD_MIRROR", f"http://me:s3cr3t@{host}/absent ftp://me:s3cr3t@127.0.0.1:9")
    with pytest.raises(ArchiveError, match="HTTP status 404") as caught:
        fetch(Archive("a.zip"), folder, None, threading.Event())
    assert "s3cr3t" not in caplog.text + str(caught.value)
    site.add("a.zip", faults=["cut 1000"])
    monkeypatch.setenv("GALD_MIRROR", f"http://me:s3cr3t@{host}")
    get(Archive("a.zip"), folder)
    assert "s3cr3t" not in caplog.text
    assert not any("s3cr3t" in path.read_text() for path in folder.glob(".*"))


def test_a_second_try_and_a_rerun(site: Any, folder: Path) -> None:
    site.add("a.zip", faults=["503", "503"])
    found = get(archive(site), folder)
    assert len(site.asked) == 3
    assert get(archive(site), folder) == found  # the copy is kept, with its source
    assert len(site.asked) == 3


def test_pauses_double_and_the_source_may_ask_for_more(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(part.Part, "pause", lambda _, seconds: pauses.append(seconds))
    monkeypatch.setattr(transfer, "TRIES", 5)
    monkeypatch.setattr(transfer, "PAUSE", 2.0)
    site.add("a.zip", faults=["503", "busy 7", "busy 1", "429"])
    get(archive(site), folder)
    assert pauses == [2.0, 7.0, 8.0, 16.0]
    site.add("b.zip", faults=["busy 3600"] * 9)
    refused(archive(site, name="b.zip"), folder, r"b\.zip: HTTP status 503$")
    assert len(pauses) == 4  # nobody waits an hour


@pytest.mark.parametrize("status", [500, 503, 403, 404, 410])
def test_a_server_that_stays_ill(site: Any, folder: Path, status: int) -> None:
    site.add("a.zip", faults=[str(status)] * 9)
    assert refused(archive(site), folder, rf"a\.zip: HTTP status {status}$") == [".a.zip.part"]
    assert len(site.asked) == (transfer.TRIES if status >= 500 else 1)


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_what_has_arrived_is_not_asked_for_again(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str, pinned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    if fault == "stall":
        monkeypatch.setattr(transfer, "TIMEOUT", 1.0)
    page = site.add("a.zip", faults=[f"{fault} {HALF}"])
    get(archive(site, pinned=pinned), folder)
    first, second = site.ranges()
    assert first is None
    assert second is not None
    begin = int(second.removeprefix("bytes=").removesuffix("-"))
    assert HALF - (1 << 16) <= begin <= HALF
    assert site.asked[1][1]["If-Range"] == page.etag
    assert f"going on from {begin / 1e6:.1f} MB" in caplog.text


def test_many_broken_connections_are_no_failure(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "STEP", 100_000)
    site.add("a.zip", faults=["cut 300000"] * 6)
    get(archive(site), folder)
    assert len(site.asked) == 7  # with three tries
    monkeypatch.setattr(transfer, "STEP", 1 << 30)
    site.add("b.zip", faults=["cut 300000"] * 6)
    refused(archive(site, name="b.zip"), folder, "the connection broke off")
    assert len(site.asked) == 10


def test_the_next_command_goes_on(site: Any, folder: Path) -> None:
    site.add("a.zip", faults=[f"cut {HALF}", "503", "503"])
    assert refused(archive(site), folder, "HTTP status 503") == PART
    sent = site.sent
    get(archive(site), folder)
    assert site.sent - sent < HALF + (1 << 17)


def test_a_copy_laid_there_meanwhile(site: Any, folder: Path) -> None:
    site.add("a.zip", faults=[f"cut {HALF}", "404"])
    assert refused(archive(site), folder, "HTTP status 404") == PART
    (folder / "a.zip").write_bytes(CONTENT)
    found = fetch(archive(site), folder, None, threading.Event())
    assert found is not None
    assert found.source == "by hand"
    assert [path.name for path in folder.iterdir()] == ["a.zip"]


def test_killed_between_the_last_byte_and_the_name(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("a.zip")
    with monkeypatch.context() as patch:
        patch.setattr(part.Part, "finish", lambda *_: (_ for _ in ()).throw(RuntimeError))
        with pytest.raises(RuntimeError):
            fetch(archive(site), folder, None, threading.Event())
    get(archive(site), folder)
    assert len(site.asked) == 1


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("how", ["etag", "weak etag", "modified", "same range of another file"])
def test_two_versions_are_never_stitched(
    site: Any, folder: Path, how: str, pinned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    page = site.add("a.zip", content=bytes(len(CONTENT)), faults=[f"cut {HALF}", "503", "503"])
    if how == "modified":
        page.etag = None
    elif how == "weak etag":
        page.etag, page.modified = 'W/"one"', None
    assert refused(archive(site, pinned=pinned), folder, "503") == PART
    page.content = CONTENT
    if how == "modified":
        page.modified = "Tue, 03 Nov 2026 10:00:00 GMT"
    else:
        page.etag = 'W/"two"' if how == "weak etag" else '"two"'
    if how == "same range of another file":  # a server that does not know If-Range
        site.pages["/a.zip"] = CarelessPage(**{k: getattr(page, k) for k in page.__dataclass_fields__})
    get(archive(site, pinned=pinned), folder)
    assert "has changed at its source" in caplog.text or len(site.asked) > 4


@pytest.mark.parametrize("marks", [("etag",), ("modified",), ("etag", "modified")])
def test_a_rest_without_the_mark_is_of_any_version(site: Any, folder: Path, marks: tuple[str, ...]) -> None:
    """A server that names its mark with the whole file, and none with the rest of what may be another one."""
    page = site.add("a.zip", content=bytes(len(CONTENT)), faults=[f"cut {HALF}", "503", "503"])
    for mark in {"etag", "modified"} - {*marks}:
        setattr(page, mark, None)
    assert refused(archive(site, pinned=False), folder, "503") == PART
    page.content = CONTENT
    site.pages["/a.zip"] = UnmarkedRest(**{k: getattr(page, k) for k in page.__dataclass_fields__})
    found = get(archive(site, pinned=False), folder)
    assert found.sha256 == DIGESTS["sha256"]
    assert [asked is None for asked in site.ranges()[-2:]] == [False, True]


class UnmarkedRest:
    """A page whose server heeds no condition, and names no mark."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)
        self.etag = AnyTag("")
        self.modified = None


class CarelessPage:
    """A page whose server takes every condition for met."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)
        self.mark = fields["etag"]

    @property
    def etag(self) -> Any:
        return AnyTag(self.mark)

    @etag.setter
    def etag(self, value: str) -> None:
        self.mark = value


class AnyTag(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True


def test_no_mark_at_all(site: Any, folder: Path) -> None:
    """Without one, only a published digest can tell two versions apart, so only then is anything continued."""
    site.add("a.zip", etag=None, modified=None, faults=[f"cut {HALF}"])
    get(archive(site, pinned=False), folder)
    assert site.ranges() == [None, None]
    site.add("b.zip", etag=None, modified=None, faults=[f"cut {HALF}"])
    get(archive(site, name="b.zip"), folder.parent / make(folder.parent / "other"))
    assert site.ranges()[2] is None
    assert site.ranges()[3] is not None


def make(folder: Path) -> str:
    folder.mkdir()
    return folder.name


def test_stitched_all_the_same(site: Any, folder: Path) -> None:
    """Without a mark the two versions are found out by the digest, and the file comes again as a whole."""
    page = site.add(
        "a.zip", etag=None, modified=None, content=bytes(len(CONTENT)), faults=[f"cut {HALF}", "503", "503"]
    )
    refused(archive(site), folder, "503")
    page.content = CONTENT
    get(archive(site), folder)
    assert [asked is None for asked in site.ranges()[3:]] == [False, True]


def test_a_server_that_sends_the_whole_file_instead_of_the_rest(
    site: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site.add("a.zip", faults=[f"cut {HALF}", "whole"])
    get(archive(site), folder)
    assert "does not send the rest alone; starting over" in caplog.text


def test_a_server_that_sends_another_range(site: Any, folder: Path) -> None:
    site.add("a.zip", faults=[f"cut {HALF}", "shifted"])
    get(archive(site), folder)
    assert [asked is None for asked in site.ranges()] == [True, False, True]


def test_range_not_satisfiable_since_all_is_there(site: Any, folder: Path) -> None:
    """A server that does not tell the length, killed after the last byte."""
    page = site.add("a.zip", length=False, faults=["", "503", "503"])
    wanted = archive(site)
    bad = dataclasses.replace(wanted, digests={"sha256": "00"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "_verified", lambda *_: (_ for _ in ()).throw(RuntimeError))
        with pytest.raises(RuntimeError):
            fetch(bad, folder, None, threading.Event())
    page.faults = []
    get(wanted, folder)
    assert site.ranges() == [None, f"bytes={len(CONTENT)}-"]
    assert site.sent == len(CONTENT)


def test_range_not_satisfiable_since_the_file_is_another(site: Any, folder: Path) -> None:
    page = site.add("a.zip", content=CONTENT + CONTENT, faults=[f"cut {len(CONTENT) + HALF}", "503", "503"])
    refused(archive(site), folder, "503")
    page.content, page.etag, page.faults = CONTENT, '"two"', ["416"]
    get(archive(site), folder)


def test_a_length_that_is_not_told(site: Any, folder: Path) -> None:
    site.add("a.zip", length=False)
    get(archive(site, pinned=False), folder)


def test_a_wrong_size_is_refused_before_its_first_byte(site: Any, folder: Path) -> None:
    site.add("a.zip")
    assert refused(archive(site, size=5), folder, "announces 2048000 bytes, the published a.zip has 5") == [PART[0]]
    assert len(site.asked) == 1
    assert (folder / PART[0]).stat().st_size == 0


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


def test_the_next_source_takes_over(site: Any, folder: Path) -> None:
    site.add("one/a.zip", faults=[f"cut {HALF}"] + ["404"] * 9)
    site.add("two/a.zip", etag='"other"')
    wanted = Archive("a.zip", (f"{site.url}/one/a.zip", f"{site.url}/two/a.zip"), digests=DIGESTS)
    assert get(wanted, folder).source == f"{site.url}/two/a.zip"
    assert site.ranges()[-1] is None  # the other source's bytes are not continued


def test_no_network(site: Any, folder: Path) -> None:
    wanted = Archive("a.zip", ("http://127.0.0.1:9/a.zip", "sftp://x/a.zip"))
    refused(wanted, folder, r"http://127\.0\.0\.1:9/a\.zip: no connection; sftp://x/a\.zip: not of the kind http")


def test_offline(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("a.zip")
    monkeypatch.setenv("GALD_OFFLINE", "1")
    refused(archive(site), folder, r"a\.zip: not asked, since GALD_OFFLINE is set")
    assert not site.asked
    monkeypatch.setenv("GALD_OFFLINE", "0")
    get(archive(site), folder)


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
    }
    (folder / ".a.zip.part.json").write_text("{}")  # what cannot be read is as if it were not there
    get(archive(site), folder)


def test_nowhere_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GALD_MIRROR", raising=False)
    assert fetch(Archive("a.zip"), folder, None, threading.Event()) is None


def test_addresses_are_shown_without_secrets() -> None:
    assert web.shown("ftp://a:b@h/x?y=1#z") == "ftp://h/x?y=1#z"
