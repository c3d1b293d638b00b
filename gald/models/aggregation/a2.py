"""Double attention: gather what the image holds into a few descriptors, then hand each position a mixture of them.

The first attention weighs the positions for each descriptor, the second the descriptors for each position. Both are
small matrices, so the cost is linear in the positions.

References
----------
Chen, Kalantidis, Li, Yan, Feng: A2-Nets: Double Attention Networks, NeurIPS 2018, section
"The Double Attention Block" and its equation.
"""

from torch import nn

from gald.models.aggregation._projections import projected
from gald.models.layers import ConvNormAct, Feature
from gald.options import NonNegativeInt, PositiveInt


class DoubleAttention(nn.Module):
    """x + BN(Wz (A softmax_l(B)^T) softmax_n(V)), with A, B and V 1x1 projections of x.

    Both softmaxes are the paper's: B over the positions for each descriptor, V over the descriptors for each position
    (a common implementation takes the positions there too). The norm behind the last convolution is our addition, as
    in every residual block here.
    """

    def __init__(self, channels: int, inner: int, descriptors: int, zero_start: bool) -> None:
        super().__init__()
        self.feature = nn.Conv2d(channels, inner, 1)
        self.gather = nn.Conv2d(channels, descriptors, 1)
        self.distribute = nn.Conv2d(channels, descriptors, 1)
        norm = nn.BatchNorm2d(channels)
        if zero_start:
            nn.init.zeros_(norm.weight)
        self.out = ConvNormAct(nn.Conv2d(inner, channels, 1), norm)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        parts = projected(feature, self.feature, self.gather, self.distribute)
        values, gather, distribute = (part.flatten(2) for part in parts)
        gathered = values @ gather.softmax(dim=2).transpose(1, 2)  # (N, inner, descriptors)
        distributed = (gathered @ distribute.softmax(dim=1)).view(parts[0].shape)
        summed: Feature = self.out(distributed, feature)
        return summed


def build(
    channels: int, *, reduction: PositiveInt = 4, descriptors: NonNegativeInt = 0, zero_start: bool = False
) -> DoubleAttention:
    """Double attention block, (N, C, H, W) to the same shape.

    Parameters
    ----------
    channels : int
        Channels of the feature.
    reduction : int
        The gathered features have channels // reduction channels; the paper takes a quarter.
    descriptors : int
        Number of descriptors; 0 takes as many as the gathered features have channels, as the paper does.
    zero_start : bool
        Let the block start as the identity. The paper does not say that it does.
    """
    inner = max(1, channels // reduction)
    return DoubleAttention(channels, inner, descriptors or inner, zero_start)
