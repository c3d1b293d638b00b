"""What a network says of an image at each scale, at its own resolution."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gald._loss_resizing import LOG2_E
from gald.inference._axis import Axis, linear
from gald.inference._network import as_input
from gald.inference._tiles import Grid, Size, batch, grid
from gald.models.segmentor import Segmentor
from gald.params import ProtocolParams
from gald.transforms import resize_image


class View(NamedTuple):
    """Scores of an image at one scale.

    Attributes
    ----------
    scores : tuple of Tensor
        float32 (rows * h, K, columns * w), tile beside tile. Logits of the image, to which those of its mirrored copy
        are added; where probabilities are averaged, logits to base 2, and those of the copy apart. Copies are mirrored
        back.
    vertical, horizontal : Axis
        How they relate to the prediction.
    """

    scores: tuple[Tensor, ...]
    vertical: Axis
    horizontal: Axis


def views(model: Segmentor, image: NDArray[np.uint8], size: Size, protocol: ProtocolParams) -> list[View]:
    """Run a network on an image at each scale; the largest first, while little else takes memory."""
    shape = (image.shape[0], image.shape[1])
    found = []
    for plan in (grid(shape, scale, protocol) for scale in sorted(protocol.scales, reverse=True)):
        for length, new in zip(plan.image, size, strict=True):
            linear(length, new, model.align_corners)  # kept; made while there are no scores
        found.append(_view(model, resize_image(image, plan.image), plan, size, protocol))
    return found


def _view(model: Segmentor, image: NDArray[np.uint8], plan: Grid, size: Size, protocol: ProtocolParams) -> View:
    device = model.mean.device
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).to(device)  # a copy for torch's sake alone
    scores = _Scores(plan, protocol)
    places = [(row, column) for row in range(len(plan.rows)) for column in range(len(plan.columns))]
    together = batch(plan.tile, device.type)
    for first in range(0, len(places), together):
        some = places[first : first + together]
        for mirrored in (False, True) if protocol.flip else (False,):  # one after the other, so that only one is held
            logits = model(_inputs(model, pixels, plan, some, mirrored=mirrored), full_size=False).logits
            scores.put(some, logits, mirrored=mirrored)
            del logits
    height, width = scores.tile
    vertical = Axis(plan.image[0], plan.tile[0], plan.rows, height, size[0], model.align_corners)
    horizontal = Axis(plan.image[1], plan.tile[1], plan.columns, width, size[1], model.align_corners)
    return View(tuple(scores.layers), vertical, horizontal)


def _inputs(model: Segmentor, pixels: Tensor, plan: Grid, places: list[Size], *, mirrored: bool) -> Tensor:
    """Tiles (n, 3, H, W); what an image lacks is the mean colour, which the network's normalisation makes 0."""
    height, width = plan.covered
    corners = [(plan.rows[row], plan.columns[column]) for row, column in places]
    tiles = [pixels[top : top + height, left : left + width] for top, left in corners]
    shown = torch.stack(tiles) if len(tiles) > 1 else tiles[0][None]
    inputs = as_input(shown.flip(2) if mirrored else shown)  # bytes are mirrored, not floats
    if plan.covered == plan.tile:
        return inputs
    padded = inputs.new_empty((len(places), 3, *plan.tile)).to(memory_format=torch.channels_last)
    padded.copy_(model.mean.expand_as(padded))
    left = plan.tile[1] - width if mirrored else 0
    padded[:, :, :height, left : left + width] = inputs
    return padded


class _Scores:
    """Scores of the tiles of one scale, side by side."""

    def __init__(self, plan: Grid, protocol: ProtocolParams) -> None:
        self.layers: list[Tensor] = []
        self.tile: Size = (0, 0)
        self._tiles = (len(plan.rows), len(plan.columns))
        self._to_base_2 = protocol.average == "probabilities"
        self._count = 2 if protocol.flip and self._to_base_2 else 1

    def put(self, places: list[tuple[int, int]], logits: Tensor, *, mirrored: bool) -> None:
        """Lay down the logits (n, K, h, w) of tiles."""
        if not self.layers:
            _, classes, height, width = logits.shape
            self.tile = (height, width)
            shape = (self._tiles[0] * height, classes, self._tiles[1] * width)
            self.layers = [logits.new_empty(shape) for _ in range(self._count)]
        height, width = self.tile
        for (row, column), of_tile in zip(places, logits, strict=True):
            layer = self.layers[mirrored if self._count == 2 else 0]
            target = layer[row * height : (row + 1) * height, :, column * width : (column + 1) * width]
            for line, values in zip(target, of_tile.transpose(0, 1), strict=True):  # a copy mirrored back stays small
                values = values.flip(-1) if mirrored else values
                if self._to_base_2:
                    torch.mul(values, LOG2_E, out=line)
                elif mirrored:
                    line.add_(values)
                else:
                    line.copy_(values)
