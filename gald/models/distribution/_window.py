"""Attention of each position over the k x k window around it, without ever unfolding the windows.

The sums run over the k^2 shifts of the keys and values, which are views of one padded copy. Forward and backward keep
the weights, (N, heads, k^2, H, W), and single features; the tensor of all windows, k^2 times a feature, never exists.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Heads = Float[Tensor, "n m c h w"]  # heads m, channels c of one head
Weights = Float[Tensor, "n m d h w"]  # one weight for each shift d


class Window(NamedTuple):
    """A window of side x side positions, `dilation` apart, centred on each position; both sides odd."""

    side: int
    dilation: int

    @property
    def reach(self) -> int:
        """Positions from the centre to the window's edge."""
        return self.dilation * (self.side // 2)

    def pad(self, feature: Tensor) -> Tensor:
        """Pad with zeros so that every shift is a view of one tensor."""
        return functional.pad(feature, (self.reach,) * 4)

    def shift(self, padded: Tensor, index: int) -> Tensor:
        """View of the padded tensor in which position p holds the neighbour p + d, for shift number `index`."""
        row, column = (self.dilation * part for part in divmod(index, self.side))
        height, width = (size - 2 * self.reach for size in padded.shape[-2:])
        return padded[..., row : row + height, column : column + width]

    def inside(self, height: int, width: int, device: torch.device) -> Bool[Tensor, "d h w"]:
        """Whether the neighbour of each shift lies on the map: padding is no neighbour."""
        ones = self.pad(torch.ones(height, width, dtype=torch.bool, device=device))
        return torch.stack([self.shift(ones, index) for index in range(self.side**2)])


def similarities(query: Heads, key: Heads, window: Window) -> Weights:
    """Products <query(p), key(p + d)> for every shift d, zero where the neighbour is padding."""
    padded = window.pad(key)
    return torch.stack([(query * window.shift(padded, index)).sum(2) for index in range(window.side**2)], dim=2)


def gather(weights: Weights, value: Heads, window: Window) -> Heads:
    """Weighted sums of the values in each window, sum_d weights(p, d) value(p + d)."""
    padded = window.pad(value)
    total = weights[:, :, :1] * window.shift(padded, 0)
    for index in range(1, window.side**2):
        total.addcmul_(weights[:, :, index : index + 1], window.shift(padded, index))
    return total


def scatter(weights: Weights, source: Heads, window: Window) -> Heads:
    """Transpose of `gather`: give weights(p, d) source(p) to position p + d."""
    total = window.pad(torch.zeros_like(source))
    for index in range(window.side**2):
        window.shift(total, index).addcmul_(weights[:, :, index : index + 1], source)
    reach, (height, width) = window.reach, source.shape[-2:]
    return total[..., reach : reach + height, reach : reach + width]


class _Similarities(torch.autograd.Function):
    """`similarities` whose backward pass loops over the shifts too, so that no window is kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, window: Window) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.window = window
        return similarities(query, key, window)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        query, key = ctx.saved_tensors
        return gather(grad, key, ctx.window), scatter(grad, query, ctx.window), None


class _Gather(torch.autograd.Function):
    """`gather` whose backward pass loops over the shifts too, so that no window is kept."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, value: Tensor, window: Window) -> Tensor:
        ctx.save_for_backward(weights, value)
        ctx.window = window
        return gather(weights, value, window)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, value = ctx.saved_tensors
        return similarities(grad, value, ctx.window), scatter(weights, grad, ctx.window), None


def window_similarities(query: Heads, key: Heads, window: Window) -> Weights:
    """Differentiable `similarities`."""
    result: Weights = _Similarities.apply(query, key, window)  # type: ignore[no-untyped-call]
    return result


def window_gather(weights: Weights, value: Heads, window: Window) -> Heads:
    """Differentiable `gather`."""
    result: Heads = _Gather.apply(weights, value, window)  # type: ignore[no-untyped-call]
    return result


def window_mean(value: Float[Tensor, "n c h w"], window: Window) -> Float[Tensor, "n c h w"]:
    """Mean over the neighbours of each position that lie on the map: `gather` with equal weights."""
    channels = value.shape[1]
    if window.dilation == 1:
        return functional.avg_pool2d(value, window.side, 1, window.reach, count_include_pad=False)
    box = value.new_ones(channels, 1, window.side, window.side)
    total = functional.conv2d(value, box, padding=window.reach, dilation=window.dilation, groups=channels)
    return total / window.inside(value.shape[-2], value.shape[-1], value.device).sum(0)
