"""Criss-cross attention: each position attends to its own row and column, twice, and so to the whole image.

After the first pass a position knows its row and column; the second pass, with the same weights, meets what those have
seen of theirs. The cost is L (H + W) instead of L^2.

References
----------
Huang, Wang, Huang, Huang, Wei, Liu: CCNet: Criss-Cross Attention for Semantic Segmentation, ICCV 2019, sections 3.2
and 3.3, equations 1 and 2.
"""

import torch
from torch import nn

from gald.errors import ModelError
from gald.models.layers import Feature


def criss_cross(query: Feature, key: Feature, value: Feature) -> Feature:
    """Attend along row and column with one softmax over both, in which the position itself counts once.

    Parameters
    ----------
    query, key : Tensor
        (N, d, H, W).
    value : Tensor
        (N, C, H, W).

    Returns
    -------
    Tensor
        (N, C, H, W); the largest tensor on the way has N H W (H + W) elements.
    """
    height, width = query.shape[-2:]
    by_row = [part.permute(0, 2, 3, 1) for part in (query, key, value)]  # (N, H, W, channels)
    by_column = [part.permute(0, 3, 2, 1) for part in (query, key, value)]  # (N, W, H, channels)
    along_row = by_row[0] @ by_row[1].transpose(2, 3)  # (N, H, W, W)
    along_column = by_column[0] @ by_column[1].transpose(2, 3)  # (N, W, H, H)
    itself = torch.eye(height, dtype=torch.bool, device=query.device)
    along_column = along_column.masked_fill(itself, -torch.inf)
    weights = torch.cat([along_row, along_column.transpose(1, 2)], dim=3).softmax(dim=3)
    of_row = weights[..., :width] @ by_row[2]  # (N, H, W, C)
    of_column = weights[..., width:].transpose(1, 2) @ by_column[2]  # (N, W, H, C)
    attended: Feature = of_row.permute(0, 3, 1, 2) + of_column.permute(0, 3, 2, 1)
    return attended


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
        for _ in range(self.recurrence):
            attended = criss_cross(self.query(feature), self.key(feature), self.value(feature))
            feature = torch.addcmul(feature, self.gamma, attended)
        return feature


def build(channels: int, *, recurrence: int = 2, reduction: int = 8, zero_start: bool = True) -> CrissCross:
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

    Raises
    ------
    ModelError
        No pass at all.
    """
    if recurrence < 1:
        raise ModelError(f"aggregation criss_cross: recurrence is {recurrence}; it must be 1 or more")
    return CrissCross(channels, max(1, channels // reduction), recurrence, zero_start)
