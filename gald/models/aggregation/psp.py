"""Pyramid pooling: averages over grids of a few coarse cells, brought back to every position.

References
----------
Zhao, Shi, Qi, Wang, Jia: Pyramid Scene Parsing Network, CVPR 2017, section 3.2.
"""

import torch
from torch import nn

from gald.models.layers import Feature, conv_norm_act, resize


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
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), conv_norm_act(channels, inner, 1)) for cells in bins
        )
        self.fuse = conv_norm_act(channels + inner * len(bins), channels, kernel_size)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        size = (feature.shape[-2], feature.shape[-1])
        pooled = [resize(level(feature), size, align_corners=self.align_corners) for level in self.levels]
        fused: Feature = self.fuse(torch.cat([feature, *pooled], dim=1))
        return fused


def build(
    channels: int, align_corners: bool = True, *, bins: tuple[int, ...] = (1, 2, 3, 6), kernel_size: int = 3
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
    kernel_size : int
        Side of the fusing convolution, odd.

    Notes
    -----
    A single training image leaves one value per channel in the 1x1 grid, which batch norm refuses: batches need two.
    """
    return PyramidPooling(channels, align_corners, tuple(bins), kernel_size)
