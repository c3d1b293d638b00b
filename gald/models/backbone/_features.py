"""What every backbone returns and says of itself.

A backbone is a module from normalised images (N, 3, H, W) to `Features`. Its attribute ``channels`` is a `Channels`,
its attribute ``coverage`` says by name which pretrained tensors it holds (None: nothing is pretrained).
"""

from typing import NamedTuple

from torch import nn

from gald.models.layers import Feature


class Features(NamedTuple):
    """Features of a batch of images.

    Attributes
    ----------
    main : Tensor
        (N, C, h, w) at the output stride, for the neck.
    aux : Tensor
        (N, C', h', w'), an earlier or coarser feature, for the auxiliary head.
    """

    main: Feature
    aux: Feature


class Channels(NamedTuple):
    """Channels of `Features`, known before any image is seen."""

    main: int
    aux: int


def initialise(module: nn.Module) -> None:
    """Draw convolutions as He et al. (2015) do for ReLU networks, fan-out mode; norms start as the identity."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
