"""Pairs of a mask and a prediction as evaluations meet them: regions, small objects, and boundaries a little off.

Random noise would be no measure: its every pixel is a boundary, and no two counts fall into one cache line.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gald.datasets import IGNORE_INDEX
from gald.datasets._png import encode_mask
from gald.datasets.cityscapes import SPEC
from gald.metrics import Mask

SIZE = (1024, 2048)
_REGIONS, _OBJECTS, _MISTAKES = 150, 300, 60
_BENT, _OFF = 24.0, 3.0  # pixels that boundaries curve, and that the prediction is off
_IGNORED = 0.05  # share of the rows, at the foot, as of a car's bonnet


def drawn_pair(num_classes: int, index: int, size: tuple[int, int] = SIZE) -> tuple[Mask, Mask]:
    """Draw a mask and a prediction, uint8 (H, W), of that many classes; the index is the seed."""
    generator = np.random.default_rng((num_classes, index))
    truth = _moved(_regions(generator, num_classes, size), generator, _BENT)
    _draw_objects(truth, generator, num_classes, _OBJECTS, 16)
    prediction = _moved(truth, generator, _OFF)
    _draw_objects(prediction, generator, num_classes, _MISTAKES, 30)
    truth[round((1 - _IGNORED) * size[0]) :] = IGNORE_INDEX
    return truth, prediction


def write_pairs(folder: Path, count: int, size: tuple[int, int] = SIZE) -> None:
    """Write pairs of Cityscapes' 19 classes as PNGs of its raw ids, ``truth<i>.png`` and ``prediction<i>.png``.

    Beside them lies ``prepared<i>.png``, the truth as `gald.prepare` leaves it: train ids, written our way.
    """
    raw_ids = np.zeros(256, np.uint8)
    raw_ids[: len(SPEC.classes)] = [one.raw_ids[0] for one in SPEC.classes]
    for index in range(count):
        truth, prediction = drawn_pair(len(SPEC.classes), index, size)
        for kind, mask in (("truth", truth), ("prediction", prediction)):
            Image.fromarray(raw_ids[mask]).save(folder / f"{kind}{index}.png")
        (folder / f"prepared{index}.png").write_bytes(encode_mask(truth))


def _regions(generator: np.random.Generator, num_classes: int, size: tuple[int, int]) -> Mask:
    """Give each pixel the class of the nearest of some random centres."""
    free = np.ones(size, np.uint8)
    free[generator.integers(0, size[0], _REGIONS), generator.integers(0, size[1], _REGIONS)] = 0
    _, nearest = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return np.asarray(generator.integers(0, num_classes, _REGIONS + 1).astype(np.uint8)[nearest])


def _moved(mask: Mask, generator: np.random.Generator, pixels: float) -> Mask:
    """Shift each pixel by a smooth field of about so many pixels."""
    height, width = mask.shape
    rows, columns = np.indices(mask.shape, np.float32)
    field = [generator.normal(0, pixels, (height // 32 + 2, width // 32 + 2)).astype(np.float32) for _ in range(2)]
    offsets = [cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC) for one in field]
    moved = cv2.remap(mask, columns + offsets[0], rows + offsets[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def _draw_objects(mask: Mask, generator: np.random.Generator, num_classes: int, count: int, reach: int) -> None:
    """Draw small ellipses of random classes."""
    for _ in range(count):
        centre = [int(generator.integers(0, side)) for side in reversed(mask.shape)]
        axes = [int(generator.integers(2, reach)) for _ in range(2)]
        cv2.ellipse(mask, centre, axes, 0, 0, 360, int(generator.integers(0, num_classes)), -1)
