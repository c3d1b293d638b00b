"""Several 1x1 convolutions of one feature as one.

The feature is read once, and its gradient is one product instead of a sum of several as large as itself.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gald.models.layers import Feature


def projected(feature: Feature, *projections: nn.Conv2d) -> tuple[Feature, ...]:
    """Convolve (N, C, H, W) by each of the projections, all with a bias or all without: views of one tensor."""
    return torch.split(functional.conv2d(feature, *_joined(projections)), _widths(projections), dim=1)


def projected_positions(positions: Tensor, *projections: nn.Conv2d) -> tuple[Tensor, ...]:
    """Convolve a feature whose channels come last, (N, H, W, C), in the same way."""
    weight, bias = _joined(projections)
    return torch.split(functional.linear(positions, weight.flatten(1), bias), _widths(projections), dim=-1)


def _widths(projections: tuple[nn.Conv2d, ...]) -> list[int]:
    return [each.out_channels for each in projections]


def _joined(projections: tuple[nn.Conv2d, ...]) -> tuple[Tensor, Tensor | None]:
    biases = [each.bias for each in projections if each.bias is not None]
    return torch.cat([each.weight for each in projections]), torch.cat(biases) if biases else None
