import csv
import hashlib
import json
import logging
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gald import files, paths
from gald.datasets._packed import FIELDS
from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError, RunBusy
from gald.prepare import _layout
from gald.prepare import pack as packing
from gald.prepare.pack import pack
from gald.process import locking
from tests.unit.conftest import write_prepared, write_samples

Usage = namedtuple("Usage", "total used free")
SCENE = 4 * 48 * 64  # bytes of a scene's image and mask, a multiple of the alignment


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten and five scenes, of which three fill a shard."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_layout, "SHARD_BYTES", 3 * SCENE)
    folder = paths.prepared("mini", "camvid")
    write_prepared(folder, {"train": 10, "test": 5})
    return folder


def contents() -> dict[str, bytes]:
    """Every file below the packed data, hidden ones included."""
    root = paths.DATA_ROOT / "packed"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_shards_index_and_record(prepared: Path) -> None:
    assert pack("mini", "camvid") == paths.packed_json("mini", "camvid")
    folder = paths.packed("mini", "camvid")
    record = json.loads((folder / "store.json").read_text())
    names = [f"train-0000{k}.bin" for k in range(4)] + ["test-00000.bin", "test-00001.bin"]
    assert list(record) == ["edition", "dataset", "manifest_sha256", "bytes", "splits", "shards"]
    assert (record["edition"], record["dataset"], record["bytes"]) == ("mini", "camvid", 15 * SCENE)
    assert record["manifest_sha256"] == files.sha256(prepared / "manifest.json")
    assert [(shard["name"], shard["bytes"] // SCENE) for shard in record["shards"]] == list(
        zip(names, [3, 3, 3, 1, 3, 2], strict=True)
    )
    for shard in record["shards"]:
        assert shard["sha256"] == files.sha256(folder / shard["name"])
        assert shard["bytes"] == (folder / shard["name"]).stat().st_size
    assert {path.name for path in folder.iterdir()} == {*names, "train.csv", "test.csv", "store.json"}
    assert record["splits"]["test"] == {"count": 5, "index": "test.csv", "sha256": files.sha256(folder / "test.csv")}
    rows, sources = table(folder / "train.csv"), table(prepared / "train.csv")
    assert tuple(rows[0]) == FIELDS
    for row, source in zip(rows, sources, strict=True):
        same = {key: row[key] for key in FIELDS if key not in ("shard", "image_offset", "mask_offset")}
        assert same.items() <= source.items()
        with (folder / row["shard"]).open("rb") as file:
            file.seek(int(row["mask_offset"]))
            mask = file.read(48 * 64)
        assert mask == np.asarray(Image.open(prepared / source["mask"])).tobytes()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=7),
    unlabelled=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=3),
    most=st.integers(1, 9000),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_sizes_come_back_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list, unlabelled: list, most: int, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_layout, "SHARD_BYTES", most)
    rng = np.random.default_rng(seed)
    train = [(rng.integers(0, 256, (*s, 3), np.uint8), rng.integers(0, 256, s, np.uint8)) for s in sizes]
    test = [(rng.integers(0, 256, (*s, 3), np.uint8), None) for s in unlabelled]
    folder = paths.prepared("mini", "camvid")
    write_samples(folder, {"train": train, "test": test})
    record = json.loads(pack("mini", "camvid").read_text())
    data = PreparedSplit(folder, ("test", "train"), store="packed")
    assert data.ids == PreparedSplit(folder, ("test", "train"), store="files").ids
    for i, (image, mask) in enumerate([*test, *train]):
        found = data.verified_pixels(i)
        assert np.array_equal(found[0], image)
        assert (found[1] is None and mask is None) or np.array_equal(found[1], mask)
        assert data.size(i) == image.shape[:2]
    rows = [row for name in record["splits"] for row in table(paths.packed("mini", "camvid") / f"{name}.csv")]
    assert all(int(row[key] or 0) % 64 == 0 for row in rows for key in ("image_offset", "mask_offset"))
    held = {shard["name"]: [row for row in rows if row["shard"] == shard["name"]] for shard in record["shards"]}
    assert all(shard["bytes"] <= most or len(held[shard["name"]]) == 1 for shard in record["shards"])
    assert record["bytes"] == sum(shard["bytes"] for shard in record["shards"])


def test_the_size_is_told_before_anything_is_written(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gald"):
        pack("mini", "camvid")
    assert caplog.messages[0].startswith("mini/camvid: packing 15 samples, 0.2 MB in 6 shards, ")
    assert caplog.messages[0].endswith(" free")
    assert caplog.messages[1:] == ["mini/camvid: packed 15 samples, 0.2 MB in 6 shards"]


def test_an_empty_folder_is_no_store_worth_a_word(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = paths.packed("mini", "camvid")
    folder.mkdir(parents=True)  # as Snakemake does for a job's output
    removed = f"{folder}: not a store of the data as it is prepared now, so it is removed"
    with caplog.at_level(logging.INFO, "gald"):
        pack("mini", "camvid")
        assert removed not in caplog.messages
        (folder / "store.json").unlink()
        pack("mini", "camvid")
    assert removed in caplog.messages


def test_progress_tells_bytes_rate_and_time_left(
    prepared: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_TELL_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "gald"):
        pack("mini", "camvid")
    lines = [line for line in caplog.messages if line.startswith("mini/camvid: packed 0.2 MB of 0.2 MB, ")]
    assert lines[-1].endswith(" MB/s, 0 s left")


def test_a_disk_without_room_is_refused_before_anything_is_written(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 10**6 - 15 * SCENE + 1, 15 * SCENE - 1))
    with pytest.raises(DatasetError) as caught:
        pack("mini", "camvid")
    for part in ("data/packed/mini: no room", "184,320 bytes", "184,319 are free", "prepare.store: files", "GALD_DATA"):
        assert part in str(caught.value)
    assert not [name for name in contents() if name.endswith(".bin")]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 0, 15 * SCENE))
    pack("mini", "camvid")


