"""Attention of each position over the k x k window around it, without ever unfolding the windows.

The sums run over the k^2 shifts of the keys and values, which are views of one padded copy. Here they are written as
what they are, in operators that a compiler or an exporter can trace; ``_blocks.py`` has the same sums for eager
execution.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

Heads = Float[Tensor, "n m c h w"]  # heads m, channels c of one head
Weights = Float[Tensor, "n m d h w"]  # one weight for each shift d


class Window(NamedTuple):
    """A window of side x side positions, `dilation` apart, centred on each position; the side is odd."""

    side: int
    dilation: int

    @property
    def reach(self) -> int:
        """Positions from the centre to the window's edge."""
        return self.dilation * (self.side // 2)

    def margin(self, width: int) -> int:
        """Positions from the centre to the window's first, if the lines of a map lie behind one another."""
        return self.reach * (width + 1)

    def pad(self, feature: Tensor) -> Tensor:
        """Pad with zeros so that every shift is a view of one tensor."""
        return functional.pad(feature, (self.reach,) * 4)

    def shift(self, padded: Tensor, index: int) -> Tensor:
        """View of the padded tensor in which position p holds the neighbour p + d, for shift number `index`."""
        row, column = (self.dilation * part for part in divmod(index, self.side))
        height, width = (size - 2 * self.reach for size in padded.shape[-2:])
        return padded[..., row : row + height, column : column + width]

    def inside(self, height: int, width: int, device: torch.device) -> Bool[Tensor, "d h w"]:
        """Whether the neighbour of each shift lies on the map: what is beyond it is no neighbour."""
        rows, columns = (self._inside(size, device) for size in (height, width))
        return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)

    def _inside(self, size: int, device: torch.device) -> Bool[Tensor, "k size"]:
        steps = self.dilation * torch.arange(self.side, device=device) - self.reach
        there = torch.arange(size, device=device) + steps[:, None]
        return (there >= 0) & (there < size)


def similarities(query: Heads, key: Heads, window: Window) -> Weights:
    """Products <query(p), key(p + d)> for every shift d, zero where the neighbour is padding."""
    padded = window.pad(key)
    return torch.stack([(query * window.shift(padded, index)).sum(2) for index in range(window.side**2)], dim=2)


def gather(weights: Weights, value: Heads, window: Window) -> Heads:
    """Weighted sums of the values in each window, sum_d weights(p, d) value(p + d)."""
    padded = window.pad(value)
    total = weights[:, :, :1] * window.shift(padded, 0)
    for index in range(1, window.side**2):
        total = total + weights[:, :, index : index + 1] * window.shift(padded, index)
    return total


def window_mean(value: Float[Tensor, "n c h w"], window: Window) -> Float[Tensor, "n c h w"]:
    """Mean over the neighbours of each position that lie on the map: `gather` with equal weights."""
    channels = value.shape[1]
    if window.dilation == 1:
        return functional.avg_pool2d(value, window.side, 1, window.reach, count_include_pad=False)
    box = value.new_ones(channels, 1, window.side, window.side)
    total = functional.conv2d(value, box, padding=window.reach, dilation=window.dilation, groups=channels)
    return total / window.inside(value.shape[-2], value.shape[-1], value.device).sum(0)
