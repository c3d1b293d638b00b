"""What the miniatures' archives are made of: splits and ids of each benchmark, and the file formats of the real ones.

Bytes depend on the seed, the generator's version, and the installed versions of Pillow, zlib and SciPy; no clock and no
machine enters.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from gald.datasets._synthetic import Part, Scene, draw

_JPEG_QUALITY = 95

Files = Iterator[tuple[str, bytes]]


class Miniature(NamedTuple):
    """One benchmark in miniature.

    Attributes
    ----------
    splits : mapping from str to int
        Number of images of each split.
    raw_ids : mapping from Part to int
        Raw id of each part of a scene.
    void : int
        Raw id of what a scene leaves out.
    """

    splits: Mapping[str, int]
    raw_ids: Mapping[Part, int]
    void: int

    def encode(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        """Map a scene's parts to raw ids."""
        table = np.full(256, self.void, dtype=np.uint16)
        table[list(self.raw_ids)] = list(self.raw_ids.values())
        return table[labels]


def _ids(*raw_ids: int) -> dict[Part, int]:
    """Raw ids in the order of `Part`: sky, the two grounds, wall, foliage, pole, disc, box."""
    return dict(zip(Part, raw_ids, strict=True))


MINIATURES = {
    # sky; road or sidewalk; building, vegetation, pole, traffic sign, car; ego vehicle
    "cityscapes": Miniature({"train": 96, "val": 40, "test": 4}, _ids(23, 7, 8, 11, 21, 17, 20, 26), void=1),
    # sky; road or water; building, tree, pole, signboard, car; other objects
    "ade20k": Miniature({"train": 64, "val": 32}, _ids(3, 7, 22, 2, 5, 94, 44, 21), void=0),
    # sky; road or water; building, tree, fence, sign, car; background
    "pascal_context": Miniature({"train": 64, "val": 32}, _ids(360, 324, 445, 44, 420, 144, 355, 59), void=0),
    # Sky; Road or Pavement; Building, Tree, Pole, SignSymbol, Car; Void
    "camvid": Miniature({"train": 48, "val": 16, "test": 32}, _ids(0, 3, 4, 1, 5, 2, 6, 8), void=11),
    # sky-other; road or water-other; wood, tree, fence, stop sign, car; unlabeled
    "coco_stuff10k": Miniature({"train": 64, "test": 32}, _ids(157, 149, 178, 182, 169, 113, 13, 3), void=0),
}


TRAIN_EXTRA = 16
"""Scenes of the split train_extra of Cityscapes, which its source ``coarse`` has beside those above."""


def scenes(dataset: str, split: str, seed: int) -> Iterator[tuple[int, Scene]]:
    """Draw a split's scenes, numbered from 0; they are the same in every source of a benchmark."""
    for index in range(TRAIN_EXTRA if split == "train_extra" else MINIATURES[dataset].splits[split]):
        yield index, draw(seed, dataset, split, index)


def uint8(raw_ids: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """Narrow raw ids for a benchmark that stores them in 8 bits."""
    return raw_ids.astype(np.uint8)


def jpeg(pixels: npt.NDArray[np.uint8], *, grayscale: bool = False) -> bytes:
    """Encode an RGB image, without thinning its colours: poles are one pixel wide."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert("L") if grayscale else image).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def mat(**fields: npt.NDArray[np.generic]) -> bytes:
    """Encode a MATLAB level-5 file; SciPy puts the time of day into its header, which is replaced."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, fields, do_compression=True)
    content = bytearray(buffer.getvalue())
    content[:116] = b"MATLAB 5.0 MAT-file Platform: posix, Created on: Thu Jan  1 00:00:00 1970".ljust(116)
    return bytes(content)


def write_zip(path: Path, files: Files) -> None:
    """Write a zip whose bytes depend on names and contents only."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            info = zipfile.ZipInfo(name)  # dated 1980-01-01
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, content)


def write_tar(path: Path, files: Files) -> None:
    """Write a tar, compressed if it is called ``.gz``, whose bytes depend on names and contents only."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)  # dated 1970-01-01, owned by nobody in particular
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    content = buffer.getvalue()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
