from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError
from gald.files import sha256, write_json, write_text
from gald.prepare.index import render


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits of one and two samples of 2x3 pixels, with recognisable values."""
    root = tmp_path / "mini" / "camvid"
    root.mkdir(parents=True)
    splits = {}
    for split, values in (("train", (1,)), ("val", (2, 3))):
        rows = []
        for value in values:
            Image.fromarray(np.full((2, 3, 3), value, dtype=np.uint8)).save(root / f"i{value}.png")
            Image.fromarray(np.full((2, 3), 10 + value, dtype=np.uint8)).save(root / f"m{value}.png")
            row = {"id": f"s{value}", "image": f"i{value}.png", "mask": f"m{value}.png", "height": 2, "width": 3}
            rows.append(row | {"image_sha256": "", "mask_sha256": ""})
        write_text(root / f"{split}.csv", render(rows))
        splits[split] = {"count": len(rows), "index": f"{split}.csv", "sha256": sha256(root / f"{split}.csv")}
    write_json(root / "manifest.json", {"splits": splits, "classes": ["a"], "ignore_index": 255})
    return root


def test_splits_follow_one_another(folder: Path) -> None:
    data = PreparedSplit(folder, ("val", "train"))
    assert data.ids == ["s2", "s3", "s1"]
    assert len(data) == 3
    assert [int(sample.mask[0, 0]) for sample in data] == [12, 13, 11]
    assert data[1].image.shape == (2, 3, 3)
    assert data[1].image.dtype == data[1].mask.dtype == np.uint8
    assert data.size(0) == (2, 3)
    assert data.manifest["classes"] == ["a"]


def test_arrays_may_be_written_to(folder: Path) -> None:
    sample = PreparedSplit(folder, ("train",))[0]
    sample.image[0, 0, 0] = sample.mask[0, 0] = 9


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split is called 'test'; it has train, val"):
        PreparedSplit(folder, ("test",))
    with pytest.raises(DatasetError, match=r"gald prepare mini/ade20k"):
        PreparedSplit(folder.parent / "ade20k", ("train",))


@pytest.mark.parametrize("content", ["{", "{}", '{"splits": 3}'])
def test_a_damaged_manifest_is_named_with_the_remedy(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(DatasetError, match=r"manifest\.json .*; run `gald prepare mini/camvid` again"):
        PreparedSplit(folder, ("train",))


def test_an_index_that_was_changed_or_lost_is_refused(folder: Path) -> None:
    index = folder / "val.csv"
    index.write_text(index.read_text().replace("m3.png", "m2.png"))
    with pytest.raises(DatasetError, match=r"val\.csv is not what the manifest beside it promises; run `gald prepare"):
        PreparedSplit(folder, ("val",))
    index.unlink()
    with pytest.raises(DatasetError, match=r"val\.csv is not what the manifest beside it promises"):
        PreparedSplit(folder, ("val",))


def test_damaged_files_are_named(folder: Path) -> None:
    data = PreparedSplit(folder, ("train",))
    whole = (folder / "i1.png").read_bytes()
    (folder / "i1.png").write_bytes(whole[:40])
    with pytest.raises(DatasetError, match=r"i1\.png cannot be read"):
        data[0]
    (folder / "i1.png").unlink()
    with pytest.raises(DatasetError, match=r"i1\.png cannot be read"):
        data[0]
    Image.fromarray(np.zeros((2, 3), dtype=np.uint8)).save(folder / "i1.png")
    with pytest.raises(DatasetError, match="expected mode RGB, found L"):
        data[0]
