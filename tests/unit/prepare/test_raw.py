"""What is prepared is of one version of the raw files, and of those that were unpacked."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gald import paths
from gald.datasets import load_spec
from gald.datasets._reader import PreparedSplit
from gald.datasets._synthetic import draw
from gald.download.run import download
from gald.errors import DatasetError
from gald.files import LISTING
from gald.prepare.convert import convert
from gald.prepare.run import prepare
from gald.process.locking import held
from tests.processes import wait_until

Make = Callable[..., SimpleNamespace]
LayOut = Callable[..., Path]


@pytest.mark.parametrize("lock", ["download", "prepare"])
def test_two_at_once(lock: str, lay_out: LayOut, params: Make, caplog: pytest.LogCaptureFixture) -> None:
    lay_out("camvid")
    made: list[Path] = []
    other = threading.Thread(target=lambda: made.append(prepare("mini", "camvid", params())))
    with held(f"{lock}/mini/camvid", wait_s=0.0):
        other.start()
        wait_until(lambda: f"waiting for process {os.getpid()}" in caplog.text)
        assert not made
    other.join(60)
    assert made[0].is_file()
    assert caplog.text.count("waiting for") == 1


def test_a_download_during_prepare_waits(lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is prepared is of one version of the raw files, the one that the manifest names."""
    lay_out("camvid")
    section = SimpleNamespace(seed=5, source=lambda name: load_spec(name).source)
    others: list[threading.Thread] = []

    def meanwhile(*arguments: object) -> object:
        if not others:
            others.append(threading.Thread(target=download, args=("mini", "camvid", section)))
            others[0].start()
            time.sleep(0.5)
        return convert(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("gald.prepare.run.convert", meanwhile)
    before = json.loads(paths.raw_json("mini", "camvid").read_text())["tree_sha256"]
    manifest = json.loads(prepare("mini", "camvid", params()).read_text())
    others[0].join(60)
    after = json.loads(paths.raw_json("mini", "camvid").read_text())["tree_sha256"]
    assert manifest["raw_sha256"] == before != after
    for sample in PreparedSplit(paths.prepared("mini", "camvid"), ("train",)):
        index = sorted(PreparedSplit(paths.prepared("mini", "camvid"), ("train",)).ids).index(sample.id)
        np.testing.assert_array_equal(sample.image, draw(3, "camvid", "train", index).image)


def altered(root: Path, kind: str) -> tuple[Path, str]:
    """Alter one unpacked file behind the back of the list; return it, and what is to be said of it."""
    folder = {"image": "train", "mask": "trainannot", "damaged": "train", "gone": "val", "list": "."}[kind]
    path = root / "CamVid/val.txt" if kind == "list" else min((root / "CamVid" / folder).iterdir())
    content = path.read_bytes()
    path.unlink()
    if kind == "image":
        Image.fromarray(np.zeros((96, 192, 3), dtype=np.uint8)).save(path)
    elif kind == "mask":
        Image.fromarray(np.full((96, 192), 3, dtype=np.uint8)).save(path)
    elif kind == "damaged":
        path.write_bytes(content[:100])
    elif kind == "list":
        path.write_bytes(content + b"\n")
    return path, "missing, though it was unpacked" if kind == "gone" else "altered since it was unpacked"


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("kind", ["image", "mask", "damaged", "gone", "list"])
def test_an_altered_file_always_stops(kind: str, on_error: str, lay_out: LayOut, params: Make) -> None:
    path, words = altered(lay_out("camvid"), kind)
    with pytest.raises(DatasetError, match=r"1 problem with the raw data \(altered file: 1\)") as caught:
        prepare("mini", "camvid", params(on_error=on_error))
    assert f"{path}: {words}" in str(caught.value)
    assert "delete raw.json and run `gald download` again" in str(caught.value)
    assert not paths.prepared("mini", "camvid").exists()


def test_the_list_must_be_that_of_raw_json(lay_out: LayOut, params: Make) -> None:
    lay_out("camvid")
    path = paths.raw_json("mini", "camvid").with_name(LISTING)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DatasetError, match=r"is not the list of files .* run `gald download mini/camvid` again"):
        prepare("mini", "camvid", params())
    path.unlink()
    with pytest.raises(DatasetError, match=r"files\.sha256.* is missing; run `gald download mini/camvid` again"):
        prepare("mini", "camvid", params())
