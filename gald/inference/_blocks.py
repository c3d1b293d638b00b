"""From scores at the network's resolution to the class of each pixel, block by block of the prediction.

A block is resized by two products with small matrices, while it is in the processor's cache, and its classes are chosen
at once. Blocks are narrow as well as low: each then needs few features of either side, and the products stay small.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from itertools import accumulate, chain, product
from typing import NamedTuple

import torch
from torch import Tensor

from gald.inference._axis import Band
from gald.inference._tiles import Size
from gald.inference._views import View
from gald.losses.resizing import full_precision

_LANES = 64  # floats: four registers of 512 bits
Bands = tuple[Band | None, ...]


class Shape(NamedTuple):
    """Rows and columns of a block."""

    rows: int
    columns: int


class _Source(NamedTuple):
    """Scores that are resized together, and what each row and each column of blocks needs of them.

    They are of all tiles of a scale, or of one: which begins at `across`, counted in features across the pass.
    """

    view: View
    layer: int
    across: int
    vertical: Bands
    horizontal: Bands

    def near(self, vertical: Band, horizontal: Band) -> Tensor:
        """Scores (h, K, w) that a block needs."""
        passed, (along, across) = 2 * self.view.along, (vertical, horizontal)
        if passed:
            along, across = across, along
        (beside,) = across.pieces
        parts = [
            self.view.chunk(self.layer, piece.chunk)
            .narrow(passed, piece.low, piece.span)
            .narrow(2 - passed, self.across + beside.low, beside.span)
            for piece in along.pieces
        ]
        near = parts[0] if len(parts) == 1 else torch.cat(parts, passed)
        for side, band in enumerate((vertical, horizontal)):
            near = near if band.used is None else near.index_select(2 * side, band.used)
        return near


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
    prediction = torch.empty(size, dtype=torch.uint8, device=views[0].device)
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
    count, device, along = views[0].num_classes, views[0].device, views[0].along
    shape = block_shape(count, device.type)
    sources = [list(_sources(view, shape, apart=probabilities)) for view in views]
    needs = [_needs(of_view) for of_view in sources]
    work = _Block(count, shape, device, probabilities=probabilities)
    tops, lefts = (list(enumerate(range(0, side, step))) for side, step in zip(size, shape, strict=True))
    for step in range(len((tops, lefts)[along])):
        for view, of_view in zip(views, needs, strict=True):
            view.keep(of_view[step][1])
        for view, of_view in zip(views, needs, strict=True):  # outside of what is set for the products
            view.load(of_view[step][0])
        rows, columns = (tops, lefts[step : step + 1]) if along else (tops[step : step + 1], lefts)
        with torch.autocast(device.type, enabled=False), full_precision():
            for (row, top), (column, left) in product(rows, columns):
                work.start(top, left, min(shape.rows, size[0] - top), min(shape.columns, size[1] - left))
                for source in chain.from_iterable(sources):
                    vertical, horizontal = source.vertical[row], source.horizontal[column]
                    if vertical is not None and horizontal is not None:
                        work.add(source.near(vertical, horizontal), vertical, horizontal)
                yield top, left, work.scores


def _sources(view: View, shape: Shape, *, apart: bool) -> Iterator[_Source]:
    """Scores that are resized together: of all tiles of a scale, or with `apart` of each tile."""
    axes = (view.vertical, view.horizontal)
    for layer in range(view.layers):
        if not apart:
            yield _Source(view, layer, 0, view.bands(0, None, shape.rows), view.bands(1, None, shape.columns))
            continue
        for row, column in product(*(range(len(axis.starts)) for axis in axes)):
            across = column * axes[1].features if view.along == 0 else row * axes[0].features
            yield _Source(view, layer, across, view.bands(0, row, shape.rows), view.bands(1, column, shape.columns))


def _needs(sources: list[_Source]) -> list[tuple[int, set[int]]]:
    """Of each step of the pass, the last chunk that it needs, and all that it or a later one needs."""
    along = [source.horizontal if source.view.along else source.vertical for source in sources]
    steps = [
        {piece.chunk for band in step if band is not None for piece in band.pieces} for step in zip(*along, strict=True)
    ]
    still = list(accumulate(reversed(steps), operator.or_))[::-1]
    return [(max(step), later) for step, later in zip(steps, still, strict=True)]


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

    def add(self, near: Tensor, vertical: Band, horizontal: Band) -> None:
        """Add what scores (h, K, w) say of the block; as probabilities where those are averaged."""
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
