"""One file at several sources: what one has sent is kept, whatever another answers, and continued where it may be."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest

from gald.datasets._spec import Archive
from gald.download import part, transfer
from gald.download.fetch import fetch
from gald.download.web import _CHUNK
from tests.unit.download.conftest import CONTENT, DIGESTS, get, refused

PART = [".a.zip.part", ".a.zip.part.json"]
BEGUN = 16 * _CHUNK  # what a connection that breaks off has sent of a chunk is lost


def of_two(site: Any, *, pinned: bool = True) -> Archive:
    """An archive with two addresses, whose marks differ."""
    site.add("one/a.zip")
    site.add("two/a.zip", etag='"other"', modified="Tue, 03 Nov 2026 10:00:00 GMT")
    return Archive("a.zip", (f"{site.url}/one/a.zip", f"{site.url}/two/a.zip"), digests=DIGESTS if pinned else {})


@pytest.mark.parametrize("pinned", [True, False])
def test_the_next_source_takes_over(site: Any, folder: Path, pinned: bool) -> None:
    """It goes on with what the first one sent if a digest tells in the end whether the two had the same file."""
    wanted = of_two(site, pinned=pinned)
    site.pages["/one/a.zip"].faults = [f"cut {BEGUN}"] + ["404"] * 9
    assert get(wanted, folder).source == f"{site.url}/two/a.zip"
    assert site.ranges()[-1] == (f"bytes={BEGUN}-" if pinned else None)
    assert site.asked[-1][1]["If-Range"] is None  # the mark of another source would never be met
    assert site.sent == len(CONTENT) + (0 if pinned else BEGUN)


@pytest.mark.parametrize("pinned", [True, False])
def test_the_source_that_began_is_asked_first(
    site: Any, folder: Path, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = of_two(site, pinned=pinned)
    site.pages["/one/a.zip"].faults = ["404"]
    site.pages["/two/a.zip"].faults = [f"cut {BEGUN}", "404"]
    assert refused(wanted, folder, "HTTP status 404") == PART
    assert get(wanted, folder).source == f"{site.url}/two/a.zip"
    assert site.paths() == ["/one/a.zip", *["/two/a.zip"] * 3]
    assert site.sent == len(CONTENT)


def test_sources_that_flap(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Now the one and then the other sends a little and falls ill: each command goes on, whoever answers."""
    monkeypatch.setattr(transfer, "TRIES", 2)
    wanted = of_two(site)
    one, two = site.pages["/one/a.zip"], site.pages["/two/a.zip"]
    piece = 4 * _CHUNK
    ill = ["503"] * 2
    for number in range(4):
        healthy, other = (two, one) if number % 2 == 0 else (one, two)
        healthy.faults, other.faults = [f"cut {piece}", "404"], [*ill]
        assert refused(wanted, folder, "HTTP status 404") == PART
        assert (folder / PART[0]).stat().st_size == (number + 1) * piece
    one.faults, two.faults = [*ill], []
    get(wanted, folder)
    assert site.sent == len(CONTENT)


def test_a_stitched_file_that_is_wrong_comes_once_more_as_a_whole(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transfer, "TRIES", 1)
    wanted = of_two(site)
    site.pages["/one/a.zip"].content = bytes(len(CONTENT))  # of the right length, but another file
    site.pages["/one/a.zip"].faults = [f"cut {BEGUN}"]
    get(wanted, folder)
    assert site.ranges() == [None, f"bytes={BEGUN}-", None]
    assert "two/a.zip: " in caplog.text
    assert "starting over" in caplog.text


def test_a_file_of_another_length_is_not_continued(site: Any, folder: Path) -> None:
    wanted = of_two(site)
    site.pages["/one/a.zip"].content = bytes(len(CONTENT) + 1)
    site.pages["/one/a.zip"].faults = [f"cut {BEGUN}", "404"]
    get(wanted, folder)
    assert site.ranges()[-2:] == [f"bytes={BEGUN}-", None]


@pytest.mark.parametrize("kind", ["http", "ftp"])
def test_a_whole_part_of_a_source_that_is_asked_no_more(
    site: Any, ftp_site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    wanted = of_two(site)
    with monkeypatch.context() as patch:
        patch.setattr(part.Part, "finish", lambda *_: (_ for _ in ()).throw(RuntimeError))
        with pytest.raises(RuntimeError):
            fetch(wanted, folder, None, threading.Event())
    ftp_site.content = CONTENT
    url = wanted.urls[1] if kind == "http" else f"{ftp_site.url}/a.zip"
    assert get(dataclasses.replace(wanted, urls=(url,)), folder).source == url
    assert site.sent == len(CONTENT)
    assert not any(line.startswith("RETR") for line in ftp_site.asked)


@pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[: BEGUN // 2]], ids=["longer", "shorter than the part"])
def test_a_source_of_a_file_of_the_wrong_size_takes_nothing_away(site: Any, folder: Path, content: bytes) -> None:
    wanted = dataclasses.replace(of_two(site), size=len(CONTENT))
    site.pages["/one/a.zip"].faults = [f"cut {BEGUN}", "404"]
    site.pages["/two/a.zip"].content = content
    match = rf"two/a\.zip: announces {len(content)} bytes, the published a\.zip has {len(CONTENT)}"
    assert refused(wanted, folder, match) == PART
    assert (folder / PART[0]).stat().st_size == BEGUN
    assert get(wanted, folder).source == f"{site.url}/one/a.zip"
    assert site.ranges()[-1] == f"bytes={BEGUN}-"
