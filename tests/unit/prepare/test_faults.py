"""What is wrong with raw data is told whole and by name; what may be left out is left out and named."""

import errno
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gald import paths
from gald.datasets import load_spec, names
from gald.datasets._spec import RawSample
from gald.errors import DatasetError
from gald.prepare.run import prepare
from tests.unit.prepare.conftest import relist

Make = Callable[..., SimpleNamespace]
LayOut = Callable[..., Path]


def spoil(root: Path) -> list[Path]:
    """Damage four files of the training split and one of val; return the images concerned, in order."""
    images = sorted((root / "CamVid" / "train").iterdir())
    masks = sorted((root / "CamVid" / "trainannot").iterdir())
    masks[1].write_bytes(masks[1].read_bytes()[:200])
    images[2].unlink()
    images[4].write_bytes(b"")
    masks[4].write_text("<html>not found</html>")
    val = min((root / "CamVid" / "val").iterdir())
    Image.fromarray(np.zeros((95, 192, 3), dtype=np.uint8)).save(val)
    relist("camvid")
    return [images[1], images[2], images[4], val]


def undefined(root: Path, position: int = 0) -> Path:
    """Draw an id that is none into a mask."""
    path = sorted((root / "CamVid" / "trainannot").iterdir())[position]
    Image.fromarray(np.full((96, 192), 12, dtype=np.uint8)).save(path)
    relist("camvid")
    return path


