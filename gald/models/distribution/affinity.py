"""Local distribution, version 2: each position takes from the aggregated feature around it what fits its own feature.

The paper's abstract says that the affinity between the global and the local feature is modelled for each pixel. How,
its full text would say; this is our reading: the local feature asks, the aggregated feature in a small window answers,

    a(p, d) = softmax_d(<Wq x(p), Wk g(p + d)> / sqrt(C / (r h)))      out(p) = x(p) + BN(sum_d a(p, d) Wv g(p + d)).

Padding is masked out of the softmax: a border position has fewer neighbours, not neighbours of zero.

References
----------
Li, Zhang, Cheng, Yang, Tong, Zhu, Xiang: Global Aggregation then Local Distribution for Scene Parsing, IEEE TIP 2021.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gald.errors import ModelError
from gald.models.distribution._window import Weights, Window, window_gather, window_mean, window_similarities
from gald.models.layers import Feature


class Affinity(nn.Module):
    """Weights a(p, d) of every position over its window, (N, heads, k^2, H, W)."""

    def __init__(
        self,
        channels: int,
        window: Window,
        heads: int,
        key_channels: int,
        query: Literal["x", "g", "both"],
        normalisation: Literal["softmax", "sigmoid"],
        position_bias: bool,
    ) -> None:
        super().__init__()
        self.window = window
        self.heads = heads
        self.source = query
        self.normalisation = normalisation
        self.scale = (key_channels / heads) ** -0.5
        self.query = nn.Conv2d(channels * (2 if query == "both" else 1), key_channels, 1, bias=False)
        self.key = nn.Conv2d(channels, key_channels, 1, bias=False)
        self.position_bias = nn.Parameter(torch.zeros(heads, window.side**2)) if position_bias else None

    def forward(self, local: Feature, aggregated: Feature) -> Weights:
        """Weights of each position over its window, zero for padding."""
        sources = {"x": local, "g": aggregated}
        asked = torch.cat([local, aggregated], dim=1) if self.source == "both" else sources[self.source]
        query = self.query(asked).unflatten(1, (self.heads, -1)) * self.scale
        key = self.key(aggregated).unflatten(1, (self.heads, -1))
        logits = window_similarities(query, key, self.window)
        if self.position_bias is not None:
            logits = logits + self.position_bias[:, :, None, None]
        inside = self.window.inside(logits.shape[-2], logits.shape[-1], logits.device)
        if self.normalisation == "softmax":
            return logits.masked_fill(~inside, -torch.inf).softmax(dim=2)
        return logits.sigmoid() * inside


class AffinityDistribution(nn.Module):
    """Residual plus BN of the weighted sum of projected aggregated features in each position's window."""

    def __init__(
        self, channels: int, window: Window, affinity: Affinity | None, residual: Literal["x", "g", "none"]
    ) -> None:
        super().__init__()
        self.window = window
        self.affinity = affinity
        self.residual = residual
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, local: Feature, aggregated: Feature) -> Feature:
        """Distribute `aggregated` by its affinity to `local`, both (N, C, H, W), to the same shape."""
        value = self.value(aggregated)
        distributed: Float[Tensor, "n c h w"]
        if self.affinity is None:
            distributed = self.norm(window_mean(value, self.window))
        else:
            weights = self.affinity(local, aggregated)
            by_head = value.unflatten(1, (weights.shape[1], -1))
            distributed = self.norm(window_gather(weights, by_head, self.window).flatten(1, 2))
        if self.residual == "none":
            return distributed
        return distributed + (local if self.residual == "x" else aggregated)


def build(
    channels: int,
    *,
    window: Literal[1, 3, 5, 7] = 3,
    dilation: int = 1,
    heads: int = 1,
    key_reduction: int = 4,
    query: Literal["x", "g", "both"] = "x",
    normalisation: Literal["softmax", "sigmoid"] = "softmax",
    weights: Literal["adaptive", "uniform"] = "adaptive",
    position_bias: bool = False,
    residual: Literal["x", "g", "none"] = "x",
) -> AffinityDistribution:
    """Affinity distribution of (local feature, aggregated feature), both (N, C, H, W), to the same shape.

    Parameters
    ----------
    channels : int
        Channels C of both features.
    window : {1, 3, 5, 7}
        Side k of the window in positions.
    dilation : int
        Distance between the window's positions.
    heads : int
        Groups of channels with weights of their own; divides C and C // key_reduction.
    key_reduction : int
        Queries and keys have C // key_reduction channels.
    query : {"x", "g", "both"}
        What asks: the local feature, the aggregated one, or both concatenated.
    normalisation : {"softmax", "sigmoid"}
        Weights of a window that sum to one, or independent weights in (0, 1).
    weights : {"adaptive", "uniform"}
        Uniform fixes all weights to one over the number of neighbours: the control of equal value path, window and
        residual, without queries and keys, so that what it lacks is adaptivity alone.
    position_bias : bool
        Add a learnt bias per head and shift to the similarities.
    residual : {"x", "g", "none"}
        What is added at the end: the local feature, the aggregated one, or nothing.

    Raises
    ------
    ModelError
        The heads do not divide the channels.
    """
    key_channels = max(1, channels // key_reduction)
    if channels % heads or key_channels % heads:
        raise ModelError(
            f"distribution affinity: {heads} heads must divide both {channels} and {key_channels} channels; change "
            "heads, key_reduction or model.channels"
        )
    shape = Window(window, dilation)
    affinity = None
    if weights == "adaptive":
        affinity = Affinity(channels, shape, heads, key_channels, query, normalisation, position_bias)
    return AffinityDistribution(channels, shape, affinity, residual)
