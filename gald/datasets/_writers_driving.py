"""Writes the miniatures' archives of the driving benchmarks, Cityscapes and CamVid, in both sources of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gald.datasets import load_spec
from gald.datasets._native import MINIATURES, Files, scenes, uint8, write_zip
from gald.datasets._png import encode
from gald.datasets._raw import read_table
from gald.datasets._synthetic import HEIGHT, WIDTH, Scene

_CITIES = {
    "train": ("aachen", "bad-honnef"),
    "val": ("lindau",),
    "test": ("bonn",),
    "train_extra": ("augsburg", "bad-honnef", "troisdorf"),
}
_ROOT_FILES = (("README", b"A miniature in the format of Cityscapes, drawn from a seed.\n"), ("license.txt", b"free\n"))
_BROKEN = "troisdorf/troisdorf_000000_000073"  # black and one-channel in the real archive, and so in this one
_BLOCK = 8  # pixels: coarse masks are made of such squares
_STRIPE = 24  # pixels: the colours of one CamVid class take turns in stripes of this width


def _stems(split: str, seed: int) -> Iterator[tuple[str, Scene]]:
    for index, scene in scenes("cityscapes", split, seed):
        city = _CITIES[split][index % len(_CITIES[split])]
        yield f"{city}/{city}_{index:06d}_{19:06d}", scene


def cityscapes_fine(folder: Path, seed: int) -> None:
    """Two zips that share the names of their root files; a test split whose masks are dummies."""
    miniature = MINIATURES["cityscapes"]

    def images() -> Files:
        yield from _ROOT_FILES
        for split in miniature.splits:
            for stem, scene in _stems(split, seed):
                yield f"leftImg8bit/{split}/{stem}_leftImg8bit.png", encode(scene.image)

    def masks() -> Files:
        yield from _ROOT_FILES
        for split in miniature.splits:
            for stem, scene in _stems(split, seed):
                ids = uint8(miniature.encode(scene.labels))
                if split == "test":
                    ids = np.where(ids == miniature.void, ids, 3).astype(np.uint8)  # out of roi
                yield f"gtFine/{split}/{stem}_gtFine_labelIds.png", encode(ids)

    write_zip(folder / "leftImg8bit_trainvaltest.zip", images())
    write_zip(folder / "gtFine_trainvaltest.zip", masks())


def cityscapes_coarse(folder: Path, seed: int) -> None:
    """The fine zips, and two more for train_extra; coarse masks of train lie beside those, as in the real one."""
    cityscapes_fine(folder, seed)

    def images() -> Files:
        yield from _ROOT_FILES
        yield f"leftImg8bit/train_extra/{_BROKEN}_leftImg8bit.png", encode(np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
        for stem, scene in _stems("train_extra", seed):
            yield f"leftImg8bit/train_extra/{stem}_leftImg8bit.png", encode(scene.image)

    def masks() -> Files:
        yield from _ROOT_FILES
        blank = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        yield f"gtCoarse/train_extra/{_BROKEN}_gtCoarse_labelIds.png", encode(blank)
        for split in ("train", "train_extra"):
            for stem, scene in _stems(split, seed):
                yield f"gtCoarse/{split}/{stem}_gtCoarse_labelIds.png", encode(coarse_ids(scene.labels))

    write_zip(folder / "leftImg8bit_trainextra.zip", images())
    write_zip(folder / "gtCoarse.zip", masks())


def coarse_ids(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Outline a scene roughly: squares that lie in one part keep its raw id, all others are 0, unlabeled.

    Examples
    --------
    >>> labels = np.zeros((8, 16), dtype=np.uint8)  # sky
    >>> labels[0, 9] = 5  # a pole
    >>> coarse_ids(labels)[0, 7:10].tolist()
    [23, 0, 0]
    """
    ids = uint8(MINIATURES["cityscapes"].encode(labels))
    rows, columns = labels.shape[0] // _BLOCK, labels.shape[1] // _BLOCK
    blocks = ids.reshape(rows, _BLOCK, columns, _BLOCK)
    lowest, highest = blocks.min(axis=(1, 3)), blocks.max(axis=(1, 3))
    return np.kron(np.where(lowest == highest, lowest, 0), np.ones((_BLOCK, _BLOCK))).astype(np.uint8)


def camvid_segnet(folder: Path, seed: int) -> None:
    """One zip with a top folder named for a commit, and lists of a container's absolute paths."""
    miniature = MINIATURES["camvid"]
    name = load_spec("camvid", "segnet").archives[0].name

    def files() -> Files:
        top = name.removesuffix(".zip")
        yield f"{top}/README.md", b"A miniature in the format of the SegNet tutorial's CamVid, drawn from a seed.\n"
        frame = 6690
        for split in miniature.splits:
            lines = []
            for _, scene in scenes("camvid", split, seed):
                stem = f"0001TP_{frame:06d}"
                frame += 30
                yield f"{top}/CamVid/{split}/{stem}.png", encode(scene.image)
                yield f"{top}/CamVid/{split}annot/{stem}.png", encode(uint8(miniature.encode(scene.labels)))
                lines.append(f"/SegNet/CamVid/{split}/{stem}.png /SegNet/CamVid/{split}annot/{stem}.png\n")
            yield f"{top}/CamVid/{split}.txt", "".join(lines).encode()

    write_zip(folder / name, files())


def camvid_original(folder: Path, seed: int) -> None:
    """A zip of frames and one of coloured masks; frames bear the names of the first ones of each real split."""
    rows = read_table("camvid_splits")

    def drawn() -> Iterator[tuple[str, int, Scene]]:
        for split in MINIATURES["camvid"].splits:
            stems = [row["stem"] for row in rows if row["split"] == split]
            for index, scene in scenes("camvid", split, seed):
                yield stems[index], index, scene

    images = ((f"701_StillsRaw_full/{stem}.png", encode(scene.image)) for stem, _, scene in drawn())
    masks = ((f"{stem}_L.png", encode(_colours(scene.labels, index))) for stem, index, scene in drawn())
    write_zip(folder / "701_StillsRaw_full.zip", images)
    write_zip(folder / "LabeledApproved_full.zip", masks)


def _colours(labels: npt.NDArray[np.uint8], index: int) -> npt.NDArray[np.uint8]:
    """Colour a scene so that every colour of a part's class occurs: they take turns in upright stripes."""
    raw_ids = {info.name: info.raw_ids for info in load_spec("camvid", "original").classes}
    names = load_spec("camvid", "segnet").class_names
    palette = np.array([[int(row[key]) for key in ("red", "green", "blue")] for row in read_table("camvid_32")])
    turn = np.broadcast_to(np.arange(labels.shape[1]) // _STRIPE + index, labels.shape)
    coloured = np.zeros((*labels.shape, 3), dtype=np.uint8)  # black is Void, what a scene leaves out
    for part, train_id in MINIATURES["camvid"].raw_ids.items():
        kin = np.array(raw_ids[names[train_id]])
        here = labels == part
        coloured[here] = palette[kin[turn[here] % len(kin)]]
    return coloured
