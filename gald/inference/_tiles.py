"""Where the tiles of a sliding window lie, and how many of them go through the network together."""

from __future__ import annotations

import math
from typing import NamedTuple

from gald.params import ProtocolParams

_BATCH_PIXELS = {"cpu": 1 << 18}  # larger batches gain nothing there, and the network's own memory grows with them
_BATCH_PIXELS_ELSEWHERE = 1 << 22  # 7 tiles of 769x769

Size = tuple[int, int]


class Grid(NamedTuple):
    """Tiles over an image of one scale.

    Attributes
    ----------
    image : (int, int)
        Height and width of the scaled image.
    tile : (int, int)
        Height and width of every tile, of which the image may fill less.
    rows, columns : tuple of int
        First row, or column, of the tiles.
    """

    image: Size
    tile: Size
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def covered(self) -> Size:
        """Height and width of what a tile shows of the image; the rest of it is padding."""
        return min(self.tile[0], self.image[0]), min(self.tile[1], self.image[1])


def grid(image: Size, scale: float, protocol: ProtocolParams) -> Grid:
    """Lay tiles over an image that is seen at a scale.

    A window larger than the image stays as it is, and the image is padded below and at its right, as the authors'
    evaluation has it: the network then sees the size that it has learnt from, and none that is too small for it.

    Parameters
    ----------
    image : (int, int)
        Height and width at scale 1.
    scale : float
        The scaled sides are rounded, halves up.
    protocol : ProtocolParams
        Of which window and overlap matter; without a window the scaled image is the only tile.
    """
    height, width = (max(1, math.floor(side * scale + 0.5)) for side in image)
    if protocol.window is None:
        return Grid((height, width), (height, width), (0,), (0,))
    rows, columns = (
        starts(length, window, protocol.overlap)
        for length, window in zip((height, width), protocol.window, strict=True)
    )
    return Grid((height, width), protocol.window, rows, columns)


def starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """First pixels of the tiles along a side: equal steps, the last tile moved back to end where the image does.

    The step is the share of a tile that the next one does not cover, rounded up to whole pixels, in float64 as
    the authors' release does it, for the same tiles: 33 * (1 - 1/3) is a little more than 22 there, and becomes 23.

    Examples
    --------
    >>> starts(1024, 769, 1 / 3), starts(2048, 769, 1 / 3)
    ((0, 255), (0, 513, 1026, 1279))
    >>> starts(500, 769, 1 / 3), starts(769, 769, 1 / 3)
    ((0,), (0,))
    """
    if length <= window:
        return (0,)
    step = max(1, math.ceil(window * (1 - overlap)))
    count = math.ceil((length - window) / step) + 1
    return tuple(min(index * step, length - window) for index in range(count))


def batch(tile: Size, device: str) -> int:
    """Tiles that go through the network together: a matter of the window and the kind of device alone.

    A convolution's last bits may depend on the size of its batch, so that it must not depend on what memory is free.
    """
    return max(1, _BATCH_PIXELS.get(device, _BATCH_PIXELS_ELSEWHERE) // (tile[0] * tile[1]))
