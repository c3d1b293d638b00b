import dataclasses
import errno
import io
import logging
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gald.datasets._spec import Archive, Lookalike
from gald.download import archives
from gald.download.archives import unpack, verify
from gald.errors import ArchiveError
from tests.unit.download.conftest import make_tar, make_zip, unpack_refused

WANTED = {"top-1/a/x.png": b"x" * 3000, "top-1/a/y.png": b"y" * 10, "top-1/README": b"not wanted"}
ARCHIVE = Archive(name="a.zip", strip=r"top-[^/]+/", members=r"a/[^/]+\.png")
TAR = Archive(name="a.tar", strip=r"top-[^/]+/", members=r"a/[^/]+\.png")


@pytest.mark.parametrize(
    ("archive", "make"),
    [(ARCHIVE, make_zip), (TAR, make_tar), (Archive("a.tar.gz", (), TAR.members, TAR.strip), make_tar)],
)
def test_only_what_is_wanted_is_unpacked(tmp_path: Path, archive: Archive, make: Callable[..., Path]) -> None:
    path = make(tmp_path / archive.name, WANTED)
    target = tmp_path / "target"
    target.mkdir()
    assert unpack(path, archive, target, "") == 2
    found = {file.relative_to(target).as_posix(): file.read_bytes() for file in target.rglob("*") if file.is_file()}
    assert found == {"a/x.png": b"x" * 3000, "a/y.png": b"y" * 10}


def test_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(archives, "_TELL_S", 0.0)
    caplog.set_level(logging.INFO)
    (tmp_path / "target").mkdir()
    unpack(make_zip(tmp_path / "a.zip", WANTED), ARCHIVE, tmp_path / "target", "")
    assert "a.zip: 1 of 2 files" in caplog.text


def test_a_plain_file_is_copied(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"{}")
    assert unpack(tmp_path / "elsewhere", Archive("x.json"), tmp_path / "target", "") == 1
    assert (tmp_path / "target" / "x.json").read_bytes() == b"{}"


def test_a_member_without_a_name_is_damage(tmp_path: Path) -> None:
    content = make_zip(tmp_path / "a.zip", {"top-1/a/x.png": b"", "nameless": b""}).read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"nameless", b"\0ameless"))  # readers end a name there
    unpack_refused(tmp_path / "a.zip", ARCHIVE, r"a damaged archive \(a member without a name\)")


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/out.png", "a\\..\\out.png", "C:/out.png"])
@pytest.mark.parametrize(("archive", "make"), [(ARCHIVE, make_zip), (TAR, make_tar)])
def test_no_path_leaves_its_folder(tmp_path: Path, name: str, archive: Archive, make: Callable[..., Path]) -> None:
    unpack_refused(make(tmp_path / archive.name, WANTED | {name: b""}), archive, "outside its folder")
    assert not (tmp_path / "out.png").exists()
    assert not list((tmp_path / "target").iterdir())


def test_no_link_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("a/x.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    unpack_refused(path, ARCHIVE, "is a link")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            link = tarfile.TarInfo("a/x.png")
            link.type = kind
            link.linkname = "/etc/passwd"
            tar.addfile(link)
        unpack_refused(tmp_path / "a.tar", TAR, "is a link")


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.6, 0.97])
@pytest.mark.parametrize(("archive", "make"), [(ARCHIVE, make_zip), (TAR, make_tar)])
def test_truncated(tmp_path: Path, keep: float, archive: Archive, make: Callable[..., Path]) -> None:
    path = make(tmp_path / archive.name, {f"top-1/a/{n}.png": bytes([n]) * 9000 for n in range(5)})
    content = path.read_bytes()
    if archive is TAR and keep > 0.9:
        return  # only the tar's padding is cut off, and nothing is lost
    path.write_bytes(content[: int(len(content) * keep)])
    unpack_refused(path, archive, "damaged|holds no member|fewer")


def test_altered_byte(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", WANTED)
    content = bytearray(path.read_bytes())
    content[content.index(b"x" * 100) + 50] ^= 1
    path.write_bytes(content)
    unpack_refused(path, ARCHIVE, r"damaged archive \(Bad CRC-32 for file 'top-1/a/x.png'\)")


def test_not_the_archive_meant(tmp_path: Path) -> None:
    unpack_refused(make_zip(tmp_path / "a.zip", {"other": b""}), ARCHIVE, r"holds no member like .*is it a\.zip\?")


def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"top-1/a/x.png": b"1", "top-2/a/x.png": b"2"})
    unpack_refused(path, ARCHIVE, "two members are both 'a/x.png'")


def test_a_bomb_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top-1/a/x.png", bytes(70 << 20))
    unpack_refused(path, ARCHIVE, "more than the .* plausible")
    assert not list((tmp_path / "target").iterdir())


def test_no_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "a.zip", WANTED)
    (tmp_path / "target").mkdir()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3009))
    with pytest.raises(OSError, match="needs 3010 bytes, 3009 are free") as caught:
        unpack(path, ARCHIVE, tmp_path / "target", "")
    assert caught.value.errno == errno.ENOSPC
    assert not list((tmp_path / "target").iterdir())


