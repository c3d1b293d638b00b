"""The download stage: drawn archives, mirrors, addresses, hands, and what can go wrong with each."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from gald import paths
from gald.datasets import camvid, cityscapes, load_spec, names
from gald.datasets._writers import draw_archives
from gald.download import archives
from gald.download.run import archives_folder, download, files
from gald.errors import ArchiveError, DatasetError
from gald.files import sha256, tree_digest
from gald.process.locking import held
from tests.processes import wait_until


def params(seed: int = 3, **sources: str) -> SimpleNamespace:
    """A download section."""
    return SimpleNamespace(seed=seed, source=lambda dataset: sources.get(dataset) or load_spec(dataset).source)


PARAMS = params()
ZIP = camvid.SPEC.archives[0].name


def leftovers(root: Path) -> list[str]:
    """Everything half-written: temporary siblings, and what would be taken for whole."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob(".*part*"))


@pytest.fixture
def drawn_camvid(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror whose CamVid archive is a miniature, taken for the real one by its digest."""
    mirror = repository / "mirror"
    mirror.mkdir()
    draw_archives("camvid", mirror, 3)
    boundary = download("mini", "camvid", PARAMS)
    digest = json.loads(boundary.read_text())["tree_sha256"]
    monkeypatch.setattr(camvid, "SPEC", dataclasses.replace(camvid.SPEC, tree_sha256=digest))
    return mirror


@pytest.mark.parametrize("name", names())
def test_same_seed_same_bytes(name: str, repository: Path) -> None:
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        (repository / folder).mkdir()
        draw_archives(name, repository / folder, seed)
    assert tree_digest(repository / "a") == tree_digest(repository / "b")
    for archive in (repository / "a").iterdir():
        assert sha256(archive) != sha256(repository / "c" / archive.name)


def test_mini_is_drawn_once(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boundary = download("mini", "camvid", PARAMS)
    content = json.loads(boundary.read_text())
    assert content["edition"] == "mini"
    assert content["generator"] == {"version": content["generator"]["version"], "seed": 3}
    assert content["files"] == 2 * (9 + 3 + 3) + 3
    assert content["tree_sha256"] == tree_digest(files("mini", "camvid"))
    (listed,) = content["archives"]
    copy = archives_folder("mini", "camvid") / ZIP
    assert listed == {"name": ZIP, "sha256": sha256(copy), "bytes": copy.stat().st_size, "source": "drawn"}
    before = boundary.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("gald.datasets._writers.draw_archives", None)  # a second call must not need it
        assert download("mini", "camvid", PARAMS).stat().st_mtime_ns == before
    other = json.loads(download("mini", "camvid", params(seed=4)).read_text())
    assert other["generator"]["seed"] == 4
    assert other["tree_sha256"] != content["tree_sha256"]


def test_each_source_has_a_miniature(repository: Path) -> None:
    usual = download("mini", "camvid", PARAMS).read_bytes()
    other = json.loads(download("mini", "camvid", params(camvid="original")).read_text())
    assert other["source"] == "original"
    assert [archive["name"] for archive in other["archives"]] == [
        archive.name for archive in load_spec("camvid", "original").archives
    ]
    assert other["tree_sha256"] == tree_digest(files("mini", "camvid")) != json.loads(usual)["tree_sha256"]
    assert download("mini", "camvid", PARAMS).read_bytes() == usual
    with pytest.raises(DatasetError, match="camvid has no source 'segnett'; did you mean 'segnet'"):
        download("mini", "camvid", params(camvid="segnett"))


def test_damaged_files_are_made_again(repository: Path) -> None:
    boundary = download("mini", "camvid", PARAMS)
    whole = boundary.read_bytes()
    next(files("mini", "camvid").rglob("*.png")).write_bytes(b"")
    download("mini", "camvid", PARAMS)
    assert boundary.read_bytes() == whole
    assert tree_digest(files("mini", "camvid")) == json.loads(whole)["tree_sha256"]


def test_mirror_folder(drawn_camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALD_MIRROR", str(drawn_camvid))
    text = download("full", "camvid", PARAMS).read_text()
    assert json.loads(text)["archives"][0]["source"] == "mirror"
    assert json.loads(text)["generator"] is None
    assert str(drawn_camvid) not in text


def test_mirror_that_is_not_there(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALD_MIRROR", str(repository / "nowhere"))
    with pytest.raises(ArchiveError, match=r"GALD_MIRROR names .*nowhere, which is no folder; create it, or unset"):
        download("full", "camvid", PARAMS)
    assert not paths.raw_json("full", "camvid").exists()


@pytest.mark.parametrize("change", ["truncated", "altered", "other content"])
def test_a_bad_copy_in_the_mirror_is_not_used(
    change: str, drawn_camvid: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drawn_camvid / ZIP
    content = bytearray(path.read_bytes())
    if change == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif change == "altered":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        draw_archives("camvid", drawn_camvid, 99)  # a sound archive, but of other files
    monkeypatch.setenv("GALD_MIRROR", str(drawn_camvid))
    with pytest.raises(ArchiveError, match=f"{path}.*replace it, or unset GALD_MIRROR") as caught:
        download("full", "camvid", PARAMS)
    assert "\n" not in str(caught.value)
    assert not paths.raw_json("full", "camvid").exists()
    assert not files("full", "camvid").exists()
    assert not leftovers(repository)


def test_digests_are_held_before_unpacking(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives_folder("full", "cityscapes").mkdir(parents=True)
    draw_archives("cityscapes", archives_folder("full", "cityscapes"), 3)
    with pytest.raises(ArchiveError, match=r"gtFine_trainvaltest\.zip: expected sha1 99f532cb.*, found .*; delete it"):
        download("full", "cityscapes", PARAMS)
    sound = tuple(
        dataclasses.replace(a, digests=archives.checksums(archives_folder("full", "cityscapes") / a.name, ["sha1"]))
        for a in cityscapes.SPEC.archives
    )
    monkeypatch.setattr(cityscapes, "SPEC", dataclasses.replace(cityscapes.SPEC, archives=sound))
    content = json.loads(download("full", "cityscapes", PARAMS).read_text())
    assert [archive["source"] for archive in content["archives"]] == ["by hand", "by hand"]
    assert content["files"] == 2 * (9 + 3) + 3  # of the test split the images alone; no root files, which collide


def test_what_needs_a_login_is_explained(repository: Path) -> None:
    with pytest.raises(ArchiveError) as caught:
        download("full", "cityscapes", PARAMS)
    for part in (
        "gtFine_trainvaltest.zip",
        "leftImg8bit_trainvaltest.zip",
        "https://www.cityscapes-dataset.com/register/",
        "What you accept or do: accept its own terms on registration, https://www.cityscapes-dataset.com/license/",
        "data/raw/full/cityscapes/archives",
        "GALD_MIRROR",
        "99f532cb1af174f5fcc4c5bc8feea8c66246ddbc",  # the strongest digest that is published
        "CITYSCAPES_USERNAME and CITYSCAPES_PASSWORD",
        "cityscapesscripts/credentials.json",
    ):
        assert part in str(caught.value)


def test_full_disk_leaves_nothing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(member: object, target: Path, path: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"half")
        if target.suffix == ".txt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(OSError, match=r"No space left on device: 'data/raw/mini/camvid'"):
        download("mini", "camvid", PARAMS)
    assert not paths.raw_json("mini", "camvid").exists()
    assert not files("mini", "camvid").exists()
    assert not leftovers(repository)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_read_only_folder(repository: Path) -> None:
    paths.DATA_ROOT.mkdir()
    paths.DATA_ROOT.chmod(0o555)
    with pytest.raises(PermissionError):
        download("mini", "camvid", PARAMS)
    paths.DATA_ROOT.chmod(0o755)


def test_two_at_once(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    made: list[Path] = []
    other = threading.Thread(target=lambda: made.append(download("mini", "camvid", PARAMS)))
    with held("download/mini/camvid", wait_s=0.0):
        other.start()
        wait_until(lambda: f"waiting for process {os.getpid()}" in caplog.text)
        assert not made
    other.join(60)
    assert made[0].is_file()
    assert caplog.text.count("waiting for") == 1


def test_the_list_of_files(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boundary = download("mini", "camvid", PARAMS)
    listing = boundary.with_name("files.sha256")
    assert sha256(listing) == json.loads(boundary.read_text())["tree_sha256"]
    assert len(listing.read_text().splitlines()) == 2 * (9 + 3 + 3) + 3
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "../files.sha256"], cwd=files("mini", "camvid"), check=False
    )
    assert done.returncode == 0
    content = listing.read_bytes()
    monkeypatch.setattr("gald.datasets._writers.draw_archives", None)  # the files are whole, and the list is enough
    for damage in (lambda: listing.unlink(), lambda: listing.write_bytes(b"0")):
        damage()
        download("mini", "camvid", PARAMS)
        assert listing.read_bytes() == content


def test_a_damaged_raw_json_is_made_again(repository: Path) -> None:
    boundary = download("mini", "camvid", PARAMS)
    whole = boundary.read_bytes()
    many = whole.replace(b'"files": 33', b'"files": "many"')
    for content in (b"[]", b"{", b"\xff\xfe", b"null", b"{}", b'"text"', many):
        boundary.write_bytes(content)
        assert download("mini", "camvid", PARAMS).read_bytes() == whole, content


def test_unknown_edition(repository: Path) -> None:
    with pytest.raises(DatasetError, match="no edition is called 'ful'"):
        download("ful", "camvid", PARAMS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    ["gald.download.run.unpack", "pathlib.Path.rename", "gald.download.run.write_text", "gald.download.run.write_json"],
)
def test_killed_at_a_bad_moment(moment: str, repository: Path) -> None:
    """Die as by kill -9, then run again: the same files and the same raw.json as if nothing had happened."""
    code = f"""
        import os
        from types import SimpleNamespace
        from unittest import mock
        from gald.download.run import download
        with mock.patch({moment!r}, lambda *_: os._exit(9)):
            download("mini", "pascal_context", SimpleNamespace(seed=3, source=lambda _: "json"))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == 9
    assert not paths.raw_json("mini", "pascal_context").exists()
    again = download("mini", "pascal_context", PARAMS).read_bytes()
    assert not leftovers(repository)
    paths.raw_json("mini", "pascal_context").unlink()
    assert download("mini", "pascal_context", PARAMS).read_bytes() == again
