"""Control for local distribution: a plain depthwise convolution block with as many parameters as the affinity's.

If a block of fixed weights and the same window gains as much, then it was the added capacity and not the affinity.
"""

from typing import Literal

from torch import nn

from gald.models.layers import Feature, conv_norm_act
from gald.options import PositiveInt


class DepthwiseDistribution(nn.Module):
    """x + pointwise(depthwise k x k(pointwise(g))), each convolution normed, ReLU after the first two."""

    def __init__(self, channels: int, window: int, hidden: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(
            conv_norm_act(channels, hidden, 1),
            conv_norm_act(hidden, hidden, window, groups=hidden),
            conv_norm_act(hidden, channels, 1, activation=False),
        )

    def forward(self, local: Feature, aggregated: Feature) -> Feature:
        """Distribute `aggregated` by itself and `local`, both (N, C, H, W), to the same shape."""
        summed: Feature = local + self.transform(aggregated)
        return summed


def build(
    channels: int,
    *,
    window: Literal[1, 3, 5, 7] = 3,
    key_reduction: PositiveInt = 4,
    hidden: PositiveInt | None = None,
) -> DepthwiseDistribution:
    """Depthwise convolution block of (local feature, aggregated feature), both (N, C, H, W), to the same shape.

    Parameters
    ----------
    channels : int
        Channels C of both features.
    window : {1, 3, 5, 7}
        Side k of the depthwise convolution: the affinity's window.
    key_reduction : int
        The affinity's; with it the hidden width is such that the parameters are as equal as whole channels allow.
    hidden : int or None
        Hidden width, if it is not to be chosen like that.
    """
    if hidden is None:
        projections = channels * channels + 2 * channels * max(1, channels // key_reduction)  # value, query and key
        hidden = max(1, round(projections / (2 * channels + window * window + 4)))  # two convolutions, and two norms
    return DepthwiseDistribution(channels, window, hidden)
