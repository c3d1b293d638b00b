"""Pyramid pooling: averages over grids of a few coarse cells, brought back to every position.

References
----------
Zhao, Shi, Qi, Wang, Jia: Pyramid Scene Parsing Network, CVPR 2017, section 3.2.
"""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gald.errors import ModelError
from gald.models.layers import Feature, conv_norm_act
from gald.options import PositiveInts


def _cells(positions: int, cells: int, like: Tensor) -> Float[Tensor, "cells positions"]:
    """Weight of each position in each cell's mean; cells overlap where their number does not divide the positions."""
    place = torch.arange(positions, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    inside = (place >= cell * positions // cells) & (place < -(-(cell + 1) * positions // cells))
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)


class GridMeans(nn.AdaptiveAvgPool2d):
    """Mean of each cell of a grid.

    Torch's own pooling has no deterministic backward pass on a GPU and is exported for one size alone. Where either is
    asked for, the pooling is two products with matrices of weights; elsewhere it is torch's.
    """

    def __init__(self, cells: int) -> None:
        super().__init__(cells)
        self.cells = cells

    def forward(self, feature: Feature) -> Feature:
        """Pool (N, C, H, W) to (N, C, cells, cells)."""
        wanted = feature.is_cuda and torch.are_deterministic_algorithms_enabled()
        return self.by_products(feature) if wanted or torch.compiler.is_exporting() else super().forward(feature)

    def by_products(self, feature: Feature) -> Feature:
        """Pool rows, then columns."""
        of_rows, of_columns = (_cells(positions, self.cells, feature) for positions in feature.shape[-2:])
        return of_rows @ (feature @ of_columns.T)


class PyramidPooling(nn.Module):
    """Pool to each grid, project to C / number of grids, upsample, concatenate to the input, fuse to C channels.

    The paper concatenates and leaves the fusing 3x3 convolution to its head; here it is part of the module, so that
    the shape that comes in goes out.
    """

    def __init__(self, channels: int, align_corners: bool, bins: tuple[int, ...], kernel_size: int) -> None:
        super().__init__()
        self.align_corners = align_corners
        inner = channels // len(bins)
        self.levels = nn.ModuleList(
            nn.Sequential(GridMeans(cells), conv_norm_act(channels, inner, 1)) for cells in bins
        )
        self.fuse = conv_norm_act(channels + inner * len(bins), channels, kernel_size)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        size = (feature.shape[-2], feature.shape[-1])
        # in one way whatever the sizes, since a graph is exported for all of them
        resized = partial(functional.interpolate, size=size, mode="bilinear", align_corners=self.align_corners)
        pooled = [resized(level(feature)) for level in self.levels]
        fused: Feature = self.fuse(torch.cat([feature, *pooled], dim=1))
        return fused


def build(
    channels: int,
    align_corners: bool = True,
    *,
    bins: PositiveInts = (1, 2, 3, 6),
    kernel_size: Literal[1, 3, 5, 7] = 3,
) -> PyramidPooling:
    """Pyramid pooling, (N, C, H, W) to the same shape.

    Parameters
    ----------
    channels : int
        Channels of the feature, at least as many as there are grids.
    align_corners : bool
        The model's resizing convention, given by the model.
    bins : tuple of int
        Cells per side of each grid.
    kernel_size : {1, 3, 5, 7}
        Side of the fusing convolution.

    Raises
    ------
    ModelError
        More grids than channels.

    Notes
    -----
    A single training image leaves one value per channel in the 1x1 grid, which batch norm refuses: batches need two.
    """
    if channels < len(bins):
        raise ModelError(
            f"aggregation psp: {len(bins)} grids {bins} share {channels} channels, of which each takes one or more; "
            "give fewer bins, or more of model.channels"
        )
    return PyramidPooling(channels, align_corners, bins, kernel_size)
