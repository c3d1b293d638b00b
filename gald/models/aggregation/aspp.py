"""Atrous spatial pyramid pooling: 3x3 convolutions of several dilations side by side, and the mean of the image.

A dilated kernel sees far with nine weights; several of them see objects at several scales, and the pooled image is what
a dilation wider than the map, whose outer weights fall on padding, can no longer give.

References
----------
Chen, Papandreou, Schroff, Adam: Rethinking Atrous Convolution for Semantic Image Segmentation, arXiv 1706.05587, 2017,
section 3.3.
"""

import torch
from torch import nn

from gald.models.layers import Feature, conv_norm_act
from gald.options import PositiveInt, PositiveInts

_RATES, _STRIDE = (12, 24, 36), 8  # the paper's, and the output stride that they are for


class AtrousPyramid(nn.Module):
    """1x1 convolution, one dilated 3x3 convolution a rate and the image's mean, concatenated and fused by a 1x1.

    Every convolution has norm and ReLU, as in the paper.
    """

    def __init__(self, channels: int, inner: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_norm_act(channels, inner, 1), *(conv_norm_act(channels, inner, dilation=rate) for rate in rates)]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm_act(channels, inner, 1))
        self.fuse = conv_norm_act(inner * (len(rates) + 2), channels, 1)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        image = self.pooled(feature).expand(-1, -1, *feature.shape[-2:])
        fused: Feature = self.fuse(torch.cat([*(branch(feature) for branch in self.branches), image], dim=1))
        return fused


def build(
    channels: int, stride: int | None = None, *, rates: PositiveInts | None = None, reduction: PositiveInt = 2
) -> AtrousPyramid:
    """Atrous spatial pyramid pooling, (N, C, H, W) to the same shape.

    Parameters
    ----------
    channels : int
        Channels of the feature.
    stride : int or None
        Pixels of the image per position of the feature, given by the model; 8 where that is not known.
    rates : tuple of int or None
        Dilation of each 3x3 convolution. None takes the paper's: (12, 24, 36) at output stride 8, halved to (6, 12,
        18) at 16, and so on, which sees equally far in the image.
    reduction : int
        Each branch has channels // reduction channels: the paper's 256 where the neck has 512.

    Notes
    -----
    A single training image leaves one value per channel in the pooled branch, which batch norm refuses: batches need
    two.
    """
    if rates is None:
        rates = tuple(max(1, rate * _STRIDE // (stride or _STRIDE)) for rate in _RATES)
    return AtrousPyramid(channels, max(1, channels // reduction), rates)
