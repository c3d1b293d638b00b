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
        "mini/camvid: 6 problems with the raw data (size mismatch: 1, undefined raw id: 1, unreadable image: 2, "
        "unreadable mask: 2):"
    )
    annotation = root / "CamVid" / "trainannot"
    assert listed == [
        f"  {mask}: raw id 12 is not defined by CamVid",
        f"  {annotation / one.name}: unreadable mask (image file is truncated)",
        f"  {two}: unreadable image (No such file or directory)",
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
    assert "leaves out 4 samples (size mismatch: 1, unreadable image: 2, unreadable mask: 2)" in caplog.text
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


def test_missing_partner_and_damaged_json(lay_out: LayOut, params: Make) -> None:
    root = lay_out("ade20k")
    next((root / "annotations" / "validation").iterdir()).unlink()
    for on_error in ("stop", "skip"):
        with pytest.raises(DatasetError, match=r"ade20k val: 1 without a partner: ADE_val_0000000\d \(no mask\)"):
            prepare("mini", "ade20k", params(on_error=on_error))
    path = lay_out("pascal_context") / "trainval_merged.json"
    content = path.read_text()
    for damaged in (content[:1000], content.replace('"phase"', '"stage"'), "[]"):
        path.write_text(damaged)
        with pytest.raises(DatasetError, match=r"trainval_merged\.json is damaged"):
            prepare("mini", "pascal_context", params())


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
        return found | {
            "val": [
                replace(sample, id=name) for sample, name in zip(found["val"], ("../x", "/x", "deep/x"), strict=True)
            ]
        }

    lay_out("camvid")
    monkeypatch.setattr("gald.datasets.camvid.SPEC", replace(spec, index=index))
    with pytest.raises(DatasetError, match=r"(?s)2 problems .*'\.\./x', which would .*'/x', which would"):
        prepare("mini", "camvid", params())


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
