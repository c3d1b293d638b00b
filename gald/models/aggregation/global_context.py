"""Global context: one attention map for all queries, one context vector for the image, added to every position.

Its authors saw that a trained non-local block attends almost alike from every position; so the map need not depend on
the position that asks, and the cost is linear.

References
----------
Cao, Xu, Lin, Wei, Hu: GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, ICCV Workshops 2019,
section 3.4, equation 5.
"""

from torch import nn

from gald.models.layers import Feature
from gald.options import PositiveInt


class GlobalContext(nn.Module):
    """x + W2 ReLU(LayerNorm(W1 sum_l softmax_l(Wk x) x)).

    The map's convolution has no bias: the softmax cancels it.
    """

    def __init__(self, channels: int, inner: int, zero_start: bool) -> None:
        super().__init__()
        self.attention = nn.Conv2d(channels, 1, 1, bias=False)
        last = nn.Linear(inner, channels)
        if zero_start:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.transform = nn.Sequential(
            nn.Linear(channels, inner), nn.LayerNorm(inner), nn.ReLU(inplace=True), last
        )  # on one vector an image a linear layer is a 1x1 convolution

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        weights = self.attention(feature).flatten(2).softmax(dim=2)  # (N, 1, L)
        context = (feature.flatten(2) @ weights.transpose(1, 2)).squeeze(2)  # (N, C)
        summed: Feature = feature + self.transform(context)[:, :, None, None]
        return summed


def build(channels: int, *, reduction: PositiveInt = 4, zero_start: bool = True) -> GlobalContext:
    """Global context block with attention pooling and addition, (N, C, H, W) to the same shape.

    Parameters
    ----------
    channels : int
        Channels of the feature.
    reduction : int
        The bottleneck has channels // reduction channels, two at the least, since a layer norm of one is constant. The
        released segmentation models take 4; the paper's detectors 4 or 16.
    zero_start : bool
        Let the block start as the identity, as the released code does.
    """
    return GlobalContext(channels, max(2, channels // reduction), zero_start)
