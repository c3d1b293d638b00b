"""What a prediction takes of memory, said beforehand."""

from __future__ import annotations

import math

from gald.inference._blocks import block_shape
from gald.inference._tiles import Grid, Size, batch, grid
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
        Bytes, the larger of two sums. While the network runs at a scale: the scores of larger scales, those of this one
        too if it is not all seen at once, the scaled image (uint8), and a batch of tiles as bytes and as floats (twice
        with padding). While classes are chosen: the scores of all scales, the prediction and the blocks. The scores of
        a scale are 4 bytes x K x features of all its tiles, twice where probabilities are averaged over mirror images;
        a tile has ceil(height / stride) x ceil(width / stride) features.

    Examples
    --------
    >>> whole = ProtocolParams(name="whole", window=None, overlap=0.0, average="logits", scales=(1.0,), flip=False)
    >>> peak_bytes(19, (1024, 2048), (1024, 2048), 8, whole) / 1e6
    37.748736
    """
    apart = 2 if protocol.flip and protocol.average == "probabilities" else 1
    held = peak = 0
    for scale in sorted(protocol.scales, reverse=True):
        plan = grid(image_size, scale, protocol)
        tiles = len(plan.rows) * len(plan.columns)
        of_tile = _FLOAT * num_classes * math.prod(math.ceil(side / stride) for side in plan.tile)
        scores = apart * tiles * of_tile
        at_once = tiles <= batch(plan.tile, "cpu") and not protocol.flip
        peak = max(peak, held + (0 if at_once else scores) + _running(plan, tiles))
        held += scores
    return max(peak, held + math.prod(size) + _choosing(num_classes, image_size, size, stride, protocol))


def _running(plan: Grid, tiles: int) -> int:
    """Bytes of the image and of a batch of tiles."""
    together = min(tiles, batch(plan.tile, "cpu"))
    floats = math.prod(plan.tile) * (1 if plan.covered == plan.tile else 2)
    return 3 * (math.prod(plan.image) + together * (math.prod(plan.covered) + _FLOAT * floats))


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
