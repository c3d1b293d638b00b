"""Local distribution, version 1: a mask for every channel and position, predicted from the aggregated feature.

Unpadded strided depthwise convolutions see a neighbourhood of each position; their output, brought back to the full
size, says how strongly the aggregated feature counts there.

References
----------
Li, Zhang, You, Yang, Yang, Tong: Global Aggregation then Local Distribution in Fully Convolutional Networks,
BMVC 2019, section 3.3. Checked against the numbers of the released code.
"""

import warnings
from typing import Literal

import torch
from torch import nn

from gald.errors import ModelError
from gald.models.layers import Feature, conv_norm_act, resize

_LOCAL = 4  # a mask with fewer positions a side is close to one constant for the whole image


def _reduced(side: int, reductions: int) -> int:
    """Length of a side after unpadded 3x3 convolutions of stride 2; 0 or less where it does not fit."""
    for _ in range(reductions):
        side = (side - 3) // 2 + 1
    return side


class MaskDistribution(nn.Module):
    """g + g m, with m = sigmoid(upsampled(reduced g)), plus the residual.

    The released block adds g once more, which gives 2 g + g m; the paper's figure does not show that. It is
    ``residual="g"``.
    """

    def __init__(self, channels: int, align_corners: bool, reductions: int, residual: Literal["x", "g", "none"]):
        super().__init__()
        self.align_corners = align_corners
        self.residual = residual
        self.reduce = nn.Sequential(
            *(
                conv_norm_act(channels, channels, stride=2, groups=channels, padded=False, bias=True)
                for _ in range(reductions)
            )
        )

    def mask(self, aggregated: Feature) -> Feature:
        """Mask in (0, 1) for every channel and position of the aggregated feature.

        Raises
        ------
        ModelError
            The feature is too small for the reductions; the message names the smallest size that works.
        """
        size = (aggregated.shape[-2], aggregated.shape[-1])
        if not torch.compiler.is_exporting():  # a decision on the traced size must not bind other sizes
            self._check(size)
        return torch.sigmoid(resize(self.reduce(aggregated), size, align_corners=self.align_corners))

    def forward(self, local: Feature, aggregated: Feature) -> Feature:
        """Distribute `aggregated` by itself and `local`, both (N, C, H, W), to the same shape."""
        distributed = aggregated + aggregated * self.mask(aggregated)
        if self.residual == "none":
            return distributed
        return distributed + (local if self.residual == "x" else aggregated)

    def _check(self, size: tuple[int, int]) -> None:
        reductions = len(self.reduce)
        height, width = (_reduced(side, reductions) for side in size)
        if min(height, width) < 1:
            least = 2 ** (reductions + 1) - 1
            raise ModelError(
                f"distribution mask: a feature of {size[0]}x{size[1]} positions is too small for {reductions} "
                f"reductions, which need {least}x{least} or more; use larger images, a smaller output stride or fewer "
                "reductions"
            )
        if min(height, width) < _LOCAL and not torch.compiler.is_compiling():  # a graph cannot hold a warning
            warnings.warn(
                f"distribution mask: {size[0]}x{size[1]} positions leave a mask of {height}x{width}, which is hardly "
                "local; use fewer reductions or a smaller output stride",
                stacklevel=3,
            )


def build(
    channels: int,
    align_corners: bool = True,
    *,
    reductions: Literal[1, 2, 3] = 3,
    residual: Literal["x", "g", "none"] = "g",
) -> MaskDistribution:
    """Mask distribution of (local feature, aggregated feature), both (N, C, H, W), to the same shape.

    Parameters
    ----------
    channels : int
        Channels of both features.
    align_corners : bool
        The model's resizing convention, given by the model.
    reductions : {1, 2, 3}
        Strided convolutions; 3 are the authors'. It fixes how coarse the mask is and never depends on the input.
    residual : {"x", "g", "none"}
        What is added at the end: the local feature, the aggregated one (as the released code does), or nothing.
    """
    return MaskDistribution(channels, align_corners, reductions, residual)
