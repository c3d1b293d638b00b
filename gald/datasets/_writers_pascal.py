"""Writes the miniatures' archives of Pascal Context: one tar of photographs, and the masks of either source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gald.datasets import load_spec
from gald.datasets._native import MINIATURES, Files, jpeg, mat, scenes, write_tar
from gald.datasets._raw import read_table
from gald.datasets._rle import encode
from gald.datasets._synthetic import HEIGHT, VOID, WIDTH, Part, Scene

_SPLITS = ("train", "val")
_UNCOUNTED = (0, 1, 431, 459)
"""Ids of no class: without a label, accordion, unknown, wool. They take turns in what a scene leaves out."""
_STRIPE = 24  # pixels: width of a turn


def _draw(seed: int) -> Iterator[tuple[str, str, Scene]]:
    """Draw split, stem and scene, numbered through all splits."""
    number = 0
    for split in _SPLITS:
        for _, scene in scenes("pascal_context", split, seed):
            number += 1
            yield split, f"2008_{number:06d}", scene


def _write_photographs(folder: Path, seed: int) -> None:
    """Write the tar of JPEGs, with VOC's own lists of the splits."""
    files: list[tuple[str, bytes]] = []
    stems: dict[str, list[str]] = {split: [] for split in _SPLITS}
    for split, stem, scene in _draw(seed):
        stems[split].append(stem)
        files.append((f"VOCdevkit/VOC2010/JPEGImages/{stem}.jpg", jpeg(scene.image)))
    for name, listed in {**stems, "trainval": stems["train"] + stems["val"]}.items():
        files.append((f"VOCdevkit/VOC2010/ImageSets/Main/{name}.txt", "".join(f"{s}\n" for s in listed).encode()))
    write_tar(folder / "VOCtrainval_03-May-2010.tar", iter(files))


def pascal_context_json(folder: Path, seed: int) -> None:
    """The photographs, and one JSON of run-length segments that overlap: the wall lies under all objects."""
    _write_photographs(folder, seed)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for split, stem, scene in _draw(seed):
        images.append(_image_entry(stem, split))
        annotations += _segment_entries(int(stem.replace("_", "")), scene.labels, len(annotations))
    images.append(_image_entry(f"2008_{len(images) + 1:06d}", "test"))  # listed, but neither annotated nor present
    categories = [
        {"category_id": raw, "name": info.name, "supercategory": "background", "onlysemantic": 1, "parts": []}
        for info in load_spec("pascal_context").classes
        for raw in info.raw_ids
    ]
    empty: dict[str, list[Any]] = {"annos_occlusion": [], "annos_boundary": [], "annos_joints": [], "parts": []}
    whole = {"info": {}, "images": images, "categories": categories, "annos_segmentation": annotations, **empty}
    (folder / "trainval_merged.json").write_text(json.dumps(whole))


def pascal_context_mat(folder: Path, seed: int) -> None:
    """The photographs, and a compressed tar with one MATLAB file per image and the list of the 459 labels."""
    _write_photographs(folder, seed)

    def files() -> Files:
        for _, stem, scene in _draw(seed):
            yield f"trainval/{stem}.mat", mat(LabelMap=_label_map(scene.labels))
        listed = (f"{row['raw_id']}: {row['name']}\n" for row in read_table("pascal_context_459"))
        yield "labels.txt", "".join(listed).encode()

    write_tar(folder / "trainval.tar.gz", files())


def _label_map(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Map a scene's parts to raw ids, and what it leaves out to ids of no class."""
    ids = MINIATURES["pascal_context"].encode(labels)
    turn = np.broadcast_to(np.arange(labels.shape[1]) // _STRIPE % len(_UNCOUNTED), labels.shape)
    out = labels == VOID
    ids[out] = np.array(_UNCOUNTED, dtype=np.uint16)[turn[out]]
    return ids


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
