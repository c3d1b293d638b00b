"""From scores at the network's resolution to the class of each pixel, block by block of the prediction.

A block is resized by two products with small matrices, while it is in the processor's cache, and its classes are chosen
at once. Blocks are narrow as well as low: each then needs few features of either side, and the products stay small.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gald._pixel_loss import _full_precision
from gald.inference._axis import Band, joint_bands, tile_bands
from gald.inference._tiles import Size
from gald.inference._views import View

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
    """Choose blocks of about 1 MiB of scores on a CPU, of 64 MiB elsewhere: enough work for one launch of a kernel."""
    rows, elements, widest = (32, 1 << 18, 256) if device == "cpu" else (256, 1 << 24, 1 << 12)
    return Shape(rows, min(widest, max(32, elements // (num_classes * rows) // 16 * 16)))


def classes(views: list[View], size: Size, *, probabilities: bool) -> Tensor:
    """Choose the class of each pixel, uint8 of `size`, by the scores that the views have on average.

    The first class is chosen where several are best, and class 0 where scores are not numbers.
    """
    first = views[0].scores[0]
    count, device = first.shape[1], first.device
    shape = block_shape(count, device.type)
    sources = list(_sources(views, shape, device, apart=probabilities))
    work = _Block(count, shape, device, probabilities=probabilities)
    prediction = torch.empty(size, dtype=torch.uint8, device=device)
    with torch.autocast(device.type, enabled=False), _full_precision():
        for row, top in enumerate(range(0, size[0], shape.rows)):
            for column, left in enumerate(range(0, size[1], shape.columns)):
                target = prediction[top : top + shape.rows, left : left + shape.columns]
                total = work.started(target)
                for source in sources:
                    vertical, horizontal = source.vertical[row], source.horizontal[column]
                    if vertical is not None and horizontal is not None:
                        work.add(total, source.scores, vertical, horizontal, (top, left))
                target.copy_(work.best(total))
    return prediction


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
    """Memory for the scores of one block, used for all of them."""

    def __init__(self, count: int, shape: Shape, device: torch.device, *, probabilities: bool) -> None:
        self._count = count
        self._total = torch.empty(count * shape.rows * shape.columns, device=device)
        self._part = torch.empty_like(self._total) if probabilities else None
        self._ranks = torch.arange(count, 0, -1, device=device, dtype=torch.float32).view(-1, 1)
        self._empty = True

    def started(self, target: Tensor) -> Tensor:
        """Scores (rows, K, columns) of a block, not yet valid."""
        self._empty = True
        return _shaped(self._total, target.shape[0], self._count, target.shape[1])

    def add(self, total: Tensor, scores: Tensor, vertical: Band, horizontal: Band, corner: Size) -> None:
        """Add what some scores say of a block whose upper left pixel is `corner`."""
        near = scores.narrow(2, horizontal.low, int(horizontal.used[-1]) + 1)
        near = near.index_select(0, vertical.low + vertical.used).index_select(2, horizontal.used)
        rows, _, used = near.shape
        columns = horizontal.weights.shape[0]
        widened = torch.mm(near.view(-1, used), horizontal.weights.t()).view(rows, -1)
        if self._part is None:  # such scores reach all of a block
            torch.addmm(
                total.view(total.shape[0], -1),
                vertical.weights,
                widened,
                beta=0 if self._empty else 1,
                out=total.view(total.shape[0], -1),
            )
            self._empty = False
            return
        part = _shaped(self._part, vertical.weights.shape[0], self._count, columns)
        torch.mm(vertical.weights, widened, out=part.view(part.shape[0], -1))
        part.sub_(part.amax(1, keepdim=True)).exp2_()
        share = vertical.share.view(-1, 1, 1) * horizontal.share / part.sum(1, keepdim=True)
        if self._empty:
            total.zero_()
            self._empty = False
        reached = total[vertical.first - corner[0] : vertical.last - corner[0]]
        reached[:, :, horizontal.first - corner[1] : horizontal.last - corner[1]].addcmul_(part, share)

    def best(self, total: Tensor) -> Tensor:
        """Class (rows, columns) of the largest score, the first of several; the scores are lost.

        Comparing floats in place and ranking what is equal takes a tenth of `argmax`, which does not vectorise.
        """
        total.eq_(total.amax(1, keepdim=True)).mul_(self._ranks)
        return (self._count - total.amax(1)).remainder_(self._count)


def _shaped(memory: Tensor, rows: int, count: int, columns: int) -> Tensor:
    return memory[: rows * count * columns].view(rows, count, columns)