@pytest.mark.parametrize("processes", [1, 2])
def test_all_problems_in_one_list(
    processes: int, lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gald.prepare.pool._FEWEST", 5)
    root = lay_out("camvid")
    one, two, three, val = spoil(root)
    mask = undefined(root)
    with pytest.raises(DatasetError) as caught:
        prepare("mini", "camvid", params(processes))
    first, *listed, last = str(caught.value).splitlines()
    assert first == (
        "mini/camvid: 6 problems with the raw data (missing image: 1, size mismatch: 1, undefined raw id: 1, "
        "unreadable image: 1, unreadable mask: 2):"
    )
    annotation = root / "CamVid" / "trainannot"
    assert listed == [
        f"  {mask}: raw id 12 is not defined by CamVid",
        f"  {annotation / one.name}: unreadable mask (image file is truncated)",
        f"  {two}: missing",
        f"  {three}: unreadable image (not an image of a known format)",
        f"  {annotation / three.name}: unreadable mask (not an image of a known format)",
        f"  {val}: is 192x95, its mask {root / 'CamVid/valannot' / val.name} is 192x96",
    ]
    assert last.startswith("Get the named files again")
    assert not paths.prepared("mini", "camvid").exists()


def test_a_very_long_list_goes_on_in_the_log(
    lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gald.prepare.problems._MOST_SHOWN", 2)
    root = lay_out("camvid")
    *_, val = spoil(root)
    with pytest.raises(DatasetError, match=r"and 3 more, in the log") as caught:
        prepare("mini", "camvid", params())
    assert str(val) not in str(caught.value)
    assert str(val) in caplog.text


def test_damaged_samples_are_left_out_by_name(lay_out: LayOut, params: Make, caplog: pytest.LogCaptureFixture) -> None:
    root = lay_out("camvid")
    spoilt = spoil(root)
    path = prepare("mini", "camvid", params(on_error="skip"))
    manifest = json.loads(path.read_text())
    assert manifest["on_error"] == "skip"
    assert {split: [one["id"] for one in listed] for split, listed in manifest["skipped"].items()} == {
        "train": [image.stem for image in spoilt[:3]],
        "val": [spoilt[3].stem],
        "test": [],
    }
    name = f"{spoilt[2].stem}.png"
    assert manifest["skipped"]["train"][2]["problem"] == (
        f"CamVid/train/{name}: unreadable image (not an image of a known format); "
        f"CamVid/trainannot/{name}: unreadable mask (not an image of a known format)"
    )
    assert {split: entry["count"] for split, entry in manifest["splits"].items()} == {"train": 6, "val": 2, "test": 3}
    assert len(list((path.parent / "images" / "train").iterdir())) == 6
    counts = "missing image: 1, size mismatch: 1, unreadable image: 1, unreadable mask: 2"
    assert f"leaves out 4 samples ({counts})" in caplog.text
    for image in spoilt:
        assert image.name in caplog.text


def test_what_was_left_out_is_remembered(lay_out: LayOut, params: Make, caplog: pytest.LogCaptureFixture) -> None:
    root = lay_out("camvid")
    broken = min((root / "CamVid" / "train").iterdir())
    content = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(content[:100])
    relist("camvid")
    made = prepare("mini", "camvid", params(on_error="skip")).read_bytes()
    caplog.set_level(logging.INFO)
    assert prepare("mini", "camvid", params(on_error="skip")).read_bytes() == made
    assert "without 1 samples; delete its manifest.json to try them again" in caplog.text
    with pytest.raises(DatasetError, match="1 problem with the raw data"):  # what was made by skipping does not do
        prepare("mini", "camvid", params(on_error="stop"))
    broken.write_bytes(content)
    relist("camvid")
    manifest = json.loads(prepare("mini", "camvid", params(on_error="stop")).read_text())
    assert (manifest["on_error"], manifest["splits"]["train"]["count"]) == ("stop", 9)
    assert manifest["skipped"] == {"train": [], "val": [], "test": []}


def test_an_undefined_id_is_never_skipped(lay_out: LayOut, params: Make) -> None:
    root = lay_out("camvid")
    mask = undefined(root)
    for on_error in ("stop", "skip"):
        with pytest.raises(DatasetError, match="raw id 12 is not defined by CamVid") as caught:
            prepare("mini", "camvid", params(on_error=on_error))
        assert str(mask) in str(caught.value)
    assert "undefined raw id cannot be skipped" in str(caught.value)
    Image.fromarray(np.zeros((96, 192, 3), dtype=np.uint8)).save(mask)
    relist("camvid")
    with pytest.raises(DatasetError, match="mask of another form cannot be skipped"):
        prepare("mini", "camvid", params(on_error="skip"))


def test_skipping_has_limits(lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lay_out("camvid")
    for path in (root / "CamVid" / "val").iterdir():
        path.write_bytes(b"")
    relist("camvid")
    with pytest.raises(DatasetError, match=r"3 problems .*; nothing would be left of split val:"):
        prepare("mini", "camvid", params(on_error="skip"))
    monkeypatch.setattr("gald.prepare.problems._MOST_SKIPPED", 1)
    with pytest.raises(DatasetError, match=r"nothing would be left"):
        prepare("mini", "camvid", params(on_error="skip"))
    spoil(lay_out_again(root))
    with pytest.raises(DatasetError, match=r"of more than 1 samples, none is skipped"):
        prepare("mini", "camvid", params(on_error="skip"))


def lay_out_again(root: Path) -> Path:
    """Fill the emptied images of val."""
    for path in (root / "CamVid" / "val").iterdir():
        Image.fromarray(np.zeros((96, 192, 3), dtype=np.uint8)).save(path)
    return root


@pytest.mark.parametrize("name", names())
def test_missing_files_are_told(name: str, lay_out: LayOut, params: Make) -> None:
    with pytest.raises(DatasetError, match=f"raw.json is missing; run `gald download mini/{name}` first"):
        prepare("mini", name, params())
    root = lay_out(name)
    boundary = paths.raw_json("mini", name)
    whole = boundary.read_text()
    for damaged in ("{", "[]", '{"tree_sha256": "0"}'):
        boundary.write_text(damaged)
        with pytest.raises(DatasetError, match=r"raw\.json is damaged .* delete it and run `gald download"):
            prepare("mini", name, params())
    boundary.write_text(whole.replace('"source": "' + load_spec(name).source, '"was": "'))
    with pytest.raises(DatasetError, match=rf"does not name its source; run `gald download mini/{name}` again"):
        prepare("mini", name, params())
    boundary.write_text(whole.replace('"source": "' + load_spec(name).source, '"source": "nowhere'))
    with pytest.raises(DatasetError, match=f"{name} has no source 'nowhere"):
        prepare("mini", name, params())
    boundary.write_text(whole)
    root.rename("elsewhere")
    with pytest.raises(DatasetError, match=r"missing|has 0 samples"):
        prepare("mini", name, params())


def unpartnered(name: str, root: Path) -> tuple[list[Path], list[Path]]:
    """Remove masks of both splits and damage an image, as if the archive were so; return them in order."""
    training, validation = {
        "ade20k": ("annotations/training", "annotations/validation"),
        "cityscapes": ("gtFine/train", "gtFine/val"),
        "camvid": ("CamVid/trainannot", "CamVid/valannot"),
    }[name]
    gone = [*sorted((root / training).rglob("*.png"))[:6], min((root / validation).rglob("*.png"))]
    for path in gone:
        path.unlink()
    pictures = {"ade20k": "images/training", "cityscapes": "leftImg8bit/train", "camvid": "CamVid/train"}[name]
    damaged = max(path for path in (root / pictures).rglob("*.*") if path.is_file())
    damaged.write_bytes(damaged.read_bytes()[:100])
    relist(name)
    return gone, [damaged]


@pytest.mark.parametrize("name", ["ade20k", "cityscapes", "camvid"])
def test_missing_partners_are_told_with_all_else(
    name: str, lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gald.prepare.problems._MOST_SHOWN", 3)
    gone, damaged = unpartnered(name, lay_out(name))
    with pytest.raises(DatasetError) as caught:
        prepare("mini", name, params())
    first, *listed = str(caught.value).splitlines()
    assert first == f"mini/{name}: 8 problems with the raw data (missing mask: 7, unreadable image: 1):"
    assert listed[:4] == [*(f"  {path}: missing" for path in gone[:3]), "  and 5 more, in the log"]
    told = f"{caught.value}{caplog.text}"
    assert all(f"{path}: missing" in told for path in gone)
    assert f"{damaged[0]}: unreadable image" in told
    manifest = json.loads(prepare("mini", name, params(on_error="skip")).read_text())
    assert {split: len(listed) for split, listed in manifest["skipped"].items() if listed} == {"train": 7, "val": 1}
    assert [one["problem"].split(": ")[-1] for one in manifest["skipped"]["val"]] == ["missing"]


def test_masks_without_an_image_are_told_too(lay_out: LayOut, params: Make) -> None:
    root = lay_out("camvid", "original")
    gone = [root / "0001TP_006690.png", root / "0001TP_006720_L.png"]
    for path in gone:
        path.unlink()
    relist("camvid")
    with pytest.raises(DatasetError, match=r"2 problems .* \(missing image: 1, missing mask: 1\)") as caught:
        prepare("mini", "camvid", params())
    assert all(f"{path}: missing" in str(caught.value) for path in gone)
    stranger = root / "0001TP_000001_L.png"
    gone[0].with_name("0001TP_006750.png").rename(stranger)
    relist("camvid")
    with pytest.raises(DatasetError, match="1 frames are none of the 701: 0001TP_000001; get"):
        prepare("mini", "camvid", params())


def damage_list(path: Path, kind: str) -> str:
    """Damage a list or table of the raw files; return what is to be said of it, once it is in the listing."""
    content = path.read_bytes()
    spoilt = {
        "no text": content[:40] + b"\xff\xfe" + content[40:],
        "empty": b"",
        "truncated": content[:1000],
        "other shape": b'[{"phase": "train"}]',
        "infinite": b'{"annos_segmentation": [], "images": [{"image_id": 1, "file_name": "a.jpg", "phase": "train", '
        b'"height": Infinity, "width": 1}]}',
        "nested": b"[" * 100_000,
        "absolute": b"/etc/passwd\n",
    }
    path.write_bytes(spoilt[kind])
    if path.suffix == ".json":
        return r"trainval_merged\.json is damaged"
    return {"empty": "has 0 samples", "absolute": "outside its folder"}.get(
        kind, rf"{path.name} is damaged .*can't decode"
    )


@pytest.mark.parametrize(
    ("name", "source", "file", "kind"),
    [
        ("camvid", "segnet", "CamVid/train.txt", "no text"),
        ("camvid", "segnet", "CamVid/train.txt", "empty"),
        ("coco_stuff10k", "v1.1", "imageLists/train.txt", "no text"),
        ("coco_stuff10k", "v1.1", "imageLists/train.txt", "absolute"),
        ("pascal_context", "mat", "ImageSets/Main/val.txt", "no text"),
        ("pascal_context", "mat", "ImageSets/Main/val.txt", "absolute"),
        ("pascal_context", "mat", "labels.txt", "no text"),
    ]
    + [
        ("pascal_context", "json", "trainval_merged.json", kind)
        for kind in ("no text", "empty", "truncated", "other shape", "infinite", "nested")
    ],
)
def test_a_damaged_list_is_told_as_altered_or_as_what_it_is(
    name: str, source: str, file: str, kind: str, lay_out: LayOut, params: Make
) -> None:
    path = lay_out(name, source) / file
    words = damage_list(path, kind)
    with pytest.raises(DatasetError, match=r"1 problem with the raw data \(altered file: 1\)") as caught:
        prepare("mini", name, params(on_error="skip"))
    assert f"{path}: altered since it was unpacked" in str(caught.value)
    relist(name)
    with pytest.raises(DatasetError, match=words):
        prepare("mini", name, params(on_error="skip"))


def test_segments_of_no_photograph_take_no_memory(lay_out: LayOut, params: Make) -> None:
    path = lay_out("pascal_context") / "trainval_merged.json"
    content = json.loads(path.read_text())
    for image, size in zip(content["images"][:3], ((10**7, 10**7), (-4, -4), (0, 9)), strict=True):
        image["height"], image["width"] = size
    path.write_text(json.dumps(content))
    relist("pascal_context")
    with pytest.raises(DatasetError, match=r"3 problems .*mask of another form: 3") as caught:
        prepare("mini", "pascal_context", params())
    assert "an image of size (10000000, 10000000) (sample 2008_0000" in str(caught.value)


def test_lists_are_checked(lay_out: LayOut, params: Make) -> None:
    path = lay_out("camvid") / "CamVid" / "val.txt"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, first, *rest]))
    relist("camvid")
    with pytest.raises(DatasetError, match=r"1 problem with the lists of raw data:\n  split val lists \S+ 2 times"):
        prepare("mini", "camvid", params(on_error="skip"))


def test_no_id_leads_out_of_the_folder(lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec("camvid")

    def index(raw: Path) -> dict[str, list[RawSample]]:
        found = spec.index(raw)
        names = {"train": "a\rb\nc\0dé\u2028", "test": ["a", "\ud800", "c"], "val": ["../x", "/x", "deep/x"]}
        return {
            split: [replace(sample, id=name) for sample, name in zip(found[split], ids, strict=True)]
            for split, ids in names.items()
        }

    lay_out("camvid")
    monkeypatch.setattr("gald.datasets.camvid.SPEC", replace(spec, index=index))
    with pytest.raises(DatasetError, match=r"(?s)6 problems .*'\.\./x', which would .*'/x', which would") as caught:
        prepare("mini", "camvid", params())
    assert str(caught.value).count("which is no name for a file") == 4


def test_the_real_benchmark_must_be_complete(lay_out: LayOut, params: Make) -> None:
    lay_out("camvid")
    paths.raw("full", "camvid").parent.mkdir(parents=True)
    paths.raw("mini", "camvid").rename(paths.raw("full", "camvid"))
    relist("camvid", "full")
    with pytest.raises(DatasetError, match="split train has 9 samples, expected 367"):
        prepare("full", "camvid", params(on_error="skip"))


@pytest.mark.parametrize("processes", [1, 2])
def test_full_disk(processes: int, lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lay_out("camvid")
    where = "gald.prepare.convert.Path.write_bytes" if processes == 1 else "gald.prepare.journal.Journal.append"
    with monkeypatch.context() as patch:
        patch.setattr("gald.prepare.pool._FEWEST", 5)
        patch.setattr(where, full)
        with pytest.raises(OSError, match="No space left on device: 'data/prepared/mini/camvid'"):
            prepare("mini", "camvid", params(processes))
    assert not paths.prepared("mini", "camvid").exists()
    assert prepare("mini", "camvid", params()).is_file()  # once there is room
    assert not list(Path().rglob("*.part"))
