"""Bilinear resizing as two products with small matrices, one for the width and one for the height.

Its gradient is the same two transposed. Every sum has a fixed order, on CUDA too, where torch's own resize adds its
gradients in whichever order they come. Scores are turned to base 2 on the way, since powers of two vectorise where
`exp` does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

LOG2_E = 1 / math.log(2)


class Resizing:
    """Bilinear resizing of images of one size, as torch's, by products with matrices.

    Parameters
    ----------
    scores : Tensor
        (N, K, h, w): the size resized from, and the device.
    size : tuple of int
        Height and width resized to.
    dtype : torch.dtype
        Precision computed in.
    align_corners : bool
        As `torch.nn.functional.interpolate` has it.
    """

    def __init__(self, scores: Tensor, size: tuple[int, int], dtype: torch.dtype, *, align_corners: bool) -> None:
        vertical, self._lowest, self._highest = weights_between(scores.shape[2], size[0], dtype, align_corners)
        horizontal, _, _ = weights_between(scores.shape[3], size[1], dtype, align_corners)
        self._vertical, self._horizontal = vertical.to(scores.device), horizontal.to(scores.device)

    def widened(self, scores: Tensor) -> Tensor:
        """Scores (M, K, h, w) to base 2 at the new width, (M, h, K, W), the largest at each old place 0."""
        scores = scores.to(self._horizontal.dtype)
        relative = torch.sub(scores, scores.amax(1, keepdim=True)).mul_(LOG2_E).transpose(1, 2)
        return torch.matmul(relative.contiguous(), self._horizontal.t())

    def narrowed(self, gradient: Tensor) -> Tensor:
        """Gradient (M, K, h, w) of the scores from that of what `widened` makes of them, to base e."""
        return torch.matmul(gradient, self._horizontal).transpose(1, 2)

    def rows(self, widened: Tensor, first: int, last: int, out: Tensor) -> None:
        """Rows of the new height, (M, rows, K, W), of (M, h, K, W)."""
        weights, low, high = self._band(first, last)
        torch.bmm(weights.expand(len(out), -1, -1), widened[:, low:high].flatten(2), out=out.flatten(2))

    def add_rows(self, gradient: Tensor, first: int, last: int, of_rows: Tensor) -> None:
        """Add to the gradient of what `rows` was given."""
        weights, low, high = self._band(first, last)
        gradient[:, low:high].flatten(2).baddbmm_(weights.t().expand(len(of_rows), -1, -1), of_rows.flatten(2))

    def _band(self, first: int, last: int) -> tuple[Tensor, int, int]:
        low, high = self._lowest[first], self._highest[last - 1] + 1
        return self._vertical[first:last, low:high], low, high


def weights_between(old: int, new: int, dtype: torch.dtype, align_corners: bool) -> tuple[Tensor, list[int], list[int]]:
    """Matrix (new, old) of linear interpolation, and the lowest and highest old place of each new one.

    Positions are rounded as torch's are, in the precision that is computed in.
    """
    places = torch.arange(new, dtype=dtype)
    if align_corners:
        scale = torch.tensor(old - 1, dtype=dtype) / (new - 1) if new > 1 else torch.zeros((), dtype=dtype)
        positions = places * scale
    else:
        scale = torch.tensor(old, dtype=dtype) / new
        positions = ((places + 0.5) * scale - 0.5).clamp_(min=0)
    low = positions.long().clamp_(max=old - 1)
    high = (low + 1).clamp_(max=old - 1)
    share = (positions - low).clamp_(0, 1)
    matrix = torch.zeros(new, old, dtype=dtype)
    matrix[torch.arange(new), low] = 1 - share
    matrix[torch.arange(new), high] += share
    return matrix, low.tolist(), high.tolist()


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep matrix products of float32 from being rounded to TF32, which users allow for convolutions' sake."""
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before
