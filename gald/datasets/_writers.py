"""Writes the miniatures' archives: one function per benchmark lays its scenes out as the real archives are laid out.

Names, folders, id encodings and file types are the real ones, so that the code which prepares the real archives
prepares these. A few of the real oddities are drawn too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gald.datasets import load_spec
from gald.datasets._native import MINIATURES, Files, jpeg, mat, png, scenes, write_tar, write_zip
from gald.datasets._rle import encode
from gald.datasets._synthetic import GROUND_MARGIN, HEIGHT, WIDTH, Part, Scene
from gald.errors import DatasetError

_CITIES = {"train": ("aachen", "bad-honnef"), "val": ("lindau",), "test": ("bonn",)}
_ROOT_FILES = (("README", b"A miniature in the format of Cityscapes, drawn from a seed.\n"), ("license.txt", b"free\n"))
_GRAYSCALE, _PORTRAIT, _ALL_IGNORED = 5, 6, 7  # positions in the training split of the images with an oddity


def _uint8(labels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    return labels.astype(np.uint8)


def draw_archives(dataset: str, folder: Path, seed: int) -> None:
    """Write a miniature's archives, under the names of the real ones.

    Parameters
    ----------
    dataset : str
        One of `MINIATURES`.
    folder : Path
        Existing folder to write to.
    seed : int
        Seed of the scenes.

    Raises
    ------
    DatasetError
        The benchmark has no miniature.
    """
    writers: dict[str, Callable[[Path, int], None]] = {
        "cityscapes": cityscapes,
        "ade20k": ade20k,
        "pascal_context": pascal_context,
        "camvid": camvid,
        "coco_stuff10k": coco_stuff10k,
    }
    if dataset not in writers:
        raise DatasetError(f"{dataset} has no miniature; those that have: {', '.join(sorted(writers))}")
    writers[dataset](folder, seed)


def cityscapes(folder: Path, seed: int) -> None:
    """Two zips that share the names of their root files; a test split whose masks are dummies."""
    miniature = MINIATURES["cityscapes"]

    def stems() -> Iterator[tuple[str, str, Scene]]:
        for split in miniature.splits:
            for index, scene in scenes("cityscapes", split, seed):
                city = _CITIES[split][index % len(_CITIES[split])]
                yield split, f"{city}/{city}_{index:06d}_{19:06d}", scene

    def images() -> Files:
        yield from _ROOT_FILES
        for split, stem, scene in stems():
            yield f"leftImg8bit/{split}/{stem}_leftImg8bit.png", png(scene.image)

    def masks() -> Files:
        yield from _ROOT_FILES
        for split, stem, scene in stems():
            ids = _uint8(miniature.encode(scene.labels))
            if split == "test":
                ids = np.where(ids == miniature.void, ids, 3).astype(np.uint8)  # out of roi
            yield f"gtFine/{split}/{stem}_gtFine_labelIds.png", png(ids)

    write_zip(folder / "leftImg8bit_trainvaltest.zip", images())
    write_zip(folder / "gtFine_trainvaltest.zip", masks())


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
                ids = _uint8(miniature.encode(labels)) * np.uint8(odd != _ALL_IGNORED)
                top = "ADEChallengeData2016"
                yield f"{top}/images/{name}/{stem}.jpg", jpeg(image, grayscale=odd == _GRAYSCALE)
                yield f"{top}/annotations/{name}/{stem}.png", png(ids)
                categories.append(f"{stem} street\n")
        yield "ADEChallengeData2016/sceneCategories.txt", "".join(categories).encode()

    write_zip(folder / "ADEChallengeData2016.zip", files())


def _upright(scene: Scene) -> Scene:
    """Cut the strip on the lamp's side, where there is no ground, so that nothing in it stays undecided."""
    grounds = np.isin(scene.labels, (Part.GROUND_A, Part.GROUND_B))
    left = 0 if not grounds[:, :GROUND_MARGIN].any() else WIDTH - GROUND_MARGIN
    part = (slice(None), slice(left, left + GROUND_MARGIN))
    return Scene(np.ascontiguousarray(scene.image[part]), np.ascontiguousarray(scene.labels[part]))


