"""Tars whose headers, or whose end, have no end."""

import gzip
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from gald.datasets._spec import Archive
from gald.download.archives import unpack
from tests.unit.download.conftest import make_tar, unpack_refused

TAR = Archive(name="a.tar", strip=r"top-[^/]+/", members=r"a/[^/]+\.png")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("kind", ["pax", "global pax", "GNU long name", "many"])
def test_a_header_may_not_fill_the_memory(kind: str, name: str, tmp_path: Path) -> None:
    """A header of 32 MB, which a compressed tar holds in some kB."""
    types = {"pax": tarfile.XHDTYPE, "global pax": tarfile.XGLTYPE, "GNU long name": tarfile.GNUTYPE_LONGNAME}
    size = 32 << 20 if kind != "many" else 100 << 10
    header = tarfile.TarInfo("x")
    header.type, header.size = types.get(kind, tarfile.XGLTYPE), size
    with (tmp_path / name).open("wb") if name == "a.tar" else gzip.open(tmp_path / name, "wb", 1) as file:
        for _ in range(20 if kind == "many" else 1):
            file.write(header.tobuf())
            for _ in range(size // (100 << 10)):
                file.write(bytes(100 << 10))
    tracemalloc.start()
    unpack_refused(tmp_path / name, Archive(name, (), TAR.members, TAR.strip), "header of implausible size|damaged")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 << 20


def test_headers_of_many_members_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_tar(tmp_path / "a.tar", {f"top-1/a/{n}.png": b"" for n in range(40)})
    monkeypatch.setattr("gald.download.bounded._MOST_HEADERS", 30 * 512)
    unpack_refused(path, TAR, "header of implausible size")
    monkeypatch.setattr("gald.download.bounded._MOST_HEADERS", 60 * 512)
    assert unpack(path, TAR, tmp_path / "target", "") == 40


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_what_follows_the_last_member_is_bounded(name: str, tmp_path: Path) -> None:
    """Zeros without end are some kB when compressed; a little more than the usual padding is no matter."""
    content = make_tar(tmp_path / "plain.tar", {"top-1/a/x.png": b"x"}).read_bytes()
    archive = Archive(name, (), TAR.members, TAR.strip)
    for padding, bad in ((1 << 20, False), (40 << 20, True)):
        with (tmp_path / name).open("wb") if name == "a.tar" else gzip.open(tmp_path / name, "wb", 1) as file:
            file.write(content)
            for _ in range(padding >> 20):
                file.write(bytes(1 << 20))
        if bad:
            unpack_refused(tmp_path / name, archive, "more than 16777216 bytes after the last member")
        else:
            (tmp_path / "target").mkdir()
            assert unpack(tmp_path / name, archive, tmp_path / "target", "") == 1
