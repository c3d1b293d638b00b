"""What a prediction takes of memory, said beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gald.inference._blocks import block_shape
from gald.inference._tiles import Grid, Size, batch, grid
from gald.inference._views import CHUNK, passing
from gald.params import ProtocolParams

_FLOAT = 4
_REACH = 3  # features beyond those that lie within a block, on account of both resizes


def peak_bytes(num_classes: int, image_size: Size, size: Size, stride: int, protocol: ProtocolParams) -> int:
    """Bound the host memory that one prediction on a CPU holds at a time, beyond the network's own.

    The network's own are its weights and what it makes of its input, logits included. Small tables (the resizing
    matrices of both sides, under 5 MB for sides of 4096 pixels) are not counted.

    Parameters
    ----------
    num_classes : int
        Classes K.
    image_size : (int, int)
        Height and width of the network's input at scale 1.
    size : (int, int)
        Height and width of the prediction.
    stride : int
        Of the network's logits, as 8.
    protocol : ProtocolParams

    Returns
    -------
    int
        Bytes, the larger of two sums. While the network first runs at a scale: the scores of the first tiles of larger
        scales, those of this one too if it is not all seen at once, the scaled images (uint8; of larger scales if not
        all of their tiles are seen), and a batch of tiles as bytes and as floats (twice with padding). While the
        prediction is passed over along its longer side: the scores that lie beneath the pass and ahead of it in tiles
        that it has reached, the images whose tiles it has not all reached, the prediction, and the blocks or else a
        batch of tiles. The scores of a tile are 4 bytes x K x its features, twice where probabilities are averaged over
        mirror images; a tile has ceil(height / stride) x ceil(width / stride) features.

    Examples
    --------
    >>> whole = ProtocolParams(name="whole", window=None, overlap=0.0, average="logits", scales=(1.0,), flip=False)
    >>> peak_bytes(19, (1024, 2048), (1024, 2048), 8, whole) / 1e6
    37.748736
    """
    scales = [_Scale(num_classes, image_size, scale, stride, protocol, size) for scale in protocol.scales]
    scales.sort(key=lambda one: one.plan.image, reverse=True)
    held = peak = 0
    for one in scales:
        peak = max(peak, held + one.image + one.batch + (0 if one.at_once else one.first))
        held += one.first + (one.image if one.left else 0)
    choosing = _choosing(num_classes, image_size, size, stride, protocol)
    step = block_shape(num_classes, "cpu")[passing(size)]
    for of_step in zip(*(one.passed(step) for one in scales), strict=True):
        running = max((one.batch for one, moment in zip(scales, of_step, strict=True) if moment.image), default=0)
        beneath = sum(moment.scores + moment.image for moment in of_step)
        peak = max(peak, math.prod(size) + beneath + max(choosing, running))
    return peak


class _Moment(NamedTuple):
    """Bytes of a scale while a step is passed: of scores, and of the image if tiles are still to be shown."""

    scores: int
    image: int


class _Scale:
    """Bytes of what belongs to one scale: its image, a batch of its tiles, the scores of the first ones."""

    def __init__(
        self, num_classes: int, image_size: Size, scale: float, stride: int, protocol: ProtocolParams, size: Size
    ) -> None:
        self.plan = plan = grid(image_size, scale, protocol)
        self._along, self._size = passing(size), size
        tiles, across = len(plan.rows) * len(plan.columns), len((plan.rows, plan.columns)[1 - self._along])
        layers = 2 if protocol.flip and protocol.average == "probabilities" else 1
        features = tuple(math.ceil(side / stride) for side in plan.tile)
        self._features = features[self._along]
        self._of_feature = _FLOAT * num_classes * layers * across * features[1 - self._along]
        together = min(tiles, batch(plan.tile, "cpu"))
        self._ahead = math.ceil((together - 1) / across)  # rows of tiles, or columns, shown along with one that is due
        self.left = together < tiles
        self.at_once = not self.left and not protocol.flip
        self.image, self.batch = 3 * math.prod(plan.image), _batch(plan, together)
        self.first = math.ceil(together / across) * self._features * self._of_feature

    def passed(self, step: int) -> Iterator[_Moment]:
        """What is held during each step of so many rows, or columns, of the prediction."""
        along = self._along
        plan, size = self.plan, self._size[along]
        starts = np.array((plan.rows, plan.columns)[along])
        ratio = plan.image[along] / size
        margin = ratio + 1  # both resizes look beside a pixel, and each has its own idea of where that lies
        shown = 1 + self._ahead
        for first in range(0, size, step):
            left = self.left and shown < len(starts)
            begin, end = first * ratio - margin, min(first + step, size) * ratio + margin
            shown = max(shown, int(np.searchsorted(starts, end)) + self._ahead)
            there = starts[:shown]
            lowest = (begin - there) * (self._features / plan.tile[along]) - 1
            dropped = CHUNK * (np.maximum(lowest, 0) // CHUNK)
            features = np.where(there + plan.covered[along] > begin, np.maximum(self._features - dropped, 0), 0)
            yield _Moment(int(features.sum()) * self._of_feature, self.image if left else 0)


def _batch(plan: Grid, together: int) -> int:
    """Bytes of a batch of tiles."""
    floats = math.prod(plan.tile) * (1 if plan.covered == plan.tile else 2)
    return 3 * together * (math.prod(plan.covered) + _FLOAT * floats)


def _choosing(num_classes: int, image_size: Size, size: Size, stride: int, protocol: ProtocolParams) -> int:
    """Bytes of a block's scores, of the features that it needs, and of these at the block's width."""
    shape = block_shape(num_classes, "cpu")
    largest = max(protocol.scales)
    overlapping = 1 if protocol.window is None else 2
    rows, columns = (
        overlapping * (math.ceil(step * largest * old / new / stride) + _REACH)
        for step, old, new in zip(shape, image_size, size, strict=True)
    )
    blocks = 1 if protocol.average == "logits" else 2
    needed = blocks * math.prod(shape) + rows * (2 * columns + shape.columns)
    return _FLOAT * num_classes * needed
