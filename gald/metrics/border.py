"""Quality by distance to the image's border, where networks see less context."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from gald.metrics._tally import Counts, Mask, tally

BORDER = (0.02, 0.05, 0.1)
"""Distances that part the image into zones, as shares of its shorter side."""


def border_zones(truth: Mask, prediction: Mask, num_classes: int) -> Counts:
    """Count pixels by true and predicted class in zones of distance to the nearest edge of the image.

    Parameters
    ----------
    truth : uint8 array (H, W)
        Train ids; 255 is ignored.
    prediction : uint8 array (H, W)
        Train ids.
    num_classes : int
        Classes K.

    Returns
    -------
    int64 array (4, K, K)
        Zone, nearest first; truth; prediction. A pixel is nearer than a share if its centre is. An image too small for
        a zone has no pixel in it: that of one pixel is all innermost zone.
    """
    inside = [tally(pair, (num_classes, num_classes)) for pair in _inner(truth, prediction)]
    return np.stack([*(outer - inner for outer, inner in pairwise(inside)), inside[-1]])


def _inner(truth: Mask, prediction: Mask) -> list[tuple[Mask, Mask]]:
    """The whole pair, then without each zone in turn."""
    height, width = truth.shape
    # The centre of the pixel in row r lies r + 0.5 from the upper edge.
    margins = [math.ceil(share * min(height, width) - 0.5) for share in BORDER]
    parts = [(slice(margin, height - margin), slice(margin, width - margin)) for margin in (0, *margins)]
    return [(truth[part], prediction[part]) for part in parts]