def test_a_disk_that_fills_up_is_named_and_finished_shards_stay(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(handle: int) -> None:
        if "train-00002" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: 'data/packed/mini/camvid'"):
        pack("mini", "camvid")
    assert {Path(name).name for name in contents()} == {".finished.json", "train-00000.bin", "train-00001.bin"}
    monkeypatch.setattr(os, "fsync", real)
    kept = [(work_file, work_file.stat().st_ino) for work_file in Path("data/packed/mini/.camvid.part").glob("*.bin")]
    pack("mini", "camvid")
    assert len(kept) == 2
    assert all((paths.packed("mini", "camvid") / path.name).stat().st_ino == inode for path, inode in kept)


def test_a_whole_store_is_checked_and_left(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    pack("mini", "camvid")
    before = {path: path.stat().st_mtime_ns for path in paths.packed("mini", "camvid").iterdir()}
    with caplog.at_level(logging.INFO, "gald"):
        pack("mini", "camvid")
    assert caplog.messages == ["mini/camvid: the packed store is whole: 15 samples, 0.2 MB in 6 shards"]
    assert {path: path.stat().st_mtime_ns for path in paths.packed("mini", "camvid").iterdir()} == before


@pytest.mark.parametrize("damage", ["byte", "short", "lost", "index", "record"])
def test_what_is_damaged_is_named_and_made_again(prepared: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    pack("mini", "camvid")
    whole, folder = contents(), paths.packed("mini", "camvid")
    shard = folder / "train-00001.bin"
    others = {path: path.stat().st_ino for path in folder.glob("*.bin") if path != shard}
    if damage == "byte":
        content = bytearray(shard.read_bytes())
        content[5000] ^= 1
        shard.write_bytes(content)
    elif damage == "short":
        os.truncate(shard, 100)
    elif damage == "lost":
        shard.unlink()
    elif damage == "index":
        (folder / "train.csv").write_text("")
    else:
        (folder / "store.json").write_text("{")
    with caplog.at_level(logging.WARNING, "gald"):
        pack("mini", "camvid")
    named = {"index": "train.csv", "record": "store.json"}.get(damage, shard.name)
    assert named in caplog.messages[0]
    assert contents() == whole
    if damage != "record":
        assert {path: path.stat().st_ino for path in others} == others  # only the damaged one was written again


def test_a_store_of_other_data_is_replaced(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack("mini", "camvid")
    write_prepared(prepared, {"train": 2, "test": 1}, seed=1)
    record = json.loads(pack("mini", "camvid").read_text())
    assert record["manifest_sha256"] == files.sha256(prepared / "manifest.json")
    assert sorted(path.name for path in paths.packed("mini", "camvid").glob("*.bin")) == [
        "test-00000.bin",
        "train-00000.bin",
    ]
    assert int(PreparedSplit(prepared, ("train",), store="packed").verified(1).mask.max()) == 255
    monkeypatch.setattr(_layout, "SHARD_BYTES", 1)  # the same data, laid out otherwise
    assert len(json.loads(pack("mini", "camvid").read_text())["shards"]) == 3


def test_a_prepared_file_of_other_pixels_is_named(prepared: Path) -> None:
    path = prepared / "images/train/scene04.png"
    pixels = np.array(Image.open(path))
    pixels[5, 6, 1] ^= 1
    Image.fromarray(pixels).save(path)
    with pytest.raises(
        DatasetError, match=r"images/train/scene04\.png does not hold .*; run `gald prepare mini/camvid`"
    ):
        pack("mini", "camvid")
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(DatasetError, match=r"images/train/scene04\.png cannot be read"):
        pack("mini", "camvid")
    assert not paths.packed("mini", "camvid").exists()


def test_what_was_not_prepared_is_refused(prepared: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"full/camvid/manifest\.json is missing; run `gald prepare full/camvid` first"
    ):
        pack("full", "camvid")


def test_rests_of_other_data_are_not_taken_up(prepared: Path) -> None:
    work = Path("data/packed/mini/.camvid.part")
    work.mkdir(parents=True)
    (work / "train-00000.bin").write_bytes(bytes(3 * SCENE))
    digest = hashlib.sha256(bytes(3 * SCENE)).hexdigest()
    for journal in ({"layout": "0" * 64, "shards": {"train-00000.bin": digest}}, []):
        files.write_json(work / ".finished.json", journal)
        pack("mini", "camvid")
        assert int(PreparedSplit(prepared, ("train",), store="packed").verified(0).mask.max()) == 255
        shutil.rmtree(paths.packed("mini", "camvid"))
        work.mkdir()


def test_two_at_a_time_are_kept_apart(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "WAIT_S", 0.1)
    with locking.held("pack/mini/camvid", wait_s=0.0), pytest.raises(RunBusy, match="pack/mini/camvid is busy"):
        pack("mini", "camvid")
