"""Dual attention: one attention between all positions, one between all channels, summed.

The position attention lets each position take from those like it; the channel attention lets each channel take from
the others. Each begins as the identity and learns how much of itself to add.

References
----------
Fu, Liu, Tian, Li, Bao, Fang, Lu: Dual Attention Network for Scene Segmentation, CVPR 2019, sections 3.2 to 3.4,
equations 1 to 4.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gald.models.aggregation._attention import attend
from gald.models.aggregation._layout import add_residual
from gald.models.layers import Feature, conv_norm_act
from gald.options import PositiveInt


def _gain(zero_start: bool) -> nn.Parameter:
    return nn.Parameter(torch.zeros(1) if zero_start else torch.ones(1))


class PositionAttention(nn.Module):
    """x + gamma softmax(q^T k) v over all positions, without a scale, in memory linear in the positions."""

    def __init__(self, channels: int, inner: int, zero_start: bool) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = _gain(zero_start)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        return torch.addcmul(feature, self.gamma, self._attended(feature))

    def _attended(self, feature: Feature) -> Feature:
        """Values of all positions as each one weighs them."""
        query, key, value = (project(feature).flatten(2) for project in (self.query, self.key, self.value))
        return attend(query, key, value).reshape(feature.shape)


class ChannelAttention(nn.Module):
    """x + gamma softmax(x x^T) x over all channels; nothing is projected.

    The products sum over all positions and grow with them, so they are taken in float32 whatever the precision around.
    """

    def __init__(self, similarity: Literal["opposite", "alike"], zero_start: bool) -> None:
        super().__init__()
        self.similarity = similarity
        self.gamma = _gain(zero_start)

    def weights(self, feature: Feature) -> Float[Tensor, "n c c"]:
        """Weight of each channel (last axis) for each channel; a row sums to one."""
        with torch.autocast(feature.device.type, enabled=False):
            channels = feature.flatten(2).to(torch.promote_types(feature.dtype, torch.float32))
            logits = channels @ channels.transpose(1, 2)
        return (logits if self.similarity == "alike" else -logits).softmax(dim=2).to(feature.dtype)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        itself = torch.eye(feature.shape[1], dtype=feature.dtype, device=feature.device)
        mixing = torch.addcmul(itself, self.gamma, self.weights(feature))  # holds the residual, which saves a feature
        return (mixing @ feature.flatten(2)).reshape(feature.shape)


class DualAttention(nn.Module):
    """Position attention plus channel attention, each perhaps followed by a convolution of its own."""

    def __init__(
        self, channels: int, inner: int, similarity: Literal["opposite", "alike"], transform: bool, zero_start: bool
    ) -> None:
        super().__init__()
        self.position = nn.Sequential(PositionAttention(channels, inner, zero_start))
        self.channel = nn.Sequential(ChannelAttention(similarity, zero_start))
        if transform:
            self.position.append(conv_norm_act(channels, channels))
            self.channel.append(conv_norm_act(channels, channels))

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        of_positions: Feature = self.position(feature)  # first, while least is held beside it
        of_channels: Feature = self.channel(feature)
        in_place = len(self.channel) == 1  # else it ends with a ReLU, whose backward pass needs what it returned
        return add_residual(of_channels, of_positions) if in_place else of_channels + of_positions


def build(
    channels: int,
    *,
    reduction: PositiveInt = 8,
    similarity: Literal["opposite", "alike"] = "opposite",
    transform: bool = False,
    zero_start: bool = True,
) -> DualAttention:
    """Position and channel attention, (N, C, H, W) to the same shape.

    Parameters
    ----------
    channels : int
        Channels of the feature.
    reduction : int
        Queries and keys of the position attention have channels // reduction channels; its values have all.
    similarity : {"opposite", "alike"}
        Channels that a channel attends to. The paper's equation 3 prefers those alike, which for features of many
        positions is each channel itself; the released code takes the softmax of the negated products and so prefers
        the least alike.
    transform : bool
        Follow each attention by a 3x3 convolution, norm and ReLU before the sum, as the paper's head does. The neck
        has such a convolution after the sum, so that the default lets the two attentions share it.
    zero_start : bool
        Let the factors of both attentions start at zero, as the paper does, each attention thus as the identity;
        otherwise they start at one.

    Notes
    -----
    The paper's attentions are ``similarity="alike", transform=True``; the released code's ``similarity="opposite",
    transform=True``. Both also put a 3x3 convolution before each attention; here the neck's stands before the two.
    """
    return DualAttention(channels, max(1, channels // reduction), similarity, transform, zero_start)
