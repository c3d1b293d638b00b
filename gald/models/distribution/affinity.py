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
from gald.models.distribution._blocks import block_gather, block_similarities
from gald.models.distribution._window import Weights, Window, gather, similarities, window_mean
from gald.models.layers import Feature
from gald.options import PositiveInt


def _traced() -> bool:
    """Whether this call becomes a graph, for which the sums are written in plain operators."""
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def _cast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Convert to autocast's type where it is on, as a convolution would: custom functions are left out of it."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors)


def _matrix(projection: nn.Conv2d) -> Float[Tensor, "out c"]:
    return projection.weight.flatten(1)


def _product(matrix: Float[Tensor, "out c"], feature: Feature) -> Feature:
    """Convolve 1x1 as a product of matrices, since a convolution's backward pass copies the feature."""
    product = torch.bmm(matrix.expand(len(feature), -1, -1), feature.flatten(2))
    return product.view(*product.shape[:2], *feature.shape[2:])


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
        logits = self._similarities(local, aggregated)
        if self.position_bias is not None:
            logits = logits + self.position_bias[:, :, None, None]
        inside = self.window.inside(logits.shape[-2], logits.shape[-1], logits.device)
        if self.normalisation == "softmax":
            return logits.masked_fill(~inside, -torch.inf).softmax(dim=2)
        return logits.sigmoid() * inside

    def _similarities(self, local: Feature, aggregated: Feature) -> Weights:
        sources = {"x": local, "g": aggregated}
        asked = torch.cat([local, aggregated], dim=1) if self.source == "both" else sources[self.source]
        if _traced():
            query, key = (part.unflatten(1, (self.heads, -1)) for part in (self.query(asked), self.key(aggregated)))
            return similarities(query * self.scale, key, self.window)
        query = _product(_matrix(self.query) * self.scale, asked)
        return block_similarities(query, _product(_matrix(self.key), aggregated), self.window, self.heads)


class AffinityDistribution(nn.Module):
    """Residual plus BN of the weighted sum of projected features in each position's window."""

    def __init__(
        self,
        channels: int,
        window: Window,
        affinity: Affinity | None,
        value: Literal["g", "x", "difference"],
        residual: Literal["x", "g", "none"],
    ) -> None:
        super().__init__()
        self.window = window
        self.affinity = affinity
        self.source = value
        self.residual = residual
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, local: Feature, aggregated: Feature) -> Feature:
        """Distribute what `value` names by the affinity of the pair, both (N, C, H, W), to the same shape."""
        if self.source == "difference":
            source = aggregated - local
        else:
            source = aggregated if self.source == "g" else local
        distributed: Feature = self.norm(self._distributed(source, local, aggregated))
        if self.residual == "none":
            return distributed
        return distributed + (local if self.residual == "x" else aggregated)

    def _distributed(self, source: Feature, local: Feature, aggregated: Feature) -> Feature:
        if self.affinity is None:
            return window_mean(self.value(source), self.window)
        weights = self.affinity(local, aggregated)
        if _traced():
            value = self.value(source).unflatten(1, (weights.shape[1], -1))
            return gather(weights, value, self.window).flatten(1, 2)
        source, projection = _cast(source, _matrix(self.value))
        return block_gather(weights, source, projection, self.window)


def build(
    channels: int,
    *,
    window: Literal[1, 3, 5, 7] = 3,
    dilation: PositiveInt = 1,
    heads: PositiveInt = 1,
    key_reduction: PositiveInt = 4,
    query: Literal["x", "g", "both"] = "x",
    normalisation: Literal["softmax", "sigmoid"] = "softmax",
    weights: Literal["adaptive", "uniform"] = "adaptive",
    position_bias: bool = False,
    value: Literal["g", "x", "difference"] = "g",
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
    value : {"g", "x", "difference"}
        What is distributed: the aggregated feature, as the method's name says; the local feature, which leaves the
        aggregated one to choose the weights alone; or what aggregation has changed, g - x, so that with the residual x
        the output is the local feature plus a share of that change. The last two are ablations of ours.
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
    return AffinityDistribution(channels, shape, affinity, value, residual)
