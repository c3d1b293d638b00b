"""3x3 convolutions with 16 multiplications where the direct form takes 36, for predictions on a CPU.

Winograd's F(2x2, 3x3): 2x2 positions of the result follow from 4x4 of the feature by sums, 16 matrix products over the
channels, and sums. The matrix products are the library's, and with hundreds of channels they are all that counts. The
transforms only add, subtract and halve, so that the result is nearly as close to the exact one as that of direct
convolution. Several convolutions of one feature share its transform.

References
----------
Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016 (section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_CHANNELS = 512
"""Of the feature and of each result; with fewer, the sums may take longer than the products that they save."""

_BLOCK_BYTES = 48 << 20  # of positions transformed and multiplied at a time: enough for the products to be quick
_TOGETHER = 16  # channels whose weights are transformed at a time
_HALVES = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))  # the paper's matrix G


def fits(convolution: nn.Module) -> bool:
    """Tell whether a convolution can be computed in this way, and is large enough to gain by it."""
    return (
        isinstance(convolution, nn.Conv2d)
        and (convolution.kernel_size, convolution.stride, convolution.dilation) == ((3, 3), (1, 1), (1, 1))
        and (convolution.padding, convolution.padding_mode, convolution.groups) == ((1, 1), "zeros", 1)
        and min(convolution.in_channels, convolution.out_channels) >= LEAST_CHANNELS
        and convolution.weight.device.type == "cpu"
        and convolution.weight.dtype == torch.float32
    )


class WinogradConvs(nn.Module):
    """Convolutions of one feature, 3x3 with padding 1, side by side.

    Parameters
    ----------
    convolutions : sequence of nn.Conv2d
        Each must fit, see `fits`; they stay as they are.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, convolutions: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.widths = [one.out_channels for one in convolutions]
        self.register_buffer("weight", _transformed(torch.cat([one.weight.detach() for one in convolutions])))
        biases = [one.weight.new_zeros(one.out_channels) if one.bias is None else one.bias for one in convolutions]
        self.register_buffer("bias", torch.cat([one.detach() for one in biases]))

    def forward(self, feature: Tensor) -> list[Tensor]:
        """Map (N, C, H, W) to the result (N, C', H, W) of each convolution, in channels-last order."""
        images = feature.permute(0, 2, 3, 1)
        samples, height, width, channels = images.shape
        results = [feature.new_empty(samples, height, width, channels_out) for channels_out in self.widths]
        of_a_row = 4 * 16 * (channels + sum(self.widths)) * samples * -(-width // 2)
        rows = max(1, _BLOCK_BYTES // max(1, of_a_row))
        for top in range(0, height, 2 * rows):
            self._convolve(images, results, top, min(height, top + 2 * rows))
        return [result.permute(0, 3, 1, 2) for result in results]

    def _convolve(self, images: Tensor, results: list[Tensor], top: int, bottom: int) -> None:
        """Compute rows `top`, which is even, to `bottom` of the results."""
        tiles = _tiles(images, top, bottom)
        products = torch.bmm(tiles.flatten(0, 1).flatten(1, 3), self.weight)
        products = products.view(*tiles.shape[:-1], products.shape[-1])
        for column, part in enumerate(_sums(products)):
            for row, values in enumerate(_sums(part)):
                values.add_(self.bias)
                for result, of_one in zip(results, torch.split(values, self.widths, dim=-1), strict=True):
                    place = result[:, top + row : bottom : 2, column::2]
                    place.copy_(of_one[:, : place.shape[1], : place.shape[2]])


def _tiles(images: Tensor, top: int, bottom: int) -> Tensor:
    """Transform the tiles of rows `top` to `bottom` of (N, H, W, C): (4, 4, N, rows / 2, W / 2, C), rounded up.

    The first two axes are the column and the row in a tile.
    """
    samples, height, width, channels = images.shape
    down, across = -(-(bottom - top) // 2), -(-width // 2)
    first, last = top - 1, top + 2 * down + 1
    margins = (0, 0, 1, 2 * across + 1 - width, max(-first, 0), max(last - height, 0))
    padded = functional.pad(images[:, max(first, 0) : min(last, height)], margins)
    even, odd = padded[:, ::2], padded[:, 1::2]
    vertical = images.new_empty(4, samples, down, 2 * across + 2, channels)
    _differences((even[:, :-1], odd[:, :-1], even[:, 1:], odd[:, 1:]), vertical)
    even, odd = vertical[:, :, :, ::2], vertical[:, :, :, 1::2]
    tiles = images.new_empty(4, 4, samples, down, across, channels)
    _differences((even[..., :-1, :], odd[..., :-1, :], even[..., 1:, :], odd[..., 1:, :]), tiles)
    return tiles


def _transformed(weight: Tensor) -> Tensor:
    """Weights (C', C, 3, 3) as 16 matrices (C, C'), one for each position of a tile, column by column.

    In float64, a few channels at a time: whole it would take several times what the weights do.
    """
    halves = torch.tensor(_HALVES, dtype=torch.float64)
    both = torch.einsum("ia,jb->jiab", halves, halves).reshape(16, 9)
    out_channels, channels = weight.shape[:2]
    matrices = weight.new_empty(16, channels, out_channels)
    for some, into in zip(torch.split(weight, _TOGETHER, 1), torch.split(matrices, _TOGETHER, 1), strict=True):
        nine = some.permute(2, 3, 1, 0).double().reshape(9, -1)
        into.copy_((both @ nine).view(into.shape))
    return matrices


def _differences(four: tuple[Tensor, Tensor, Tensor, Tensor], out: Tensor) -> None:
    """Transform four positions along one axis; the paper's matrix B."""
    first, second, third, fourth = four
    torch.sub(first, third, out=out[0])
    torch.add(second, third, out=out[1])
    torch.sub(third, second, out=out[2])
    torch.sub(second, fourth, out=out[3])


def _sums(four: Tensor) -> tuple[Tensor, Tensor]:
    """Turn four products along one axis into two positions of the result; the paper's matrix A."""
    return (four[0] + four[1]).add_(four[2]), (four[1] - four[2]).sub_(four[3])
