"""From scores at the network's resolution to the class of each pixel, block by block of the prediction.

A block is resized by two products with small matrices, while it is in the processor's cache, and its classes are chosen
at once. Blocks are narrow as well as low: each then needs few features of either side, and the products stay small.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gald._pixel_loss import full_precision
from gald.inference._axis import Band, joint_bands, tile_bands
from gald.inference._tiles import Size
from gald.inference._views import View

_LANES = 64  # floats: four registers of 512 bits
Bands = tuple[Band | None, ...]


class Shape(NamedTuple):
    """Rows and columns of a block."""

    rows: int
    columns: int


class _Source(NamedTuple):
    """Scores (rows, K, columns) and what each row and each column of blocks needs of them."""

    scores: Tensor
    vertical: Bands
    horizontal: Bands


def block_shape(num_classes: int, device: str) -> Shape:
    """Choose blocks of at most 2 MiB of scores on a CPU, of 64 MiB elsewhere: enough work for a kernel's launch.

    Columns are a multiple of what torch's maxima take at a time, or else the rest of them would take ten times as long.
    """
    rows, elements, widest = (32, 1 << 19, 192) if device == "cpu" else (256, 1 << 24, 1 << 12)
    return Shape(rows, min(widest, max(_LANES, elements // (num_classes * rows) // _LANES * _LANES)))


def classes(views: list[View], size: Size, *, probabilities: bool) -> Tensor:
    """Choose the class of each pixel, uint8 of `size`, by the scores that the views have on average.

    The first class is chosen where several are best, and the last one where scores are not numbers.
    """
    prediction = torch.empty(size, dtype=torch.uint8, device=views[0].scores[0].device)
    for top, left, scores in blocks(views, size, probabilities=probabilities):
        prediction[top : top + scores.shape[0], left : left + scores.shape[2]] = _best(scores)
    return prediction


def blocks(views: list[View], size: Size, *, probabilities: bool) -> Iterator[tuple[int, int, Tensor]]:
    """Add up the views' scores, block by block of a prediction.

    Yields
    ------
    top, left : int
        First row and column of the block.
    scores : Tensor
        float32 (rows, K, columns): the sum over scales, and over mirror images, of the mean over tiles; of logits or of
        probabilities. In memory that the next block overwrites, and that may be written to.
    """
    first = views[0].scores[0]
    count, device = first.shape[1], first.device
    shape = block_shape(count, device.type)
    sources = list(_sources(views, shape, device, apart=probabilities))
    work = _Block(count, shape, device, probabilities=probabilities)
    with torch.autocast(device.type, enabled=False), full_precision():
        for row, top in enumerate(range(0, size[0], shape.rows)):
            for column, left in enumerate(range(0, size[1], shape.columns)):
                work.start(top, left, min(shape.rows, size[0] - top), min(shape.columns, size[1] - left))
                for source in sources:
                    vertical, horizontal = source.vertical[row], source.horizontal[column]
                    if vertical is not None and horizontal is not None:
                        work.add(source.scores, vertical, horizontal)
                yield top, left, work.scores


def _sources(views: list[View], shape: Shape, device: torch.device, *, apart: bool) -> Iterator[_Source]:
    """Scores that are resized together: of all tiles of a scale, or with `apart` of each tile."""
    for view in views:
        for scores in view.scores:
            if not apart:
                rows, columns = (joint_bands(axis, step, device) for axis, step in zip(view[1:], shape, strict=True))
                yield _Source(scores, rows, columns)
                continue
            height, width = view.vertical.features, view.horizontal.features
            for row in range(len(view.vertical.starts)):
                for column in range(len(view.horizontal.starts)):
                    yield _Source(
                        scores[row * height : (row + 1) * height, :, column * width : (column + 1) * width],
                        tile_bands(view.vertical, row, shape.rows, device),
                        tile_bands(view.horizontal, column, shape.columns, device),
                    )


class _Block:
    """Scores of one block, in memory that is used for all of them."""

    scores: Tensor

    def __init__(self, count: int, shape: Shape, device: torch.device, *, probabilities: bool) -> None:
        self._count = count
        self._total = torch.empty(count * shape.rows * shape.columns, device=device)
        self._part = torch.empty_like(self._total) if probabilities else None

    def start(self, top: int, left: int, rows: int, columns: int) -> None:
        """Begin a block; its scores are valid once something is added."""
        self._corner = (top, left)
        self._empty = True
        self.scores = self._shaped(self._total, rows, columns)

    def add(self, scores: Tensor, vertical: Band, horizontal: Band) -> None:
        """Add what scores (h, K, w) say of the block; as probabilities where those are averaged."""
        near = scores.narrow(0, vertical.low, vertical.span).narrow(2, horizontal.low, horizontal.span)
        if vertical.used is not None:
            near = near.index_select(0, vertical.used)
        if horizontal.used is not None:
            near = near.index_select(2, horizontal.used)
        widened = torch.mm(near.reshape(-1, near.shape[2]), horizontal.weights.t()).view(near.shape[0], -1)
        if self._part is None:  # the tiles of a scale reach all of a block, together
            logits = self.scores.view(self.scores.shape[0], -1)
            logits.addmm_(vertical.weights, widened, beta=0 if self._empty else 1)
        else:
            part = self._shaped(self._part, vertical.weights.shape[0], horizontal.weights.shape[0])
            torch.mm(vertical.weights, widened, out=part.view(part.shape[0], -1))
            self._add_probabilities(part, vertical, horizontal)
        self._empty = False

    def _add_probabilities(self, logits: Tensor, vertical: Band, horizontal: Band) -> None:
        """Add the probabilities of logits to base 2, each with its tile's share of the pixel."""
        powers = logits.sub_(logits.amax(1, keepdim=True)).exp2_()
        share = vertical.share.view(-1, 1, 1) * horizontal.share / powers.sum(1, keepdim=True)
        if self._empty:
            self.scores.zero_()
        top, left = self._corner
        reached = self.scores[vertical.first - top : vertical.last - top]
        reached[:, :, horizontal.first - left : horizontal.last - left].addcmul_(powers, share)

    def _shaped(self, memory: Tensor, rows: int, columns: int) -> Tensor:
        return memory[: rows * self._count * columns].view(rows, self._count, columns)


def _best(scores: Tensor) -> Tensor:
    """Class (rows, columns) of the largest score, the first of several; the scores are lost.

    Comparing in place and ranking what is equal takes a tenth of the time of `argmax`, which does not vectorise.
    """
    count = scores.shape[1]
    ranks = torch.arange(count, 0, -1, dtype=scores.dtype, device=scores.device).view(-1, 1)
    scores.eq_(scores.amax(1, keepdim=True)).mul_(ranks)
    return count - scores.amax(1).clamp_(min=1)