def pascal_context(folder: Path, seed: int) -> None:
    """A tar of JPEGs, and one JSON of run-length segments that overlap: the wall lies under all objects."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    files: list[tuple[str, bytes]] = []
    stems: dict[str, list[str]] = {"train": [], "val": []}
    for split, listed in stems.items():
        for _, scene in scenes("pascal_context", split, seed):
            stem = f"2008_{len(images) + 1:06d}"
            listed.append(stem)
            files.append((f"VOCdevkit/VOC2010/JPEGImages/{stem}.jpg", jpeg(scene.image)))
            images.append(_image_entry(stem, split))
            annotations += _segment_entries(int(stem.replace("_", "")), scene.labels, len(annotations))
    images.append(_image_entry(f"2008_{len(images) + 1:06d}", "test"))  # listed, but neither annotated nor present
    for name, listed in {**stems, "trainval": stems["train"] + stems["val"]}.items():
        files.append((f"VOCdevkit/VOC2010/ImageSets/Main/{name}.txt", "".join(f"{s}\n" for s in listed).encode()))
    write_tar(folder / "VOCtrainval_03-May-2010.tar", iter(files))
    categories = [
        {"category_id": raw, "name": info.name, "supercategory": "background", "onlysemantic": 1, "parts": []}
        for info in load_spec("pascal_context").classes
        for raw in info.raw_ids
    ]
    empty: dict[str, list[Any]] = {"annos_occlusion": [], "annos_boundary": [], "annos_joints": [], "parts": []}
    whole = {"info": {}, "images": images, "categories": categories, "annos_segmentation": annotations, **empty}
    (folder / "trainval_merged.json").write_text(json.dumps(whole))


def _image_entry(stem: str, phase: str) -> dict[str, Any]:
    return {
        "image_id": int(stem.replace("_", "")),
        "file_name": f"{stem}.jpg",
        "height": HEIGHT,
        "width": WIDTH,
        "phase": phase,
        "date_captured": "31-Oct-2007",
    }


def _segment_entries(image_id: int, labels: npt.NDArray[np.uint8], begun: int) -> list[dict[str, Any]]:
    """One entry per part in the order of painting; what is painted later covers what is under it."""
    raw_ids = MINIATURES["pascal_context"].raw_ids
    under_all = np.isin(labels, (Part.WALL, Part.POLE, Part.DISC, Part.BOX))
    entries: list[dict[str, Any]] = []
    for part in Part:
        mask = under_all if part is Part.WALL else labels == part
        if not mask.any():
            continue
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        entries.append(
            {
                "id": begun + len(entries) + 1,
                "image_id": image_id,
                "category_id": raw_ids[part],
                "segmentation": {"size": list(labels.shape), "counts": encode(mask)},
                "area": int(mask.sum()),
                "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                "iscrowd": 0,
                "parts": [],
            }
        )
    return entries


def camvid(folder: Path, seed: int) -> None:
    """One zip with a top folder named for a commit, and lists of a container's absolute paths."""
    miniature = MINIATURES["camvid"]
    name = load_spec("camvid").archives[0].name

    def files() -> Files:
        top = name.removesuffix(".zip")
        yield f"{top}/README.md", b"A miniature in the format of the SegNet tutorial's CamVid, drawn from a seed.\n"
        frame = 6690
        for split in miniature.splits:
            lines = []
            for _, scene in scenes("camvid", split, seed):
                stem = f"0001TP_{frame:06d}"
                frame += 30
                yield f"{top}/CamVid/{split}/{stem}.png", png(scene.image)
                yield f"{top}/CamVid/{split}annot/{stem}.png", png(_uint8(miniature.encode(scene.labels)))
                lines.append(f"/SegNet/CamVid/{split}/{stem}.png /SegNet/CamVid/{split}annot/{stem}.png\n")
            yield f"{top}/CamVid/{split}.txt", "".join(lines).encode()

    write_zip(folder / name, files())


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
                ids = _uint8(miniature.encode(scene.labels))
                field = ids.astype(np.float64) if odd == _ALL_IGNORED else ids
                yield f"images/{stem}.jpg", jpeg(scene.image, grayscale=odd == _GRAYSCALE)
                yield f"annotations/{stem}.mat", mat(S=field, captions=captions)
                listed.append(f"{stem}\n")
        lists["all"] = sorted(stem for listed in lists.values() for stem in listed)
        for name, listed in lists.items():
            yield f"imageLists/{name}.txt", "".join(listed).encode()

    write_zip(folder / "cocostuff-10k-v1.1.zip", files())
