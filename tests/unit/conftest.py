"""A prepared benchmark and runs on it, small enough to train in a second."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gald import files, paths
from gald.datasets._native import MINIATURES
from gald.params import Run, RunParams, load_protocol, read_yaml
from gald.prepare.index import render
from gald.prepare.objects import objects

REPOSITORY = Path(__file__).parents[2]
CLASSES = ["sky", "road", "car", "tree"]
PALETTE = [[70, 130, 180], [128, 64, 128], [0, 0, 142], [107, 142, 35]]
EDITION, DATASET, SOURCE = "mini", "camvid", "segnet"
SMALL = {"train": 9, "val": 3, "test": 3}  # nine, so that the training split's oddities are still drawn


def scene(rng: np.random.Generator, size: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Noisy image of sky over road with a few boxes, and its mask with a strip of ignored pixels."""
    mask = np.zeros(size, np.uint8)
    mask[rng.integers(size[0] // 4, size[0] // 2) :] = 1
    for class_id in (2, 3):
        top, left = rng.integers(0, size[0] - 16), rng.integers(0, size[1] - 16)
        mask[top : top + 14, left : left + 12] = class_id
    image = np.array(PALETTE, np.int64)[mask] + rng.integers(-20, 20, (*size, 3))
    mask[:, -3:] = 255
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_samples(folder: Path, samples: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray | None]]]) -> None:
    """Write images and masks by split as the prepare stage would; a split of which a mask is None is unlabelled."""
    splits: dict[str, dict[str, Any]] = {}
    for split, pairs in samples.items():
        rows = []
        for index, pair in enumerate(pairs):
            row: dict[str, Any] = {"id": f"{split}/scene{index:02d}", "dhash": f"{index:016x}"}
            row["height"], row["width"] = pair[0].shape[:2]
            for kind, pixels in zip(("image", "mask"), pair, strict=True):
                row[kind] = row[f"{kind}_sha256"] = ""
                if pixels is not None:
                    row[kind] = f"{kind}s/{split}/scene{index:02d}.png"
                    path = folder / row[kind]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
                    row[f"{kind}_sha256"] = hashlib.sha256(pixels.tobytes()).hexdigest()
            rows.append(row)
        files.write_text(folder / f"{split}.csv", render(rows))
        labelled = all(mask is not None for _, mask in pairs)
        entry = {"count": len(rows), "published": None, "labelled": labelled, "index": f"{split}.csv"}
        splits[split] = entry | {"sha256": files.sha256(folder / f"{split}.csv")}
    files.write_json(folder / "manifest.json", manifest(splits, samples))


def manifest(
    splits: dict[str, dict[str, Any]], samples: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray | None]]]
) -> dict[str, Any]:
    """Spell what the prepare stage would say of the samples."""
    masks = {split: [mask.ravel() for _, mask in pairs if mask is not None] for split, pairs in samples.items()}
    pixels = {split: np.concatenate([np.zeros(0, np.uint8), *found]) for split, found in masks.items()}
    counts = {split: np.bincount(found, minlength=256).tolist() for split, found in pixels.items()}
    return {
        "edition": EDITION,
        "dataset": DATASET,
        "source": SOURCE,
        "about_source": "scenes drawn for a test",
        "converter": 1,
        "raw_sha256": "0" * 64,
        "archives": [],
        "classes": CLASSES,
        "palette": PALETTE,
        "ignore_index": 255,
        "splits": splits,
        "pixel_counts": {split: found[: len(CLASSES)] for split, found in counts.items()},
        "ignored_pixels": {split: found[255] for split, found in counts.items()},
        "ignored_by_name": {split: {"void": found[255]} for split, found in counts.items() if masks[split]},
        "all_ignored": {split: [] for split in splits},
        "converted": {},
        "on_error": "stop",
        "skipped": {split: [] for split in splits},
    }


def write_prepared(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Write a folder of scenes as the prepare stage would."""
    rng = np.random.default_rng(seed)
    write_samples(folder, {split: [scene(rng) for _ in range(count)] for split, count in counts.items()})


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty; miniatures of a few scenes."""
    monkeypatch.chdir(tmp_path)
    for name, miniature in list(MINIATURES.items()):
        splits = {split: SMALL[split] for split in miniature.splits}
        monkeypatch.setitem(MINIATURES, name, miniature._replace(splits=splits))
    return tmp_path


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a prepared benchmark of 10 + 5 images, in a repository that is the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = paths.prepared(EDITION, DATASET)
    write_prepared(folder, {"train": 10, "test": 5})
    objects(EDITION, DATASET)
    return folder


def run_params(**changes: dict[str, Any]) -> dict[str, Any]:
    """Params of a run of 30 iterations: the project's defaults, made small, then changed section by section."""
    base = read_yaml(REPOSITORY / "params" / "base.yaml")
    small: dict[str, dict[str, Any]] = {
        "model": {
            "backbone": {"name": "tiny", "width": 16, "stem_width": 8},
            "channels": 16,
            "aux_head": {"channels": 8, "relu": True, "dropout": 0.1},
        },
        "train": {
            "crop_size": [32, 48],
            "scale_range": [0.7, 1.5],
            "photometric": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.0},
            "batch_size": 4,
            "max_iters": 30,
            "learning_rate": 0.05,
            "head_learning_rate_factor": 2.0,
            "warmup_iters": 3,
            "log_every": 7,
            "checkpoint_every": 10,
        },
        "evaluate": {"split": "test", "gallery": 2},
    }
    sections = {key: base[key] | small[key] | changes.get(key, {}) for key in small}
    evaluate = sections["evaluate"]
    if isinstance(evaluate["protocol"], str):
        crop_size = sections["train"]["crop_size"]
        evaluate["protocol"] = load_protocol(evaluate["protocol"], crop_size, REPOSITORY / "params").model_dump()
    return {"edition": EDITION, "dataset": DATASET, "source": SOURCE, **sections}


@pytest.fixture
def make_run(prepared: Path) -> Callable[..., Run]:
    """Build a run on the prepared benchmark; keyword arguments change its sections."""

    def make(name: str = "mini/camvid/none-seed0", **sections: dict[str, Any]) -> Run:
        params = RunParams.model_validate(run_params(**sections))
        scale, dataset, leaf = name.split("/")
        return Run(name, scale, dataset, leaf.split("-")[0], params.train.seed, params)

    return make
