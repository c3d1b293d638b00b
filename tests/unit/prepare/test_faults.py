import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gald import paths
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
