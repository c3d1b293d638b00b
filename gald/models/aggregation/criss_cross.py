"""Criss-cross attention: each position attends to its own row and column, twice, and so to the whole image.

After the first pass a position knows its row and column; the second pass, with the same weights, meets what those have
seen of theirs. The cost is L (H + W) instead of L^2.

References
----------
Huang, Wang, Huang, Huang, Wei, Liu: CCNet: Criss-Cross Attention for Semantic Segmentation, ICCV 2019, sections 3.2
and 3.3, equations 1 and 2.
"""

import torch
from torch import Tensor, nn

from gald.models.aggregation._layout import add_residual, turned
from gald.models.aggregation._projections import projected_positions
from gald.models.layers import Feature
from gald.options import PositiveInt


def criss_cross(query: Tensor, key: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Weights along row and column, of one softmax over both, in which the position itself counts once.

    Parameters
    ----------
    query, key : Tensor
        (N, H, W, d).
    gain : Tensor
        Factor of all weights.

    Returns
    -------
    tuple of Tensor
        (N, H, W, W), for each position over the columns of its row, and (N, W, H, H) over the rows of its column.
    """
    height, width = query.shape[1:3]
    along_row = query @ key.transpose(2, 3)  # (N, H, W, W)
    along_column = query.transpose(1, 2) @ key.permute(0, 2, 3, 1)  # (N, W, H, H)
    itself = torch.eye(height, dtype=torch.bool, device=query.device)
    along_column = along_column.masked_fill_(itself, -torch.inf)
    weights = gain * torch.cat([along_row, along_column.transpose(1, 2)], dim=3).softmax(dim=3)
    return weights[..., :width], weights[..., width:].transpose(1, 2)


class CrissCross(nn.Module):
    """x + gamma criss-cross(x), repeated with the same weights."""

    def __init__(self, channels: int, inner: int, recurrence: int, zero_start: bool) -> None:
        super().__init__()
        self.recurrence = recurrence
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1) if zero_start else torch.ones(1))

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        size = (feature.shape[-2], feature.shape[-1])
        # laid out by positions, rows and columns are matrices without a copy
        positions = turned(feature.flatten(2)).view(-1, *size, feature.shape[1])  # (N, H, W, C)
        for _ in range(self.recurrence):
            query, key, value = projected_positions(positions, self.query, self.key, self.value)
            in_row, in_column = criss_cross(query, key, self.gamma)
            of_column = (in_column @ value.transpose(1, 2)).transpose(1, 2)  # (N, H, W, C)
            positions = add_residual(add_residual(in_row @ value, positions), of_column)
        return turned(positions.flatten(1, 2)).view(feature.shape)


def build(
    channels: int, *, recurrence: PositiveInt = 2, reduction: PositiveInt = 8, zero_start: bool = True
) -> CrissCross:
    """Recurrent criss-cross attention, (N, C, H, W) to the same shape.

    Parameters
    ----------
    channels : int
        Channels of the feature.
    recurrence : int
        Passes with the same weights; 2 let every position reach every other.
    reduction : int
        Queries and keys have channels // reduction channels.
    zero_start : bool
        Let the factor of the attention start at zero, the block thus as the identity, as the released code does;
        otherwise it starts at one.
    """
    return CrissCross(channels, max(1, channels // reduction), recurrence, zero_start)
