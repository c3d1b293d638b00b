import hashlib
import logging
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald import paths
from gald.commands.audit import audit
from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError
from gald.prepare.objects import objects
from gald.prepare.pack import pack
from tests.unit.conftest import write_samples


def flat(value: int, *, labelled: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
    """A sample of 2x3 pixels with recognisable values."""
    return np.full((2, 3, 3), value, np.uint8), np.full((2, 3), 10 + value, np.uint8) if labelled else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Splits of one, two and one samples, the last without labels."""
    monkeypatch.chdir(tmp_path)
    root = paths.prepared("mini", "camvid")
    write_samples(root, {"train": [flat(1)], "val": [flat(2), flat(3)], "test": [flat(4, labelled=False)]})
    return root


@pytest.fixture(params=["files", "packed"])
def store(request: pytest.FixtureRequest, folder: Path) -> str:
    """Either way to read the same pixels."""
    if request.param == "packed":
        pack("mini", "camvid")
    return request.param


def test_splits_follow_one_another(folder: Path, store: str) -> None:
    data = PreparedSplit(folder, ("val", "train"))
    assert data.packed == (store == "packed")
    assert data.ids == ["val/scene00", "val/scene01", "train/scene00"]
    assert len(data) == 3
    assert [int(sample.mask[0, 0]) for sample in data] == [12, 13, 11]
    assert [int(data.verified(i).image[1, 2, 2]) for i in range(3)] == [2, 3, 1]
    assert data[1].image.shape == (2, 3, 3)
    assert data[1].image.dtype == data[1].mask.dtype == np.uint8
    assert data.size(0) == (2, 3)
    assert data.manifest["ignore_index"] == 255


def test_arrays_may_be_written_to(folder: Path, store: str) -> None:
    sample = PreparedSplit(folder, ("train",))[0]
    sample.image[0, 0, 0] = sample.mask[0, 0] = 9
    assert PreparedSplit(folder, ("train",)).verified(0).image[0, 0, 0] == 1  # what is on the disk did not change


def test_a_split_without_labels_yields_images_only(folder: Path, store: str) -> None:
    data = PreparedSplit(folder, ("val", "test"))
    assert data.image(2).tolist() == np.full((2, 3, 3), 4).tolist()
    image, mask = data.verified_pixels(2)
    assert image.tolist() == data.image(2).tolist()
    assert mask is None
    assert data[1].mask[0, 0] == 13
    assert not data.labelled
    for read in (data.__getitem__, data.verified, lambda _: data.check_labels()):
        with pytest.raises(
            DatasetError, match=r"labels of split 'test' are not published; labelled splits: train, val$"
        ):
            read(2)
    labelled = PreparedSplit(folder, ("val",))
    assert labelled.labelled
    labelled.check_labels()


def test_the_packed_store_is_used_when_it_is_of_this_folder(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(
        DatasetError, match=r"packed/mini/camvid: there is no packed store; run `gald pack mini/camvid`"
    ):
        PreparedSplit(folder, ("train",), store="packed")
    pack("mini", "camvid")
    assert not PreparedSplit(folder, ("train",), store="files").packed
    assert PreparedSplit(folder, ("train",), store="packed").packed
    write_samples(folder, {"train": [flat(7)]})
    with caplog.at_level(logging.WARNING, "gald"):
        data = PreparedSplit(folder, ("train",))
    assert not data.packed
    assert data[0].mask[0, 0] == 17
    (warning,) = caplog.messages
    assert "prepared otherwise" in warning
    assert "run `gald pack mini/camvid`" in warning
    with pytest.raises(DatasetError, match=r"packed from data prepared otherwise; run `gald pack mini/camvid`"):
        PreparedSplit(folder, ("train",), store="packed")


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split is called 'trian'; it has train, val, test"):
        PreparedSplit(folder, ("trian",))
    with pytest.raises(DatasetError, match=r"gald prepare mini/ade20k"):
        PreparedSplit(folder.parent / "ade20k", ("train",))


SPLIT = '{"index": "train.csv", "sha256": "0"}'


@pytest.mark.parametrize(
    "command", [audit, objects, pack, lambda *name: PreparedSplit(paths.prepared(*name), ("train",))]
)
@pytest.mark.parametrize(
    "content",
    ["", "{", "\xff", "[]", "null", "{}", '{"splits": 3}', '{"splits": []}', '{"splits": {}}']
    + [f'{{"splits": {{"train": {entry}}}}}' for entry in ("1", "{}", "[]", '{"index": 1, "sha256": "0"}')]
    + [
        f'{{"splits": {{"train": {SPLIT[:-1]}, {entry}}}}}, "classes": ["a"]}}'
        for entry in ('"labelled": 1', '"count": []')
    ]
    + [f'{{"splits": {{"train": {SPLIT}}}, "classes": {classes}}}' for classes in ("3", "[]", "[1]", "null")]
    + [
        f'{{"splits": {{"train": {SPLIT}}}, "classes": ["a"], {entry}}}'
        for entry in (
            *('"skipped": []', '"skipped": {"train": ["a"]}', '"palette": [1]', '"ignore_index": true'),
            *('"pixel_counts": {"train": ["1"]}', '"pixel_counts": {"train": [1, 2]}'),
        )
    ],
)
def test_a_damaged_manifest_is_named_with_the_remedy(
    folder: Path, content: str, command: Callable[[str, str], object]
) -> None:
    (folder / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DatasetError, match=r"manifest\.json is damaged .*; run `gald prepare mini/camvid` again"):
        command("mini", "camvid")


def test_an_index_that_was_changed_or_lost_is_refused(folder: Path) -> None:
    index = folder / "val.csv"
    index.write_text(index.read_text().replace("scene01.png", "scene00.png"))
    with pytest.raises(DatasetError, match=r"val\.csv is not what the manifest beside it promises; run `gald prepare"):
        PreparedSplit(folder, ("val",))
    index.unlink()
    with pytest.raises(DatasetError, match=r"val\.csv is not what the manifest beside it promises"):
        PreparedSplit(folder, ("val",))


def test_damaged_files_are_named(folder: Path) -> None:
    data = PreparedSplit(folder, ("train",))
    path = folder / data.rows[0]["image"]
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    with pytest.raises(DatasetError, match=r"scene00\.png cannot be read .*; run `gald prepare mini/camvid` again"):
        data[0]
    path.unlink()
    with pytest.raises(DatasetError, match=r"scene00\.png cannot be read"):
        data[0]
    Image.fromarray(np.zeros((2, 3), dtype=np.uint8)).save(path)
    with pytest.raises(DatasetError, match="expected mode RGB, found L"):
        data[0]
    header = b"IHDR" + (900_000).to_bytes(4, "big") * 2 + whole[24:29]  # more pixels than any memory holds
    path.write_bytes(whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:])
    with pytest.raises(DatasetError, match=r"scene00\.png cannot be read \(Image size"):
        data[0]


def test_files_of_other_pixels_are_found_by_digest(folder: Path) -> None:
    data = PreparedSplit(folder, ("train",))
    changed = np.full((2, 3), 11, np.uint8)
    changed[1, 1] = 12
    Image.fromarray(changed).save(folder / data.rows[0]["mask"])
    assert data[0].mask[1, 1] == 12  # reading alone does not look
    found = hashlib.sha256(changed.tobytes()).hexdigest()
    with pytest.raises(
        DatasetError, match=rf"masks/train/scene00\.png does not hold .*{found}.*gald prepare mini/camvid"
    ):
        data.verified(0)
    Image.fromarray(np.full((3, 2), 11, np.uint8)).save(folder / data.rows[0]["mask"])  # the same bytes, turned
    with pytest.raises(DatasetError, match="does not hold the pixels"):
        data.verified(0)


def test_threads_read_the_same(folder: Path, store: str) -> None:
    data = PreparedSplit(folder, ("train", "val"))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: int(data[i % 3].mask.max()), range(300)))
    assert read == [11, 12, 13] * 100
