"""Count combinations of values: the one primitive behind every statistic of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Counts: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.uint8]

_EXACT_PIXELS = 1 << 24  # OpenCV counts in int32 and hands out float32, which is exact up to here


def tally(maps: Sequence[Mask], sizes: Sequence[int]) -> Counts:
    """Count how often each combination of values occurs.

    Parameters
    ----------
    maps : sequence of uint8 array (H, W)
        Two or more maps of one shape.
    sizes : sequence of int
        How many values of each map are counted, at most 256; pixels at which any map is beyond are left out.

    Returns
    -------
    int64 array of shape `sizes`
        Element (i, j, ...) is the number of pixels at which the maps hold i, j, ...

    Examples
    --------
    >>> tally([np.array([[0, 1, 1, 2]], np.uint8), np.array([[0, 1, 1, 0]], np.uint8)], (2, 2))
    array([[1, 0],
           [0, 2]])
    """
    counts = np.zeros(sizes, np.int64)
    height, width = maps[0].shape
    columns = min(width, _EXACT_PIXELS) or 1
    rows = max(1, _EXACT_PIXELS // columns)
    ranges = [float(bound) for size in sizes for bound in (0, size)]
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            part = [one[top : top + rows, left : left + columns] for one in maps]
            counts += cv2.calcHist(part, list(range(len(maps))), None, list(sizes), ranges).astype(np.int64)
    return counts
