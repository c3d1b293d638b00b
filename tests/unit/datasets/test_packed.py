import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gald import files, paths
from gald.datasets import _shards
from gald.datasets._packed import read_store
from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError
from gald.prepare.pack import pack
from tests.unit.conftest import write_samples

SPLITS = ("train", "test")


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepared folder of two noisy samples of 40x30 and 17x50 pixels and an unlabelled one, packed."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((40, 30), (17, 50), (8, 8))]
    train = [(image, rng.integers(0, 4, image.shape[:2], np.uint8)) for image in images[:2]]
    folder = paths.prepared("mini", "camvid")
    write_samples(folder, {"train": train, "test": [(images[2], None)]})
    pack("mini", "camvid")
    return folder


@pytest.fixture
def store(prepared: Path) -> Path:
    return paths.packed("mini", "camvid")


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_arrays_are_views_of_one_map(prepared: Path) -> None:
    data = PreparedSplit(prepared, ("train",), store="packed")
    first, second = data[0], data[1]
    assert type(first.image) is np.ndarray
    assert address(first.image) == address(data[0].image) == address(data.verified(0).image) == address(data.image(0))
    assert address(first.mask) - address(first.image) == 3648  # 3 * 40 * 30 bytes and 48 to the next multiple of 64
    assert address(second.image) - address(first.image) == 3648 + 1216
    assert {address(array) % 64 for sample in (first, second) for array in sample[1:]} == {0}
    assert not first.image.flags.owndata
    crop = second.image[3:9, 10:20]
    assert np.shares_memory(crop, data[1].image)


def test_views_take_writes_that_never_reach_the_disk(prepared: Path, store: Path) -> None:
    before = {path.name: files.sha256(path) for path in store.iterdir()}
    sample = PreparedSplit(prepared, ("train",))[0]
    torch.from_numpy(sample.image).add_(1)  # of an array that cannot be written to, torch would warn
    sample.mask[:] = 3
    assert {path.name: files.sha256(path) for path in store.iterdir()} == before
    assert (PreparedSplit(prepared, ("train",))[0].image + np.uint8(1) == sample.image).all()


def test_a_short_or_missing_shard_is_refused_before_it_is_mapped(prepared: Path, store: Path) -> None:
    shard = store / "train-00000.bin"
    size = shard.stat().st_size
    for change, said in (
        (lambda: os.truncate(shard, size - 1), rf"has {size - 1} bytes, store\.json promises {size}"),
        (shard.unlink, "is missing"),
    ):
        change()
        with pytest.raises(DatasetError, match=rf"train-00000\.bin {said}; run `gald pack mini/camvid` again"):
            PreparedSplit(prepared, SPLITS)
    assert len(PreparedSplit(prepared, ("test",))) == 1  # whose shard is whole


def test_an_open_reader_stays_with_the_store_it_opened(prepared: Path) -> None:
    data = PreparedSplit(prepared, SPLITS)
    before, digest = [data.image(i).copy() for i in range(3)], data.manifest_sha256
    blank = np.zeros((40, 30, 3), np.uint8), np.zeros((40, 30), np.uint8)
    write_samples(prepared, {"train": [blank, blank], "test": [(blank[0], None)]})
    pack("mini", "camvid")
    assert PreparedSplit(prepared, SPLITS).image(0).max() == 0
    assert all((data.image(i) == before[i]).all() for i in range(3))
    assert data.verified(1).id == "train/scene01"
    assert data.manifest_sha256 == digest != files.sha256(prepared / "manifest.json")


def flip(path: Path, place: int = 3648 + 7) -> None:
    """Change one byte, by default in the mask of the first sample, and keep the size."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_store_is_checked_once_for_each_state_of_its_files(
    prepared: Path, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_shards, "_TELL_BYTES", 1)
    caplog.set_level("INFO", "gald")
    shard = store / "train-00000.bin"
    beats: list[None] = []

    def check(*splits: str) -> int:
        beats.clear()
        PreparedSplit(prepared, splits).check_store(lambda: beats.append(None))
        return len(beats)

    assert check("train") == 1
    assert caplog.messages[0] == "mini/camvid: checking the packed store before its first use, 0.0 GB"
    assert caplog.messages[1].startswith("mini/camvid: the packed store is whole, checked at ")
    assert [check("train"), check("train", "test"), check("train", "test")] == [0, 1, 0]
    os.utime(shard, (1e9, 1e9))  # changed, for all that is known
    assert [check("train"), check("train")] == [1, 0]
    flip(shard)
    for _ in range(2):  # and a failure is not remembered as a success
        with pytest.raises(DatasetError, match=r"train-00000\.bin does not hold .*; run `gald pack mini/camvid` again"):
            check("train")
    assert check("test") == 0
    flip(shard)
    assert check("train") == 1
    (memory,) = Path(".gald/verified").rglob("*.json")
    for damaged in ("[]", "{"):
        memory.write_text(damaged)
        assert check("train", "test") == 2


def test_a_check_may_be_stopped(prepared: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PreparedSplit(prepared, SPLITS).check_store(stop)
    PreparedSplit(prepared, SPLITS, store="files").check_store(stop)  # there is nothing to check


def test_a_changed_byte_is_found_when_a_sample_is_verified(prepared: Path, store: Path) -> None:
    with (store / "train-00000.bin").open("r+b") as file:
        file.seek(3648 + 7)  # in the mask of the first sample
        file.write(b"\x09")
    data = PreparedSplit(prepared, SPLITS)
    assert data[0].mask[0, 7] == 9
    problem = r"train-00000\.bin: the mask of train/scene00 at byte 3648 does not hold .*; run `gald pack mini/camvid`"
    with pytest.raises(DatasetError, match=problem):
        data.verified(0)
    data.verified(1)
    data.verified_pixels(2)


def test_a_damaged_record_or_index_is_named_with_the_remedy(prepared: Path, store: Path) -> None:
    index = store / "train.csv"
    text = index.read_text()
    index.write_text(text.replace(",0,", ",64,", 1))
    with pytest.raises(DatasetError, match=r"train\.csv is not what store\.json beside it promises; run `gald pack"):
        PreparedSplit(prepared, SPLITS)
    index.write_text(text)
    record = (store / "store.json").read_text()
    of_other_types = [
        record.replace(f'"{key}": ', f'"{key}": [], "was": ') for key in ("bytes", "name", "index", "sha256")
    ]
    for damaged in (record[:90], "[]", "null", "{}", record.replace('"bytes"', '"size"'), *of_other_types):
        (store / "store.json").write_text(damaged)
        with pytest.raises(DatasetError, match=r"store\.json is damaged .*; run `gald pack mini/camvid` again"):
            PreparedSplit(prepared, SPLITS)
    less = json.loads(record)
    del less["shards"][0]
    (store / "store.json").write_text(json.dumps(less))
    with pytest.raises(DatasetError, match=r"store\.json is damaged \(it lists no train-00000\.bin\); run `gald pack"):
        PreparedSplit(prepared, SPLITS)
    del less["splits"]["test"]
    (store / "store.json").write_text(json.dumps(less))
    with pytest.raises(DatasetError, match=r"store\.json has no split 'test'; run `gald pack mini/camvid` again"):
        PreparedSplit(prepared, SPLITS)


def test_no_folder_is_no_store(tmp_path: Path) -> None:
    assert read_store(tmp_path / "mini" / "camvid") is None


def test_a_shard_that_cannot_be_mapped_is_named(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(DatasetError, match=r"train-00000\.bin cannot be mapped .*ulimit -v.*prepare\.store: files"):
        PreparedSplit(prepared, ("train",))
