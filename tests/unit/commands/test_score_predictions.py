"""Anybody's masks against a benchmark's truth."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald import files, paths
from gald.commands.score_predictions import _matched, _table, score_predictions
from gald.datasets import load_spec
from gald.datasets._reader import PreparedSplit
from gald.datasets._spec import UNKNOWN
from gald.errors import DatasetError
from gald.metrics import scores
from gald.prepare.objects import objects
from tests.unit.commands.answers import png, png_of, read
from tests.unit.conftest import CLASSES, scene, write_samples


def test_predictions_without_a_class_are_wrong_but_give_no_class_a_pixel(prepared: Path) -> None:
    split = PreparedSplit(prepared, ["test"])
    confusion = np.zeros((4, 4), np.int64)
    for sample in split:
        prediction = sample.mask.copy()
        prediction[:, :10] = 255
        files.write_bytes(Path("theirs") / f"{sample.id}_pred.png", png(prediction))
        np.add.at(confusion, (sample.mask[:, 10:-3], sample.mask[:, 10:-3]), 1)
    truth = sum(np.bincount(sample.mask[:, :-3].ravel(), minlength=4) for sample in split)
    score_predictions("mini", "camvid", Path("theirs"), split="test", ids="train", out=Path("theirs.json"))
    found = read(Path("theirs.json"))
    expected = np.diagonal(confusion) / truth  # nothing is predicted wrongly, some is not predicted
    assert [row["iou"] for row in found["per_class"]] == pytest.approx(expected.tolist(), abs=1e-15)
    assert found["scores"]["mean_iou"] == pytest.approx(scores(np.diag(truth)).mean_iou * expected.mean(), abs=1e-15)
    assert found["absent"] == []


def theirs(prepared: Path) -> Path:
    folder = Path("theirs")
    for sample in PreparedSplit(prepared, ["test"]):
        files.write_bytes(folder / f"{sample.id.rpartition('/')[2]}.png", png(sample.mask))
    return folder


def test_masks_with_all_kinds_of_faults_are_listed_before_any_is_scored(prepared: Path) -> None:
    folder = theirs(prepared)
    score_predictions("mini", "camvid", folder, split=None, ids="train", out=Path("whole.json"))
    assert read(Path("whole.json"))["scores"]["mean_iou"] == 1
    (folder / "scene00.png").unlink()
    (folder / "other.png").write_bytes(png(np.zeros((48, 64), np.uint8)))
    (folder / "scene01.png").write_bytes(png(np.zeros((48, 63), np.uint8)))
    (folder / "scene02.png").write_bytes(png(np.zeros((48, 64, 3), np.uint8)))
    (folder / "scene03.png").write_bytes(png(np.full((48, 64), 200, np.uint8)))
    (folder / "scene04.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError) as caught:
        score_predictions("mini", "camvid", folder, split=None, ids="train", out=Path("none.json"))
    for line in (
        "6 problem(s)",
        "missing: test/scene00.png",
        "belongs to no sample: theirs/other.png",
        "scene01.png: 63x48 pixels; the mask has 64x48",
        "scene02.png: a picture of mode RGB",
        "scene03.png: holds 200, which is no train id of the benchmark",
        "scene04.png: cannot be read (not an image of a known format)",
    ):
        assert line in str(caught.value)
    assert "--ids raw" not in str(caught.value)  # 200 is no raw id either
    assert not Path("none.json").exists()


def png_of_4_bits(values: np.ndarray) -> bytes:
    """Grey of 4 bits a pixel, which Pillow cannot write; two pixels a byte, each row after a filter byte of 0."""
    rows = b"".join(b"\0" + (row[::2] << 4 | row[1::2]).astype(np.uint8).tobytes() for row in values)
    return png_of((4, 0), values.shape, rows)


def test_damaged_masks_are_told_with_all_others(prepared: Path, recwarn: pytest.WarningsRecorder) -> None:
    folder = theirs(prepared)
    (folder / "scene00.png").write_bytes(png_of((8, 0), (60_000, 60_000), b""))
    (folder / "scene01.png").write_bytes(png_of((8, 0), (10_000, 10_000), b""))  # of which Pillow only warns
    (folder / "scene02.png").write_bytes((folder / "scene02.png").read_bytes()[:-40])
    Image.fromarray(np.zeros((48, 64), bool)).save(folder / "scene03.png")
    (folder / "scene04.png").unlink()
    with pytest.raises(DatasetError) as caught:
        score_predictions("mini", "camvid", folder, split=None, ids="train", out=None)
    for line in (
        "5 problem(s)",
        "scene00.png: has more pixels than any picture here; the mask has 64x48",
        "scene01.png: has more pixels than any picture here; the mask has 64x48",
        "scene02.png: cannot be read (",
        "scene03.png: a picture of 1 bit a pixel; expected one channel of 8 or 16 bits that holds ids",
        "missing: test/scene04.png",
    ):
        assert line in str(caught.value)
    assert not recwarn.list


def test_a_file_that_stands_for_several_samples_is_no_excuse_for_others(prepared: Path) -> None:
    folder = theirs(prepared)
    (folder / "scene01.png").write_bytes(b"no picture")
    ids = ["a/scene00", "b/scene00", "scene01"]
    found, problems = _matched(folder, ids)
    assert found == [folder / "scene00.png"] * 2 + [folder / "scene01.png"]
    assert problems[0] == "ambiguous: theirs/scene00.png would stand for 2 samples; name files by whole ids"
    assert len(problems) == 4  # and three belong to no sample


def test_masks_that_readers_would_change_are_told(prepared: Path) -> None:
    # Greys of 4 bits, 0 and 1 of 15, are read as 0 and 17; a JPEG's ids are about what they were.
    folder, zeros = theirs(prepared), np.zeros((48, 64), np.uint8)
    (folder / "scene00.png").write_bytes(png_of_4_bits(zeros))
    Image.fromarray(zeros).save(folder / "scene01.png", format="JPEG")
    with pytest.raises(DatasetError) as caught:
        score_predictions("mini", "camvid", folder, split=None, ids="train", out=None)
    assert "2 problem(s)" in str(caught.value)
    assert "scene00.png: grey of fewer than 8 bits" in str(caught.value)
    assert "scene01.png: holds a JPEG, whatever its name; save masks as PNG" in str(caught.value)


def test_a_suffix_in_capitals_is_one_too(prepared: Path) -> None:
    folder = theirs(prepared)
    (folder / "scene00.png").rename(folder / "scene00.PNG")
    score_predictions("mini", "camvid", folder, split=None, ids="train", out=Path("capitals.json"))
    assert read(Path("capitals.json"))["scores"]["mean_iou"] == 1


def test_files_that_might_be_several_samples_are_told(prepared: Path) -> None:
    folder = theirs(prepared)
    shutil.copy(folder / "scene00.png", folder / "scene00_a.png")
    (folder / "scene00.png").rename(folder / "scene00_b.png")
    with pytest.raises(DatasetError, match=r"ambiguous: test/scene00 might be scene00_a\.png, scene00_b\.png"):
        score_predictions("mini", "camvid", folder, split=None, ids="train", out=None)


def test_data_of_an_older_version_are_to_be_prepared_again(prepared: Path) -> None:
    manifest = read(prepared / "manifest.json")
    del manifest["source"]
    files.write_json(prepared / "manifest.json", manifest)
    with pytest.raises(DatasetError, match="older version: run `gald prepare mini/camvid` again"):
        score_predictions("mini", "camvid", prepared, split=None, ids="train", out=None)


def test_raw_ids_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec, folder = load_spec("cityscapes"), paths.prepared("mini", "cityscapes")
    rng = np.random.default_rng(0)
    samples = [scene(rng) for _ in range(3)]
    write_samples(folder, {"train": samples, "val": samples})
    manifest = read(folder / "manifest.json")
    manifest |= {"dataset": "cityscapes", "source": "fine", "classes": list(spec.class_names)}
    manifest["palette"] = [list(colour) for colour in spec.palette]
    none = [0] * (len(spec.class_names) - len(CLASSES))
    manifest["pixel_counts"] = {split: counts + none for split, counts in manifest["pixel_counts"].items()}
    files.write_json(folder / "manifest.json", manifest)

    objects("mini", "cityscapes")
    raw = np.zeros(256, np.uint8)
    raw[:19] = spec.raw_ids()
    for sample in PreparedSplit(folder, ["val"]):
        files.write_bytes(Path("theirs") / f"{sample.id}.png", png(raw[sample.mask]))
    score_predictions("mini", "cityscapes", Path("theirs"), split=None, ids="raw", out=Path("scores.json"))
    assert read(Path("scores.json"))["scores"]["mean_iou"] == 1
    score_predictions("mini", "cityscapes", Path("theirs"), split=None, ids="train", out=Path("scores.json"))
    assert read(Path("scores.json"))["scores"]["mean_iou"] == 0
    for sample in PreparedSplit(folder, ["val"]):
        answer = raw[sample.mask]
        answer[:, :10] = 255  # no raw id of the benchmark
        files.write_bytes(Path("theirs") / f"{sample.id}.png", png(answer))
    score_predictions("mini", "cityscapes", Path("theirs"), split=None, ids="raw", out=Path("scores.json"))
    found = read(Path("scores.json"))["scores"]
    assert 0.7 < found["pixel_accuracy"] < 0.9
    first = next(iter(PreparedSplit(folder, ["val"])))
    files.write_bytes(Path("theirs") / f"{first.id}.png", png(np.full_like(first.mask, 26)))
    with pytest.raises(DatasetError, match=r"holds 26, which is no train id .* as raw ids they all are: did you mean"):
        score_predictions("mini", "cityscapes", Path("theirs"), split=None, ids="train", out=None)
    files.write_bytes(Path("theirs") / f"{first.id}.png", png(np.full_like(first.mask, 200)))
    with pytest.raises(DatasetError, match=r"holds 200, which is no raw id of the benchmark$"):
        score_predictions("mini", "cityscapes", Path("theirs"), split=None, ids="raw", out=None)


def test_255_is_the_benchmarks_where_it_has_a_class_of_that_number() -> None:
    lookup = np.full(300, UNKNOWN, np.int16)
    lookup[[7, 255, 256]] = 0, 1, 255
    table = _table(lookup, 2)
    assert [int(table[value]) for value in (7, 255, 256, 8)] == [0, 1, 2, 255]
    assert _table(lookup[:255], 2)[255] == 2
