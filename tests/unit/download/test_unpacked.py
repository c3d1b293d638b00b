"""Each benchmark in each of its forms, taken from a tree that somebody has unpacked."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gald import paths
from gald.cli import main
from gald.commands.audit import audit
from gald.datasets import load_spec
from gald.datasets._spec import DatasetSpec
from gald.download.run import archives_folder, download, files
from gald.errors import ArchiveError
from gald.prepare.run import prepare
from tests.unit.download.publishing import (
    FORMS,
    PREPARE,
    assert_made_alike,
    make_by_drawing,
    publish,
    section,
)

pytestmark = pytest.mark.usefixtures("repository")


def unpack_by_hand(spec: DatasetSpec, tree: Path) -> Path:
    """Unpack a miniature's archives as people do, with all that nobody needs."""
    for archive in spec.archives:
        path = archives_folder("mini", spec.name) / archive.name
        if path.suffix == ".zip":
            shutil.unpack_archive(path, tree)
        elif path.suffix in (".tar", ".gz"):
            shutil.unpack_archive(path, tree, filter="data")
        else:
            shutil.copy(path, tree)
    return tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.mark.parametrize(("name", "source"), FORMS)
def test_from_an_unpacked_tree_to_samples(
    name: str, source: str, site: Any, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = make_by_drawing(name, source)
    spec = publish(site, load_spec(name, source), drawn[0], monkeypatch)
    unpack_by_hand(spec, tree)
    boundary = download("full", name, section(source), unpacked=tree)
    prepare("full", name, PREPARE)
    assert_made_alike(spec, drawn, changed={"archives"})
    nobody = {"sha256": None, "bytes": None, "source": "unpacked tree, archives not verified"}
    listed = json.loads(boundary.read_text())["archives"]
    manifest = json.loads(paths.manifest("full", name).read_text())
    for archive, former, one, kept in zip(
        spec.archives, drawn[0]["archives"], listed, manifest["archives"], strict=True
    ):
        plain = archive.name.endswith(".json")  # is there itself, and so is verified
        assert one == former | ({"source": "unpacked tree"} if plain else nobody)
        assert kept == ({key: one[key] for key in ("name", "sha256", "bytes")} if plain else one)
    page = audit("full", name).read_text()
    assert page.count("unpacked tree, archives not verified") == sum(one["sha256"] is None for one in listed)
    assert not site.asked
    before = boundary.read_bytes()
    assert download("full", name, section(source)).read_bytes() == before  # no archive is asked for later
    assert not site.asked


@pytest.fixture
def ade20k(site: Any, tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The top folder of ADE20K's archive, unpacked."""
    raw = json.loads(download("mini", "ade20k", section("challenge")).read_text())
    spec = publish(site, load_spec("ade20k"), raw, monkeypatch)
    return unpack_by_hand(spec, tree) / "ADEChallengeData2016"


def take(tree: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(download("full", "ade20k", section("challenge"), unpacked=tree).read_text())
    return content


def test_a_tree_as_labs_keep_it(ade20k: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by its top folder, elsewhere behind a link, with what other systems leave; linked, or else copied."""
    elsewhere = ade20k.parent.parent / "elsewhere"
    (ade20k / "images").rename(elsewhere)
    (ade20k / "images").symlink_to(elsewhere)
    (elsewhere / "again").symlink_to(ade20k / "images")  # a circle
    images = sorted((elsewhere / "validation").iterdir())
    for odd in (f"._{images[0].name}", f"{images[0].name}:Zone.Identifier"):
        (elsewhere / "validation" / odd).write_bytes(b"")
    images[1].rename(elsewhere / "one.jpg")
    images[1].symlink_to(elsewhere / "one.jpg")
    content = take(ade20k)
    taken = [files("full", "ade20k") / "images" / "validation" / image.name for image in images]
    assert [path.stat().st_ino for path in taken] == [image.stat().st_ino for image in images]
    assert not any(path.is_symlink() for path in taken)
    paths.raw_json("full", "ade20k").unlink()
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "another device")))
    assert take(ade20k) == content
    assert not {path.stat().st_ino for path in taken} & {image.stat().st_ino for image in images}


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("image and mask", "does not hold all of ADE20K: split val has 2 samples, expected 3"),
        ("image", "ADE_val_00000001"),
        ("everything", "tree holds no file as ADEChallengeData2016.zip does"),
        ("folder", "tree is no folder"),
        ("twice", "two members are both 'images/validation/ADE_val_00000001.jpg'"),
        ("lookalike", "tree is the full ADE20K dataset, whose masks are coloured"),
    ],
)
def test_a_tree_that_is_not_the_whole_benchmark(what: str, text: str, ade20k: Path) -> None:
    tree = ade20k.parent
    image = ade20k / "images" / "validation" / "ADE_val_00000001.jpg"
    if what.startswith("image"):
        image.unlink()
    if what == "image and mask":
        (ade20k / "annotations" / "validation" / "ADE_val_00000001.png").unlink()
    if what == "twice":
        (tree / "images" / "validation").mkdir(parents=True)
        shutil.copy(image, tree / "images" / "validation")
    if what in ("everything", "folder", "lookalike"):
        shutil.rmtree(ade20k)
    if what == "folder":
        tree.rmdir()
    if what == "lookalike":
        (tree / "ADE20K_2021_17_01" / "images").mkdir(parents=True)
        (tree / "ADE20K_2021_17_01" / "images" / "x.jpg").write_bytes(b"")
    with pytest.raises(
        ArchiveError, match=rf"{text}.*; name the folder that the archives were unpacked into"
    ) as caught:
        take(tree)
    assert "\n" not in str(caught.value)
    assert not paths.raw_json("full", "ade20k").exists()
    assert not files("full", "ade20k").exists()


def test_a_tree_of_other_files(site: Any, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CamVid, the digest of whose files is known."""
    drawn = make_by_drawing("camvid", "segnet")
    spec = publish(site, load_spec("camvid"), drawn[0], monkeypatch)
    image = min(unpack_by_hand(spec, tree).rglob("*/val/*.png"))
    image.write_bytes(image.read_bytes() + b"x")
    with pytest.raises(ArchiveError, match=rf"^{tree}: the unpacked files have digest .*expected {spec.tree_sha256}"):
        download("full", "camvid", section("segnet"), unpacked=tree)
    assert not paths.raw_json("full", "camvid").exists()


def test_a_tree_on_another_disk_that_does_not_fit(ade20k: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(ade20k)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    take(ade20k)  # links take no room
    paths.raw_json("full", "ade20k").unlink()
    monkeypatch.setattr("gald.download.unpacked._device", lambda path: path.is_dir())
    with pytest.raises(OSError, match=r"needs .* bytes, 10 are free"):
        take(ade20k)


def test_a_miniature_is_of_no_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "mini/camvid", "--unpacked", "."]) == 2
    assert "mini/camvid: --unpacked goes with the real benchmark, full/camvid" in capsys.readouterr().err
