"""What every backbone returns and says of itself.

A backbone is a module from normalised images (N, 3, H, W) to `Features`. Its attribute ``channels`` is a `Channels`,
its attribute ``coverage`` says by name which pretrained tensors it holds (None: nothing is pretrained), and its
attribute ``normalisation`` how its images are to be normalised.
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


class Normalisation(NamedTuple):
    """Mean and standard deviation per channel of RGB in [0, 1], which images are normalised with."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def initialise(module: nn.Module) -> None:
    """Draw convolutions as He et al. (2015) do for ReLU networks, fan-out mode; norms start as the identity."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
