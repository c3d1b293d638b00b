"""Prepared benchmarks drawn from a seed, of the size and the file size of real ones, so that decoding takes as long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from gald import files, paths
from gald.datasets import IGNORE_INDEX
from gald.datasets._packed import Pixels, pixels_sha256
from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError
from gald.prepare.index import render
from gald.prepare.pack import pack

_EDITION = "full"


@dataclass(frozen=True)
class Scenes:
    """What to draw: images with structure at two scales and the noise of a sensor, and masks of large regions.

    Attributes
    ----------
    name : str
        Name of the benchmark whose size it has.
    size : (int, int)
        Height and width in pixels.
    classes : int
        Classes in the masks.
    suffix : str
        Of the images: ``.png`` or ``.jpg``.
    noise : float
        Standard deviation of the noise in levels, which decides how large a PNG is.
    count : int
        Samples.
    """

    name: str
    size: tuple[int, int]
    classes: int
    suffix: str
    noise: float
    count: int

    def draw(self, index: int) -> tuple[Pixels, Pixels]:
        """Draw one image and its mask."""
        generator = np.random.default_rng((self.classes, index))
        height, width = self.size
        coarse = self._smooth(generator, 3, 64)
        fine = self._smooth(generator, 1, 4)
        noise = generator.normal(0, self.noise, (height, width, 1))
        regions = self._smooth(generator, self.classes, 64)
        image = np.clip(40 + 150 * coarse + 20 * fine + noise, 0, 255).astype(np.uint8)
        return image, regions.argmax(axis=-1).astype(np.uint8)

    def _smooth(self, generator: np.random.Generator, channels: int, pixels: int) -> np.ndarray:
        """Noise of one value for so many pixels, enlarged smoothly: float32 (H, W, channels)."""
        small = generator.random((1, channels, self.size[0] // pixels, self.size[1] // pixels), dtype=np.float32)
        enlarged = functional.interpolate(torch.from_numpy(small), size=self.size, mode="bicubic", align_corners=False)
        return np.ascontiguousarray(enlarged[0].permute(1, 2, 0).numpy())

    def write(self) -> Path:
        """Write and pack a prepared benchmark, unless it is there; return its folder."""
        folder = paths.prepared(_EDITION, self.name)
        if not self._is_drawn(folder):
            files.remove_folder(folder)
            rows = [self._write_sample(folder, index) for index in range(self.count)]
            files.write_text(folder / "train.csv", render(rows))
            entry = {"count": self.count, "labelled": True, "index": "train.csv"}
            splits = {"train": entry | {"sha256": files.sha256(folder / "train.csv")}}
            classes = [f"class {train_id}" for train_id in range(self.classes)]
            manifest = {"edition": _EDITION, "dataset": self.name, "splits": splits, "classes": classes}
            files.write_json(folder / "manifest.json", manifest | {"ignore_index": IGNORE_INDEX})
        pack(_EDITION, self.name)
        return folder

    def _is_drawn(self, folder: Path) -> bool:
        try:
            return len(PreparedSplit(folder, ("train",), store="files")) == self.count
        except DatasetError:  # nothing is there, or what an earlier version has drawn
            return False

    def _write_sample(self, folder: Path, index: int) -> dict[str, str | int]:
        image, mask = self.draw(index)
        row: dict[str, str | int] = {"id": f"scene{index:02d}", "height": self.size[0], "width": self.size[1]}
        row["dhash"] = "0" * 16
        for kind, pixels, suffix in (("image", image, self.suffix), ("mask", mask, ".png")):
            path = folder / f"{kind}s/train/scene{index:02d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, quality=90)
            with Image.open(path) as written:  # a JPEG's pixels are not those that were drawn
                row[f"{kind}_sha256"] = pixels_sha256(np.array(written))
            row[kind] = path.relative_to(folder).as_posix()
        return row

    def megabytes(self, folder: Path) -> float:
        """Size of an image file on average."""
        sizes = [path.stat().st_size for path in (folder / "images/train").iterdir()]
        return sum(sizes) / len(sizes) / 1e6


CITYSCAPES = Scenes("cityscapes", (1024, 2048), 19, ".png", 1.0, 24)
ADE20K = Scenes("ade20k", (512, 683), 150, ".jpg", 4.0, 24)


@contextmanager
def data_in(folder: Path) -> Iterator[None]:
    """Let prepared and packed data lie in another folder, away from the user's own."""
    before = paths.DATA_ROOT
    paths.DATA_ROOT = folder
    try:
        yield
    finally:
        paths.DATA_ROOT = before
