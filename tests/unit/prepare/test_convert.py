"""One sample: its row, its pixels, its files, and everything that can be wrong with it."""

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald.datasets import load_spec
from gald.datasets._native import mat
from gald.datasets._rle import encode
from gald.datasets._spec import RawSample, Segment
from gald.prepare.convert import FATAL, Failure, Record, Task, convert
from gald.prepare.dhash import dhash

IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
MASK = np.array([[0, 0, 3], [10, 11, 11]], dtype=np.uint8)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / "out" / kind / "train").mkdir(parents=True)
    return tmp_path / "out"


def sample_of(folder: Path, image: np.ndarray = IMAGE, mask: np.ndarray = MASK, suffix: str = ".png") -> RawSample:
    """Write an image and a PNG mask."""
    Image.fromarray(image).save(folder / f"image{suffix}")
    Image.fromarray(mask).save(folder / "mask.png")
    return RawSample("s1", folder / f"image{suffix}", folder / "mask.png")


def done(sample: RawSample, target: Path, dataset: str = "camvid") -> Record:
    result = convert(dataset, load_spec(dataset).source, target, Task("train", sample))
    assert isinstance(result, Record), result
    return result


def failed(sample: RawSample, target: Path, dataset: str = "camvid") -> list[tuple[str, str]]:
    """Kind and text of each problem."""
    result = convert(dataset, load_spec(dataset).source, target, Task("train", sample))
    assert isinstance(result, Failure), result
    assert (result.split, result.id) == ("train", sample.id)
    assert not list((target / "images/train").iterdir())
    return [(problem.kind, str(problem)) for problem in result.problems]


def test_row_counts_and_files(tmp_path: Path, target: Path) -> None:
    record = done(sample_of(tmp_path), target)
    assert record.counts == [2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert record.ignored == {"Void": 2}
    assert record.kinds == []
    ids = np.array([[0, 0, 3], [10, 255, 255]], dtype=np.uint8)
    assert record.row == {
        "id": "s1",
        "image": "images/train/s1.png",
        "mask": "masks/train/s1.png",
        "height": 2,
        "width": 3,
        "image_sha256": hashlib.sha256(bytes(range(18))).hexdigest(),  # of the pixels, whatever the file format
        "mask_sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
        "dhash": dhash(Image.fromarray(IMAGE)),
    }
    with Image.open(target / "masks/train/s1.png") as picture:
        assert (picture.mode, np.asarray(picture).tolist()) == ("L", ids.tolist())
    assert (target / "images/train/s1.png").samefile(tmp_path / "image.png")  # linked, not copied
    for (size, digest), name in zip(record.written, ("images/train/s1.png", "masks/train/s1.png"), strict=True):
        content = (target / name).read_bytes()
        assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())


