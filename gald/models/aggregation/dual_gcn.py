"""Dual graph convolution: one graph over positions, one over features, both fully connected and learnt.

The coordinate graph reasons over a map an eighth the size and gates the feature with what it finds; the feature graph
projects all positions onto a few nodes, lets the nodes exchange, and projects back. Both cost L.

References
----------
Zhang, Li, Arnab, Yang, Tong, Torr: Dual Graph Convolutional Network for Semantic Segmentation, BMVC 2019, the graphs of
coordinate and of feature space.
Checked against the numbers of the released code of the GALD paper, whose operations the equations below are.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from gald.errors import ModelError
from gald.models.aggregation._layout import contiguous_gradient
from gald.models.layers import Feature, conv_norm_act
from gald.options import PositiveInt


class CoordinateGraph(nn.Module):
    """ReLU(x + BN(Wo BN(Wg (k^T softmax(q v^T))))), with q, k and v 1x1 projections of x to half the channels.

    The graph over positions, A = k^T q, is never built: its product with the states v is taken from the right, where
    q v^T is as small as the channels. The softmax stands there, over the channels of v, and none on A.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, inner, 1)
        self.update = nn.Sequential(nn.Conv1d(inner, inner, 1, bias=False), nn.BatchNorm1d(inner))
        self.out = conv_norm_act(inner, channels, 1, bias=True, activation=False)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        query, key, value = (project(feature).flatten(2) for project in (self.query, self.key, self.value))
        mixing = (query @ value.transpose(1, 2)).softmax(dim=2)  # (N, C/2, C/2)
        states = self.update(mixing.transpose(1, 2) @ key)  # (N, C/2, L)
        return functional.relu(feature + self.out(states.unflatten(2, feature.shape[-2:])))


class FeatureGraph(nn.Module):
    """ReLU(x + BN(Wo (BN(Wg (Z + BN(Z Wa))) theta))), with the nodes' states Z = phi theta^T.

    phi and theta are 1x1 projections of x with norm, to the channels of a state and to the nodes. Wa is the learnt
    adjacency between nodes, shared by all channels of a state, Wg the update, shared by all nodes. Laplacian
    smoothing, (I - A) Z, is a sum here, since the sign of A is learnt; nothing divides by the number of positions.
    """

    def __init__(self, channels: int, nodes: int) -> None:
        super().__init__()
        inner = 2 * nodes
        self.reduce = conv_norm_act(channels, inner, 1, activation=False)
        self.assign = conv_norm_act(channels, nodes, 1, activation=False)
        self.adjacency = nn.Sequential(nn.Conv1d(nodes, nodes, 1, bias=False), nn.BatchNorm1d(nodes))
        self.update = nn.Sequential(nn.Conv1d(inner, inner, 1, bias=False), nn.BatchNorm1d(inner))
        self.out = conv_norm_act(inner, channels, 1, activation=False)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        assigned = self.assign(feature).flatten(2)  # (N, nodes, L)
        reduced = self.reduce(feature).flatten(2)  # (N, 2 nodes, L)
        nodes = (reduced @ contiguous_gradient(assigned).transpose(1, 2)).transpose(1, 2)  # (N, nodes, 2 nodes)
        states = self.update((nodes + self.adjacency(nodes)).transpose(1, 2))
        back = (states @ assigned).unflatten(2, feature.shape[-2:])
        summed: Feature = self.out(back, feature, self.activation)
        return summed


class DualGraph(nn.Module):
    """BN(Wf [x + x * up(coordinate graph(down(x))), feature graph(x)]).

    Down are strided 3x3 depthwise convolutions, padded, each with norm and without activation; up is bilinear. What the
    graph over positions finds gates the feature.
    """

    def __init__(self, channels: int, nodes: int, reductions: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.down = nn.Sequential(
            *(conv_norm_act(channels, channels, stride=2, groups=channels, activation=False) for _ in range(reductions))
        )
        self.coordinate = CoordinateGraph(channels)
        self.feature = FeatureGraph(channels, nodes)
        self.fuse = conv_norm_act(2 * channels, channels, 1, activation=False)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        # in one way whatever the size, since a graph is exported for all of them
        coarse = 1 + self.coordinate(self.down(feature))  # one more here makes x * gate + x of x * gate
        gate = functional.interpolate(coarse, feature.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        fused: Feature = self.fuse(torch.cat([feature * gate, self.feature(feature)], dim=1))
        return fused


def build(
    channels: int, align_corners: bool = True, *, reduction: PositiveInt = 4, reductions: Literal[1, 2, 3] = 3
) -> DualGraph:
    """Dual graph convolution, (N, C, H, W) to the same shape.

    Parameters
    ----------
    channels : int
        Channels of the feature.
    align_corners : bool
        The model's resizing convention, given by the model; the authors' is true.
    reduction : int
        The feature graph has channels // reduction nodes, with states of twice as many channels.
    reductions : {1, 2, 3}
        Strided convolutions before the graph over positions; 3 are the authors'. They are padded, so any size passes.

    Raises
    ------
    ModelError
        Too few channels for a node, or for half of them.

    Notes
    -----
    A single training image of 8x8 positions or fewer leaves one value per channel to the graph over positions, which
    batch norm refuses: such batches need two.
    """
    nodes = channels // reduction
    if nodes < 1 or channels < 2:
        raise ModelError(
            f"aggregation dual_gcn: {channels} channels leave no node at reduction {reduction}; change reduction or "
            "model.channels"
        )
    return DualGraph(channels, nodes, reductions, align_corners)
