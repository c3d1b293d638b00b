"""A prepared benchmark and runs on it, small enough to train in a second."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gald import files, paths
from gald.params import Run, RunParams, read_yaml

REPOSITORY = Path(__file__).parents[2]
CLASSES = ["sky", "road", "car", "tree"]
PALETTE = [[70, 130, 180], [128, 64, 128], [0, 0, 142], [107, 142, 35]]
EDITION, DATASET = "mini", "camvid"


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


def write_prepared(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Write a folder as the prepare stage would."""
    rng = np.random.default_rng(seed)
    splits: dict[str, Any] = {}
    for split, count in counts.items():
        rows = []
        for index in range(count):
            image, mask = scene(rng)
            row: dict[str, Any] = {"id": f"{split}/scene{index:02d}"}
            for kind, pixels in (("image", image), ("mask", mask)):
                row[kind] = f"{kind}s/{split}/scene{index:02d}.png"
                path = folder / row[kind]
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
                row[f"{kind}_sha256"] = files.sha256(path)
            rows.append(row | {"height": image.shape[0], "width": image.shape[1]})
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(
                file, ["id", "image", "mask", "height", "width", "image_sha256", "mask_sha256"], lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(rows)
        index_sha256 = files.sha256(folder / f"{split}.csv")
        splits[split] = {"count": count, "index": f"{split}.csv", "sha256": index_sha256}
    manifest = {
        "edition": EDITION,
        "dataset": DATASET,
        "converter": 1,
        "raw_sha256": "0" * 64,
        "classes": CLASSES,
        "palette": PALETTE,
        "ignore_index": 255,
        "splits": splits,
    }
    files.write_json(folder / "manifest.json", manifest)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a prepared benchmark of 10 + 5 images, in a repository that is the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = paths.prepared(EDITION, DATASET)
    write_prepared(folder, {"train": 10, "test": 5})
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
            "color_jitter": 0.2,
            "batch_size": 4,
            "max_iters": 30,
            "learning_rate": 0.05,
            "head_learning_rate_factor": 2.0,
            "warmup_iters": 3,
            "log_every": 7,
            "checkpoint_every": 10,
        },
        "evaluate": {"split": "test", "boundary_width": 2, "gallery": 2},
    }
    sections = {key: base[key] | small[key] | changes.get(key, {}) for key in small}
    return {"edition": EDITION, "dataset": DATASET, **sections}


@pytest.fixture
def make_run(prepared: Path) -> Callable[..., Run]:
    """Build a run on the prepared benchmark; keyword arguments change its sections."""

    def make(name: str = "mini/camvid/none-seed0", **sections: dict[str, Any]) -> Run:
        params = RunParams.model_validate(run_params(**sections))
        scale, dataset, leaf = name.split("/")
        return Run(name, scale, dataset, leaf.split("-")[0], params.train.seed, params)

    return make