def test_copied_where_links_do_not_work(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    sample = sample_of(tmp_path)
    done(sample, target)
    assert (target / "images/train/s1.png").read_bytes() == sample.image.read_bytes()
    assert not (target / "images/train/s1.png").samefile(sample.image)


def test_a_linked_raw_file(tmp_path: Path, target: Path) -> None:
    sample = sample_of(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    sample.image.rename(tmp_path / "elsewhere" / "x.png")
    sample.image.symlink_to("elsewhere/x.png")
    done(sample, target)
    assert not (target / "images/train/s1.png").is_symlink()
    assert (target / "images/train/s1.png").samefile(tmp_path / "elsewhere" / "x.png")


def test_raw_data_is_never_written_through_a_link(tmp_path: Path, target: Path) -> None:
    sample = sample_of(tmp_path)
    done(sample, target)
    content = sample.image.read_bytes()
    other = sample_of(tmp_path / "out", IMAGE[..., 0])  # the sample is now another, which has to be converted
    done(other, target)
    assert sample.image.read_bytes() == content
    with Image.open(target / "images/train/s1.png") as picture:
        assert (picture.mode, np.asarray(picture)[..., 2].tolist()) == ("RGB", IMAGE[..., 0].tolist())


def test_converted_images_carry_no_notes(tmp_path: Path, target: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    sample = sample_of(tmp_path)
    Image.fromarray(IMAGE).save(sample.image, exif=exif, icc_profile=b"profile", dpi=(72, 72))
    record = done(sample, target)
    assert record.kinds == ["exif-rotated"]
    with Image.open(target / "images/train/s1.png") as picture:
        picture.load()
        assert not picture.info
        assert not picture.getexif()
        assert np.asarray(picture).tolist() == IMAGE.tolist()


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("drawn_on", ["stored", "turned"])
def test_labels_tell_which_pixels_are_meant(orientation: int, drawn_on: str, tmp_path: Path, target: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {3: np.rot90(IMAGE, 2), 6: np.rot90(IMAGE, -1), 8: np.rot90(IMAGE)}[orientation]
    mask = MASK if drawn_on == "stored" or orientation == 3 else np.ascontiguousarray(MASK.T)
    sample = sample_of(tmp_path, mask=mask)
    Image.fromarray(IMAGE).save(sample.image, exif=exif)
    record = done(sample, target)
    expected = IMAGE if mask is MASK else turned
    assert (record.row["height"], record.row["width"]) == expected.shape[:2]
    with Image.open(target / str(record.row["image"])) as picture:
        assert np.asarray(picture).tolist() == expected.tolist()
    (kind, text), *_ = failed_sizes(sample, tmp_path)
    assert kind == "size mismatch"
    assert "is 3x2 (also when turned as its EXIF data asks), its mask" in text


def failed_sizes(sample: RawSample, folder: Path) -> list[tuple[str, str]]:
    """Problems of the same image with a mask of another size."""
    assert sample.mask is not None
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(sample.mask)
    (folder / "other/images/train").mkdir(parents=True)
    return failed(sample, folder / "other")


def test_without_labels(tmp_path: Path, target: Path) -> None:
    sample = replace(sample_of(tmp_path), mask=None)
    record = done(sample, target)
    assert (record.row["mask"], record.row["mask_sha256"]) == ("", "")
    assert (record.counts, record.ignored, len(record.written), len(record.raw)) == ([], {}, 1, 1)
    assert not list((target / "masks/train").iterdir())


def test_wrong_content_is_told_by_kind_and_file(tmp_path: Path, target: Path) -> None:
    mask_file = tmp_path / "mask.png"
    sample = sample_of(tmp_path, mask=np.full((2, 3), 12, np.uint8))
    (found,) = failed(sample, target)
    assert found == ("undefined raw id", f"{mask_file}: raw id 12 is not defined by CamVid (sample s1)")
    (found,) = failed(sample_of(tmp_path, mask=np.ascontiguousarray(MASK.T)), target)
    assert found == (
        "size mismatch",
        f"{tmp_path}/image.png: is 3x2, its mask {mask_file} is 2x3 (sample s1)",
    )
    for pixels, mode in ((IMAGE, "RGB of 8"), (MASK.astype(np.uint16), "I;16 of 16")):
        (found,) = failed(sample_of(tmp_path, mask=pixels), target)
        assert found == (
            "mask of another form",
            f"{mask_file}: a mask of raw ids has mode L of 8 bits or mode P, found {mode} (sample s1)",
        )
        assert found[0] in FATAL


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "absent", "folder"])
def test_unreadable_files(suffix: str, damage: str, tmp_path: Path, target: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 11, (64, 64, 3), dtype=np.uint8)
    sample = sample_of(tmp_path, noise, noise[..., 0], suffix)
    assert sample.mask is not None
    for path in (sample.image, sample.mask):
        content = path.read_bytes()
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage != "absent":
            spoilt = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"not found\n" * 20}
            middle = content[:-400] + b"\0" * 390 + content[-10:]
            path.write_bytes(spoilt.get(damage, middle))
    if (damage, suffix) == ("middle", ".jpg"):  # a JPEG has no checksum: what decodes is an image
        ((kind, text),) = failed(sample, target)
        assert (kind, text.split(":")[0]) == ("unreadable mask", str(sample.mask))
        return
    (one, first), (two, second) = failed(sample, target)  # both are told at once
    if damage == "absent":
        assert (one, two) == ("missing image", "missing mask")
        assert (first, second) == (f"{sample.image}: missing", f"{sample.mask}: missing (sample s1)")
        return
    assert (one, two) == ("unreadable image", "unreadable mask")
    assert first.startswith(f"{sample.image}: unreadable image (")
    assert second.startswith(f"{sample.mask}: unreadable mask (")
    assert first.count(str(tmp_path)) == 1
    assert ("not an image of a known format" in first) or damage != "text"


def test_a_flipped_bit_in_a_png(tmp_path: Path, target: Path) -> None:
    sample = sample_of(tmp_path)
    assert sample.mask is not None
    for path in (sample.image, sample.mask):
        content = bytearray(path.read_bytes())
        content[content.index(b"IDAT") + 8] ^= 0x10
        path.write_bytes(content)
    assert [kind for kind, _ in failed(sample, target)] == ["unreadable image", "unreadable mask"]


def test_bombs_are_problems(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = sample_of(tmp_path)
    for most in (5, 1):  # Pillow warns up to twice its limit, and refuses above
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        kinds = [kind for kind, text in failed(sample, target) if "decompression bomb" in text]
        assert kinds == ["unreadable image", "unreadable mask"]


def test_running_out_of_memory_is_no_property_of_the_data(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("gald.prepare.convert.decode", exhausted)
    with pytest.raises(MemoryError):
        convert("camvid", "segnet", target, Task("train", sample_of(tmp_path)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_matlab_masks(dtype: type, tmp_path: Path, target: Path) -> None:
    sample = replace(sample_of(tmp_path), mask=tmp_path / "m.mat")
    ids = np.array([[0, 1, 11], [13, 92, 182]], dtype=dtype)
    (tmp_path / "m.mat").write_bytes(mat(S=ids, captions=np.array([["a"]], dtype=object)))
    record = done(sample, target, "coco_stuff10k")
    with Image.open(target / "masks/train/s1.png") as picture:
        assert np.asarray(picture).tolist() == [[255, 0, 10], [11, 80, 170]]
    assert record.ignored == {"unlabeled": 1}


def test_damaged_matlab_masks(tmp_path: Path, target: Path) -> None:
    sample = replace(sample_of(tmp_path), mask=tmp_path / "m.mat")
    content = mat(S=np.random.default_rng(0).integers(1, 11, (60, 60), dtype=np.uint8))
    for spoilt in (content[:300], content[:60], b"", b"<html>not found</html>" * 20):
        (tmp_path / "m.mat").write_bytes(spoilt)
        ((kind, text),) = failed(sample, target, "coco_stuff10k")
        assert kind == "unreadable mask"
        assert text.startswith(f"{tmp_path}/m.mat: unreadable mask (")
    for wrong in ({"S": np.array([[1.5]])}, {"T": np.array([[1]])}):
        (tmp_path / "m.mat").write_bytes(mat(**wrong))
        assert failed(sample, target, "coco_stuff10k")[0][0] in FATAL


def test_segments_name_their_sample(tmp_path: Path, target: Path) -> None:
    whole = encode(np.ones((2, 3), dtype=bool))
    sample = replace(sample_of(tmp_path), segments=(Segment(7, (2, 3), whole),), size=(2, 3))
    ((kind, text),) = failed(sample, target, "pascal_context")
    assert kind == "undefined raw id"
    assert text.endswith("raw id 7 is not defined by Pascal Context (sample s1)")
    record = done(replace(sample, segments=(Segment(9, (2, 3), whole),)), target, "pascal_context")
    assert record.counts[1] == 6
