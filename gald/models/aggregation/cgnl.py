"""Compact generalised non-local block: attention over positions and channels at once, in linear time.

Within a group, all channels of all positions attend to each other by the dot-product kernel. Without a softmax the
product of the matrices can be taken in the other order: <p, g> is one number per image and group, and the output is t
times that number.

References
----------
Yue, Sun, Yuan, Zhou, Ding, Xu: Compact Generalized Non-local Network, NeurIPS 2018, equations 6 and 12.
Checked against the numbers of the released code of the GALD paper, which uses this block.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gald.errors import ModelError
from gald.models.aggregation._layout import add_residual
from gald.models.layers import Feature
from gald.options import PositiveInt


class CompactGeneralisedNonLocal(nn.Module):
    """x + GroupNorm(Wz (t <p, g>)), with t, p, g 1x1 projections of x and the product taken per group."""

    def __init__(self, channels: int, inner: int, groups: int, scaled: bool) -> None:
        super().__init__()
        self.groups = groups
        self.scaled = scaled
        self.t = nn.Conv2d(channels, inner, 1, bias=False)
        self.p = nn.Conv2d(channels, inner, 1, bias=False)
        self.g = nn.Conv2d(channels, inner, 1, bias=False)
        self.z = nn.Conv2d(inner, channels, 1, groups=groups, bias=False)
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        t, p, g = (project(feature).unflatten(1, (self.groups, -1)) for project in (self.t, self.p, self.g))
        if t.dtype in (torch.float16, torch.bfloat16):
            return feature + self._from_half(t, p, g).to(feature.dtype)
        similarity = self._scaled((p * g).sum(dim=(2, 3, 4), keepdim=True), t)  # (N, groups, 1, 1, 1)
        return add_residual(self.norm(self.z((t * similarity).flatten(1, 2))), feature)

    def _scaled(self, similarity: Tensor, t: Tensor) -> Tensor:
        return similarity * (t[0, 0].numel() ** -0.5) if self.scaled else similarity

    def _from_half(self, t: Tensor, p: Tensor, g: Tensor) -> Tensor:
        """Compute the norm's result in float32 from projections (N, groups, C / groups, H, W) of half precision.

        The similarity is a sum over all positions and soon above float16's largest number, and so is its product with
        t. Wz has no bias and the same groups, so it may come before that product.
        """
        similarity = self._scaled((p.float() * g.float()).sum(dim=(2, 3, 4), keepdim=True), t)
        mixed = self.z(t.flatten(1, 2)).unflatten(1, (self.groups, -1)).float() * similarity
        with torch.autocast(t.device.type, enabled=False):
            weight, bias = self.norm.weight.float(), self.norm.bias.float()
            return functional.group_norm(mixed.flatten(1, 2), self.groups, weight, bias, self.norm.eps)


def build(
    channels: int, *, reduction: PositiveInt = 2, groups: PositiveInt = 8, scaled: bool = False
) -> CompactGeneralisedNonLocal:
    """Compact generalised non-local block with the dot-product kernel, (N, C, H, W) to the same shape.

    Parameters
    ----------
    channels : int
        Channels of the feature; `groups` must divide it.
    reduction : int
        The projections have channels // reduction channels; `groups` must divide that too.
    groups : int
        Groups of channels that attend among themselves.
    scaled : bool
        Divide by the root of positions times channels of a group; the released code does not.

    Raises
    ------
    ModelError
        The groups do not divide the channels.
    """
    inner = channels // reduction
    if channels % groups or inner % groups or inner == 0:
        raise ModelError(
            f"aggregation cgnl: {groups} groups must divide both {channels} and {inner} channels; change groups, "
            "reduction or model.channels"
        )
    return CompactGeneralisedNonLocal(channels, inner, groups, scaled)
