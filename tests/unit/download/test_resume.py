"""What has arrived is not asked for again, and two versions of a file are never stitched together."""

import dataclasses
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from gald.download import part, transfer
from gald.download.fetch import fetch
from gald.download.web import _CHUNK
from tests.unit.download.conftest import CONTENT, DIGESTS, HALF, archive, get, refused

PART = [".a.zip.part", ".a.zip.part.json"]
BEGUN = 16 * _CHUNK  # what a connection that breaks off has sent of a chunk is lost


@pytest.mark.parametrize(("fault", "pinned"), [("cut", True), ("cut", False), ("stall", True)])
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
