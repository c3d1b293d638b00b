from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald.datasets import load_spec, names
from gald.datasets._native import mat
from gald.datasets._rle import encode
from gald.datasets._spec import RawSample, Segment
from gald.errors import DatasetError
from gald.prepare.masks import prepare_sample, to_train_ids


def sample_of(folder: Path, image: np.ndarray, mask: np.ndarray, suffix: str = ".png") -> RawSample:
    """Write an image and a PNG mask."""
    Image.fromarray(image).save(folder / f"image{suffix}")
    Image.fromarray(mask).save(folder / "mask.png")
    return RawSample("a", folder / f"image{suffix}", folder / "mask.png")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / "out" / kind / "train").mkdir(parents=True)
    return tmp_path / "out"


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_every_defined_id_is_mapped(name: str, dtype: type) -> None:
    spec = load_spec(name)
    known = spec.train_ids()
    if dtype is np.uint8:
        known = {raw: train_id for raw, train_id in known.items() if raw < 256}
    raw = np.array([list(known)], dtype=dtype)
    mask = to_train_ids(raw, spec)
    assert mask.dtype == np.uint8
    assert mask[0].tolist() == list(known.values())


@pytest.mark.parametrize(
    ("name", "raw"),
    [("camvid", 12), ("camvid", 255), ("cityscapes", 34), ("cityscapes", 255), ("ade20k", 151), ("pascal_context", 1)]
    + [("coco_stuff10k", hole) for hole in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91, 183, 255)],
)
def test_an_undefined_id_is_an_error(name: str, raw: int) -> None:
    with pytest.raises(DatasetError, match=f"raw id {raw} is not defined by"):
        to_train_ids(np.array([[0, raw]], dtype=np.uint8), load_spec(name))


def test_ids_that_are_no_ids() -> None:
    spec = load_spec("coco_stuff10k")
    with pytest.raises(DatasetError, match="whole numbers"):
        to_train_ids(np.array([[1.5]]), spec)
    with pytest.raises(DatasetError, match="raw id -1 is not"):
        to_train_ids(np.array([[-1]]), spec)
    with pytest.raises(DatasetError, match="two dimensions"):
        to_train_ids(np.zeros((2, 2, 3)), spec)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_coco_edges_through_matlab(tmp_path: Path, dtype: type) -> None:
    ids = np.array([[0, 1, 11], [13, 92, 182]], dtype=dtype)
    (tmp_path / "m.mat").write_bytes(mat(S=ids, captions=np.array([["a"]], dtype=object)))
    spec = load_spec("coco_stuff10k")
    read = spec.read_mask(RawSample("m", tmp_path, tmp_path / "m.mat"))
    assert to_train_ids(read, spec).tolist() == [[255, 0, 10], [11, 80, 170]]
    (tmp_path / "n.mat").write_bytes(mat(T=ids))
    with pytest.raises(DatasetError, match="no field S"):
        spec.read_mask(RawSample("n", tmp_path, tmp_path / "n.mat"))


def test_pascal_paints_in_order_of_the_file(tmp_path: Path) -> None:
    spec = load_spec("pascal_context")
    wide, narrow = np.zeros((3, 4), dtype=bool), np.zeros((3, 4), dtype=bool)
    wide[:2], narrow[1, 1:3] = True, True
    segments = [Segment(44, (3, 4), encode(wide)), Segment(355, (3, 4), encode(narrow))]
    painted = spec.read_mask(RawSample("a", tmp_path, tmp_path, tuple(segments), (3, 4)))
    assert painted.tolist() == [[44] * 4, [44, 355, 355, 44], [0] * 4]
    covered = spec.read_mask(RawSample("a", tmp_path, tmp_path, tuple(segments[::-1]), (3, 4)))
    assert covered.tolist() == [[44] * 4, [44] * 4, [0] * 4]
    assert spec.read_mask(RawSample("a", tmp_path, tmp_path, (), (3, 4))).tolist() == [[0] * 4] * 3
    with pytest.raises(DatasetError, match=r"a segment of size \(3, 4\) in an image of size \(4, 3\)"):
        spec.read_mask(RawSample("a", tmp_path, tmp_path, tuple(segments), (4, 3)))


def test_counts_and_row(tmp_path: Path, target: Path) -> None:
    mask = np.array([[0, 0, 3], [10, 11, 11]], dtype=np.uint8)
    done = prepare_sample("camvid", sample_of(tmp_path, np.zeros((2, 3, 3), np.uint8), mask), "train", target)
    assert done.counts == (2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1)
    assert done.ignored == 2
    assert (done.row["height"], done.row["width"]) == (2, 3)
    assert (done.row["image"], done.row["mask"]) == ("images/train/a.png", "masks/train/a.png")
    assert np.asarray(Image.open(target / "masks/train/a.png")).tolist() == [[0, 0, 3], [10, 255, 255]]
    assert (target / "images/train/a.png").samefile(tmp_path / "image.png")  # linked, not copied


def test_copied_where_links_do_not_work(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another device")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    sample = sample_of(tmp_path, np.full((2, 2, 3), 7, np.uint8), np.zeros((2, 2), np.uint8))
    prepare_sample("camvid", sample, "train", target)
    assert (target / "images/train/a.png").read_bytes() == sample.image.read_bytes()
    assert not (target / "images/train/a.png").samefile(sample.image)


@pytest.mark.parametrize(
    ("image", "suffix"),
    [
        (np.full((2, 2), 9, np.uint8), ".jpg"),
        (np.full((2, 2, 4), 9, np.uint8), ".png"),
        (np.full((2, 2, 3), 9, np.uint8), ".bmp"),
    ],
)
def test_other_images_become_rgb_png(tmp_path: Path, target: Path, image: np.ndarray, suffix: str) -> None:
    sample = sample_of(tmp_path, image, np.zeros((2, 2), np.uint8), suffix)
    done = prepare_sample("camvid", sample, "train", target)
    assert done.row["image"] == "images/train/a.png"
    with Image.open(target / "images/train/a.png") as picture:
        assert picture.mode == "RGB"
        assert np.asarray(picture).tolist() == [[[9, 9, 9]] * 2] * 2


def test_problems_name_the_file(tmp_path: Path, target: Path) -> None:
    image, mask = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), np.uint8)
    sample = sample_of(tmp_path, image, np.full((2, 3), 12, np.uint8))
    (problem,) = prepare_sample("camvid", sample, "train", target).problems
    assert problem == f"{tmp_path}/mask.png (a): raw id 12 is not defined by CamVid"
    sample = sample_of(tmp_path, image, mask.T)
    (problem,) = prepare_sample("camvid", sample, "train", target).problems
    assert "image.png is 3x2, its mask" in problem
    assert "mask.png is 2x3" in problem
    sample = sample_of(tmp_path, image, np.zeros((2, 3, 3), np.uint8))
    (problem,) = prepare_sample("camvid", sample, "train", target).problems
    assert "mode L or P, found RGB" in problem
    for file in ("mask.png", "image.png"):
        sample = sample_of(tmp_path, image, mask)
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content[:40])
        (problem,) = prepare_sample("camvid", sample, "train", target).problems
        assert file in problem
        assert "unreadable" in problem
        (tmp_path / file).unlink()
        (problem,) = prepare_sample("camvid", sample, "train", target).problems
        assert file in problem
    assert not list((target / "images/train").iterdir())