def test_verify_prefers_the_strongest_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"abc")
    good = {
        "md5": "900150983cd24fb0d6963f7d28e17f72",
        "sha1": "a9993e364706816aba3e25717850c26c9cd0d89d",
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    verify(path, Archive("a.zip"), "")
    verify(path, Archive("a.zip", digests=good, size=3), "")
    for algorithm in good:
        verify(path, Archive("a.zip", digests={algorithm: good[algorithm]}), "")
        with pytest.raises(ArchiveError, match=f"expected {algorithm} 00, found {good[algorithm]}; get it again"):
            verify(path, Archive("a.zip", digests={algorithm: "00"}), "get it again")
    with pytest.raises(ArchiveError, match="expected 4 bytes, found 3"):
        verify(path, Archive("a.zip", digests=good, size=4), "")


@pytest.mark.parametrize("name", ["top-1//etc/x.png", "top-1/../x.png"])
def test_no_path_leaves_its_folder_once_its_top_is_cut_off(tmp_path: Path, name: str) -> None:
    everything = Archive("a.zip", strip=r"top-[^/]+/")
    unpack_refused(make_zip(tmp_path / "a.zip", {name: b""}), everything, "outside its folder")


def test_a_file_that_is_also_a_folder(tmp_path: Path) -> None:
    everything = Archive("a.zip")
    unpack_refused(make_zip(tmp_path / "a.zip", {"a": b"", "a/b": b""}), everything, "'a' is both a file and a folder")


@pytest.mark.parametrize("pinned", [True, False])
def test_without_a_digest_the_whole_archive_is_read(tmp_path: Path, pinned: bool) -> None:
    path = make_zip(tmp_path / "a.zip", WANTED)
    content = bytearray(path.read_bytes())
    content[content.index(b"not wanted")] ^= 1
    path.write_bytes(content)
    archive = Archive("a.zip", (), ARCHIVE.members, ARCHIVE.strip, {"md5": "of this very file"} if pinned else {})
    if pinned:
        (tmp_path / "target").mkdir()
        assert unpack(path, archive, tmp_path / "target", "") == 2
    else:
        unpack_refused(path, archive, r"damaged archive \(Bad CRC-32 for file 'top-1/README'\)")


def test_the_checksum_at_the_end_of_a_compressed_tar_is_read(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar.gz", WANTED)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    unpack_refused(path, Archive("a.tar.gz", (), TAR.members, TAR.strip), r"damaged archive \(CRC check failed")


def test_a_bomb_among_what_is_not_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("not wanted")
        info.size = 80 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    unpack_refused(path, Archive("a.tar.gz", (), TAR.members), "more than the .* plausible")


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_FILES", 2)
    unpack_refused(make_zip(tmp_path / "a.zip", WANTED), ARCHIVE, "more than 2 members")


@pytest.mark.parametrize("lie", [-1, 1])
def test_a_declared_size_that_is_not_true(tmp_path: Path, lie: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "a.zip", {"top-1/a/x.png": b"x" * 3000})
    content = path.read_bytes()
    path.write_bytes(content.replace((3000).to_bytes(4, "little"), (3000 + lie).to_bytes(4, "little")))
    unpack_refused(path, ARCHIVE, "damaged|fewer bytes|more bytes")


def test_a_lookalike_is_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"Annotations_Part/x.mat": b""})
    (tmp_path / "target").mkdir()
    lookalikes = (Lookalike("other", "no"), Lookalike("Annotations_Part/", "that of PASCAL-Part"))
    with pytest.raises(ArchiveError, match=r"a\.zip is that of PASCAL-Part; delete it"):
        unpack(path, ARCHIVE, tmp_path / "target", "delete it", lookalikes)


@pytest.mark.parametrize("known", [{"size": 5}, {"digests": {"md5": "00"}}])
@pytest.mark.parametrize(
    ("archive", "make"), [(ARCHIVE, make_zip), (TAR, make_tar), (Archive("a.tar.gz", (), TAR.members), make_tar)]
)
def test_a_lookalike_is_named_before_its_size_and_digest(
    archive: Archive, make: Callable[..., Path], known: dict[str, Any], tmp_path: Path
) -> None:
    wanted = dataclasses.replace(archive, **known)
    lookalikes = (Lookalike("other", "no"), Lookalike("Annotations_Part/", "that of PASCAL-Part"))
    path = make(tmp_path / archive.name, {"a/x.png": b"", "Annotations_Part/x.mat": b""})
    with pytest.raises(ArchiveError, match=rf"^{path} is that of PASCAL-Part; delete it$"):
        verify(path, wanted, "delete it", lookalikes)
    for content in (path.read_bytes()[:30], b"", bytes(20_000)):  # damaged, which no name helps
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match=r"expected .*; delete it$"):
            verify(path, wanted, "delete it", lookalikes)


@pytest.mark.parametrize(
    ("archive", "make"),
    [(ARCHIVE, make_zip), (TAR, make_tar), (Archive("a.tar.gz", (), TAR.members, TAR.strip), make_tar)],
)
def test_damage_of_any_kind_is_one_error(tmp_path: Path, archive: Archive, make: Callable[..., Path]) -> None:
    """Bits flipped and bytes cut at random: what is unpacked is right, or nothing but an ArchiveError is raised."""
    generator = random.Random(0)
    whole = {f"top-1/a/{n}.png": bytes([n]) * 300 for n in range(5)} | {"top-1/b": b"b" * 50}
    content = make(tmp_path / archive.name, whole).read_bytes()
    path = tmp_path / archive.name
    outcomes = set()
    for trial in range(150):
        bad = bytearray(content)
        for _ in range(generator.randint(1, 3)):
            bad[generator.randrange(len(bad))] ^= 1 << generator.randrange(8)
        path.write_bytes(bad[: generator.randint(1, len(bad))] if trial % 3 == 0 else bad)
        target = tmp_path / str(trial)
        target.mkdir()
        try:
            unpack(path, archive, target, "")
            outcomes.add("unpacked")
        except ArchiveError:
            outcomes.add("refused")
        assert all(file.resolve().is_relative_to(target.resolve()) for file in target.rglob("*"))
    assert "refused" in outcomes
