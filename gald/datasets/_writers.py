"""Writes the miniatures' archives: one function per benchmark lays its scenes out as the real archives are laid out.

Names, folders, id encodings and file types are the real ones, so that the code which prepares the real archives
prepares these. A few of the real oddities are drawn too. Every source of a benchmark shows the same scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from gald.datasets import load_spec
from gald.datasets._native import MINIATURES, Files, jpeg, mat, scenes, uint8, write_zip
from gald.datasets._png import encode
from gald.datasets._synthetic import GROUND_MARGIN, WIDTH, Part, Scene
from gald.datasets._writers_driving import camvid_original, camvid_segnet, cityscapes_coarse, cityscapes_fine
from gald.datasets._writers_pascal import pascal_context_json, pascal_context_mat
from gald.errors import DatasetError

_GRAYSCALE, _PORTRAIT, _ALL_IGNORED = 5, 6, 7  # positions in the training split of the images with an oddity


def draw_archives(dataset: str, folder: Path, seed: int, source: str | None = None) -> None:
    """Write a miniature's archives, under the names of the real ones.

    Parameters
    ----------
    dataset : str
        One of `MINIATURES`.
    folder : Path
        Existing folder to write to.
    seed : int
        Seed of the scenes.
    source : str, optional
        Published form of the benchmark; its usual one by default.

    Raises
    ------
    DatasetError
        The benchmark has no miniature, or no such source.
    """
    writers: Mapping[str, Mapping[str, Callable[[Path, int], None]]] = {
        "cityscapes": {"fine": cityscapes_fine, "coarse": cityscapes_coarse},
        "ade20k": {"challenge": ade20k},
        "pascal_context": {
            "json": pascal_context_json,
            "json-60": pascal_context_json,
            "mat": pascal_context_mat,
            "mat-60": pascal_context_mat,
        },
        "camvid": {"segnet": camvid_segnet, "original": camvid_original},
        "coco_stuff10k": {"v1.1": coco_stuff10k},
    }
    if dataset not in writers:
        raise DatasetError(f"{dataset} has no miniature; those that have: {', '.join(sorted(writers))}")
    writers[dataset][load_spec(dataset, source).source](folder, seed)


def ade20k(folder: Path, seed: int) -> None:
    """One zip of JPEGs and PNGs; one image is grayscale, one small and upright, one has no label at all."""
    miniature = MINIATURES["ade20k"]

    def files() -> Files:
        categories = []
        for split, name in (("train", "training"), ("val", "validation")):
            for index, scene in scenes("ade20k", split, seed):
                stem = f"ADE_{split}_{index + 1:08d}"
                odd = index if split == "train" else -1
                image, labels = _upright(scene) if odd == _PORTRAIT else scene
                ids = uint8(miniature.encode(labels)) * np.uint8(odd != _ALL_IGNORED)
                top = "ADEChallengeData2016"
                yield f"{top}/images/{name}/{stem}.jpg", jpeg(image, grayscale=odd == _GRAYSCALE)
                yield f"{top}/annotations/{name}/{stem}.png", encode(ids)
                categories.append(f"{stem} street\n")
        yield "ADEChallengeData2016/sceneCategories.txt", "".join(categories).encode()

    write_zip(folder / "ADEChallengeData2016.zip", files())


def _upright(scene: Scene) -> Scene:
    """Cut the strip on the lamp's side, where there is no ground, so that nothing in it stays undecided."""
    grounds = np.isin(scene.labels, (Part.GROUND_A, Part.GROUND_B))
    left = 0 if not grounds[:, :GROUND_MARGIN].any() else WIDTH - GROUND_MARGIN
    part = (slice(None), slice(left, left + GROUND_MARGIN))
    return Scene(np.ascontiguousarray(scene.image[part]), np.ascontiguousarray(scene.labels[part]))


def coco_stuff10k(folder: Path, seed: int) -> None:
    """One zip of JPEGs and MATLAB files; one image is grayscale, one map is of type float64."""
    miniature = MINIATURES["coco_stuff10k"]
    captions = np.array([["a drawn scene"]] * 5, dtype=object)

    def files() -> Files:
        lists: dict[str, list[str]] = {split: [] for split in miniature.splits}
        for offset, (split, listed) in enumerate(lists.items()):
            for index, scene in scenes("coco_stuff10k", split, seed):
                stem = f"COCO_train2014_{1000 * offset + index + 1:012d}"
                odd = index if split == "train" else -1
                ids = uint8(miniature.encode(scene.labels))
                field = ids.astype(np.float64) if odd == _ALL_IGNORED else ids
                yield f"images/{stem}.jpg", jpeg(scene.image, grayscale=odd == _GRAYSCALE)
                yield f"annotations/{stem}.mat", mat(S=field, captions=captions)
                listed.append(f"{stem}\n")
        lists["all"] = sorted(stem for listed in lists.values() for stem in listed)
        for name, listed in lists.items():
            yield f"imageLists/{name}.txt", "".join(listed).encode()

    write_zip(folder / "cocostuff-10k-v1.1.zip", files())
