"""A network as prediction needs it: batch norm is part of the convolutions, and nothing is concatenated for the last.

Running statistics are numbers that no longer change. A norm that uses them scales and shifts each channel, which the
convolution before it can do by its own weight and bias. The copy answers as the network does, up to the last digits.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gald.models.heads import MainHead
from gald.models.segmentor import Segmentor


class _SplitConv(nn.Module):
    """Convolution of two features side by side, without laying them side by side."""

    def __init__(self, convolution: nn.Conv2d, channels: int) -> None:
        super().__init__()
        parts = torch.split(convolution.weight.detach(), [channels, convolution.in_channels - channels], dim=1)
        self.first, self.second = (nn.Parameter(part.contiguous(), requires_grad=False) for part in parts)
        self.bias = convolution.bias
        self.padding = convolution.padding

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Map (N, C, H, W) and (N, C', H, W) to (N, C'', H, W)."""
        convolved = functional.conv2d(first, self.first, self.bias, padding=self.padding)
        return convolved.add_(functional.conv2d(second, self.second, padding=self.padding))


class _FoldedHead(nn.Module):
    """The main head's layers, with the last convolution split."""

    def __init__(self, head: MainHead) -> None:
        super().__init__()
        self.before, self.block, self.after = head.before, head.block, head.after
        convolution, self.norm, self.activation = head.fuse.children()
        assert isinstance(convolution, nn.Conv2d)
        self.fuse = _SplitConv(convolution, convolution.in_channels - head.classifier.in_channels)
        self.classifier = head.classifier

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (N, K, h, w) of the backbone's feature (N, C, h, w)."""
        context = self.after(self.block(self.before(feature)))
        logits: Tensor = self.classifier(self.activation(self.norm(self.fuse(feature, context))))
        return logits


def folded(model: Segmentor) -> Segmentor:
    """Copy a network for prediction.

    Parameters
    ----------
    model : Segmentor
        Network in evaluation mode, on any device; it stays as it is.

    Returns
    -------
    Segmentor
        In evaluation mode, without gradients and without the auxiliary head; its tensors have other names, so its
        weights are not for saving. A norm that does not directly follow a convolution in a sequence remains.
    """
    memo = {id(model.aux_head): None}  # not copied, since predictions do not need it
    copied = copy.deepcopy(model, memo).eval().requires_grad_(False)
    for part in copied.modules():
        if isinstance(part, nn.Sequential):
            _fold(part)
    if type(copied.head) is MainHead:
        copied.head = _FoldedHead(copied.head)  # type: ignore[assignment]  # it is called in the same way
    return copied


def _fold(sequence: nn.Sequential) -> None:
    layers = list(sequence)
    for place, (layer, after) in enumerate(pairwise(layers)):
        if type(layer) is nn.Conv2d and type(after) is nn.BatchNorm2d and after.track_running_stats:
            sequence[place], sequence[place + 1] = fuse_conv_bn_eval(layer, after).requires_grad_(False), nn.Identity()
