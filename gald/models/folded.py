"""A network as prediction needs it: batch norm is part of the convolutions, and nothing is concatenated for the last.

Running statistics are numbers that no longer change. A norm that uses them scales and shifts each channel, which the
convolution before it can do by its own weight and bias. The copy answers as the network does, up to the last digits.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gald.models._winograd import WinogradConvs, fits
from gald.models.heads import MainHead
from gald.models.segmentor import Segmentor


class _SideBySide(nn.Module):
    """Convolutions of one feature, one after the other."""

    def __init__(self, convolutions: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)

    def forward(self, feature: Tensor) -> list[Tensor]:
        """Map (N, C, H, W) to the result of each convolution."""
        return [convolution(feature) for convolution in self.convolutions]


class _FoldedHead(nn.Module):
    """The main head's layers. Its last convolution, of two features side by side, is the sum of one of each.

    So the backbone's feature is convolved twice, for the block and for that sum: in one go where that is faster.
    """

    def __init__(self, head: MainHead) -> None:
        super().__init__()
        first, *before = head.before.children()
        middle, *after = head.after.children()
        last, *fuse = head.fuse.children()
        assert isinstance(first, nn.Conv2d)
        assert isinstance(middle, nn.Conv2d)
        assert isinstance(last, nn.Conv2d)
        of_feature, of_context = _parts(last, first.in_channels)
        self.of_feature, self.of_block, self.of_context = map(_together, ([first, of_feature], [middle], [of_context]))
        self.before, self.after, self.fuse = nn.Sequential(*before), nn.Sequential(*after), nn.Sequential(*fuse)
        self.block = head.block
        self.classifier = head.classifier

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (N, K, h, w) of the backbone's feature (N, C, h, w)."""
        first, summed = self.of_feature(feature)
        (middle,) = self.of_block(self.block(self.before(first)))
        (of_context,) = self.of_context(self.after(middle))
        logits: Tensor = self.classifier(self.fuse(summed.add_(of_context)))
        return logits


def _together(convolutions: Sequence[nn.Conv2d]) -> nn.Module:
    return WinogradConvs(convolutions) if all(map(fits, convolutions)) else _SideBySide(convolutions)


def _parts(convolution: nn.Conv2d, channels: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Split a convolution in two, of the first channels and of the others, whose results add up to its own."""
    parts = torch.split(convolution.weight.detach(), [channels, convolution.in_channels - channels], dim=1)
    first, second = (copy.copy(convolution) for _ in parts)
    for one, weight in zip((first, second), parts, strict=True):
        one._parameters = {"weight": nn.Parameter(weight.contiguous(), requires_grad=False), "bias": None}
        one.in_channels = weight.shape[1]
    first.bias = convolution.bias
    return first, second


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
