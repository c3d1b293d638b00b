"""What a network says of an image at each scale, at its own resolution, for as long as the prediction needs it.

A prediction is passed over along its longer side. Tiles are shown to the network when the pass comes to them, and their
scores are dropped piece by piece behind it: of a large image only the tiles beneath the pass are held.
"""

from __future__ import annotations

import math
from collections.abc import Container

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gald.inference._axis import Axis, Band, joint_bands, linear, tile_bands
from gald.inference._network import as_input
from gald.inference._tiles import Grid, Size, batch, grid
from gald.losses.resizing import LOG2_E
from gald.models.segmentor import Segmentor
from gald.params import ProtocolParams
from gald.transforms import resize_image

CHUNK = 16
"""Features, along the pass, that are dropped together."""


class View:
    """What a network says of an image at one scale.

    Parameters
    ----------
    model : Segmentor
    image : uint8 array (H, W, 3)
        Of the scale's size.
    plan : Grid
    size : (int, int)
        Of the prediction.
    protocol : ProtocolParams

    Attributes
    ----------
    vertical, horizontal : Axis
        How features relate to the prediction.
    num_classes : int
    layers : int
        2 where the scores of mirrored copies are kept apart, 1 where they are added up.
    """

    vertical: Axis
    horizontal: Axis
    num_classes: int

    def __init__(
        self, model: Segmentor, image: NDArray[np.uint8], plan: Grid, size: Size, protocol: ProtocolParams
    ) -> None:
        self.device = model.mean.device
        self.along = passing(size)
        self._model, self._plan, self._size, self._flip = model, plan, size, protocol.flip
        self._to_base_2 = protocol.average == "probabilities"
        self.layers = 2 if protocol.flip and self._to_base_2 else 1
        rows, columns = range(len(plan.rows)), range(len(plan.columns))
        row_by_row = [(row, column) for row in rows for column in columns]
        self._left = sorted(row_by_row, key=lambda place: place[self.along])  # tiles that are still to be shown
        self._pixels: Tensor | None = torch.from_numpy(np.require(image, requirements=["C", "W"])).to(self.device)
        self._chunks: dict[tuple[int, int], Tensor] = {}
        self._show()

    def bands(self, side: int, tile: int | None, step: int) -> tuple[Band | None, ...]:
        """Bands of `step` rows (side 0) or columns (side 1) for a tile of that side, or for all of them."""
        axis, chunk = (self.vertical, self.horizontal)[side], CHUNK if side == self.along else None
        if tile is None:
            return joint_bands(axis, step, self.device, chunk)
        return tile_bands(axis, tile, step, self.device, chunk)

    def chunk(self, layer: int, number: int) -> Tensor:
        """Scores (h, K, w) of a chunk and of all tiles side by side across it, in float32.

        Logits of the image, to which those of its mirrored copy are added; where probabilities are averaged, logits to
        base 2, and those of the copy in a layer of its own. Copies are mirrored back.
        """
        return self._chunks[layer, number]

    def load(self, last: int) -> None:
        """Show tiles to the network, until all chunks up to one are there."""
        while self._left and self._left[0][self.along] <= last // self._chunks_of_tile:
            self._show()

    def keep(self, chunks: Container[int]) -> None:
        """Forget all chunks but these."""
        for key in [key for key in self._chunks if key[1] not in chunks]:
            del self._chunks[key]

    @property
    def _chunks_of_tile(self) -> int:
        return math.ceil((self.vertical, self.horizontal)[self.along].features / CHUNK)

    def _show(self) -> None:
        """Show the network the next tiles."""
        together = batch(self._plan.tile, self.device.type)
        some, self._left = self._left[:together], self._left[together:]
        for mirrored in (False, True) if self._flip else (False,):  # one after the other, so that only one is held
            logits = self._model(self._inputs(some, mirrored=mirrored), full_size=False).logits
            self._lay_out(logits)
            for place, of_tile in zip(some, logits, strict=True):
                self._put(place, of_tile, mirrored=mirrored)
            del logits
        if not self._left:
            self._pixels = None

    def _inputs(self, places: list[Size], *, mirrored: bool) -> Tensor:
        """Tiles (n, 3, H, W); what an image lacks is the mean colour, which the network's normalisation makes 0."""
        assert self._pixels is not None
        plan, (height, width) = self._plan, self._plan.covered
        corners = [(plan.rows[row], plan.columns[column]) for row, column in places]
        tiles = [self._pixels[top : top + height, left : left + width] for top, left in corners]
        shown = torch.stack(tiles) if len(tiles) > 1 else tiles[0][None]
        inputs = as_input(shown.flip(2) if mirrored else shown)  # bytes are mirrored, not floats
        if plan.covered == plan.tile:
            return inputs
        padded = inputs.new_empty((len(places), 3, *plan.tile)).to(memory_format=torch.channels_last)
        padded.copy_(self._model.mean.expand_as(padded))
        left = plan.tile[1] - width if mirrored else 0
        padded[:, :, :height, left : left + width] = inputs
        return padded

    def _lay_out(self, logits: Tensor) -> None:
        """Learn from the first logits (n, K, h, w) how features lie in the image."""
        _, self.num_classes, height, width = logits.shape
        plan, corners = self._plan, self._model.align_corners
        self.vertical = Axis(plan.image[0], plan.tile[0], plan.rows, height, self._size[0], corners)
        self.horizontal = Axis(plan.image[1], plan.tile[1], plan.columns, width, self._size[1], corners)

    def _put(self, place: Size, logits: Tensor, *, mirrored: bool) -> None:
        """Lay down the logits (K, h, w) of a tile, chunk by chunk, so that a copy mirrored back stays small."""
        layer, side = int(mirrored and self.layers == 2), 1 + self.along
        across, length = logits.shape[2 - self.along], logits.shape[side]
        for index, low in enumerate(range(0, length, CHUNK)):
            count = min(CHUNK, length - low)
            start = length - low - count if mirrored and self.along else low
            values = logits.narrow(side, start, count).transpose(0, 1)
            whole = self._whole(layer, place[self.along] * self._chunks_of_tile + index, values)
            target = whole.narrow(2 - 2 * self.along, place[1 - self.along] * across, across)
            values = values.flip(2) if mirrored else values
            if self._to_base_2:
                torch.mul(values, LOG2_E, out=target)
            elif mirrored:
                target.add_(values)
            else:
                target.copy_(values)

    def _whole(self, layer: int, number: int, of_tile: Tensor) -> Tensor:
        """Memory of a chunk, of which a tile has a part of that shape (h, K, w)."""
        if (layer, number) not in self._chunks:
            height, classes, width = of_tile.shape
            rows, columns = (1, len(self._plan.columns)) if self.along == 0 else (len(self._plan.rows), 1)
            self._chunks[layer, number] = of_tile.new_empty((rows * height, classes, columns * width))
        return self._chunks[layer, number]


def passing(size: Size) -> int:
    """Side along which a prediction is passed over: 0 from top to bottom, 1 from left to right."""
    return int(size[1] > size[0])


def views(model: Segmentor, image: NDArray[np.uint8], size: Size, protocol: ProtocolParams) -> list[View]:
    """Run a network on an image at each scale; the largest first, while little else takes memory."""
    shape = (image.shape[0], image.shape[1])
    found = []
    for plan in (grid(shape, scale, protocol) for scale in sorted(protocol.scales, reverse=True)):
        for length, new in zip(plan.image, size, strict=True):
            linear(length, new, model.align_corners)  # kept; made while there are no scores
        found.append(View(model, resize_image(image, plan.image), plan, size, protocol))
    return found
