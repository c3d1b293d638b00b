"""Files, partners and lists that are missing or damaged are told before anything is converted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from gald import paths
from gald.datasets import load_spec, names
from gald.datasets._spec import RawSample
from gald.errors import DatasetError
from gald.prepare.run import prepare
from tests.unit.prepare.conftest import relist

Make = Callable[..., SimpleNamespace]
LayOut = Callable[..., Path]


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
