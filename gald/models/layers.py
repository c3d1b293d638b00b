"""The two layers everything here is made of: convolution with norm and activation, and resizing.

How a resize treats corners is one setting of the whole model. It is therefore handed down by the model as the argument
`align_corners` and never chosen by a part.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gald.models import _recompute

Feature = Float[Tensor, "n c h w"]


class ConvNormAct(nn.Sequential):
    """Convolution, norm and perhaps ReLU at positions 0, 1 and 2; one feature is kept for the backward pass, not two.

    See `gald.models._recompute`; small features are kept, as a plain sequence does.
    """

    def forward(self, feature: Feature, summand: Feature | None = None, activation: nn.Module | None = None) -> Feature:
        """Map (N, C, H, W) to (N, C', H', W').

        Parameters
        ----------
        feature : Tensor
            (N, C, H, W).
        summand : Tensor, optional
            (N, C', H', W'), added after the norm.
        activation : nn.Module, optional
            What ends a sequence without a ReLU of its own.
        """
        convolved = _recompute.applied(self[0], feature)
        return _recompute.norm_act(self[1], self[2] if len(self) > 2 else activation, convolved, summand)


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padded: bool = True,
    bias: bool = False,
    activation: bool = True,
) -> ConvNormAct:
    """Convolution, batch normalisation and, if wanted, ReLU.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the feature that comes in and of the one that goes out.
    kernel_size, stride, dilation, groups : int
        As `torch.nn.Conv2d` has them.
    padded : bool
        Pad with zeros so that stride 1 keeps the size; otherwise no padding at all.
    bias : bool
        Give the convolution a bias. The norm makes it redundant; some released nets have it all the same.
    activation : bool
        End with a ReLU.

    Returns
    -------
    ConvNormAct
        Convolution, norm and ReLU at positions 0, 1 and 2.
    """
    padding = dilation * (kernel_size // 2) if padded else 0
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias),
        nn.BatchNorm2d(out_channels),
    ]
    if activation:
        layers.append(nn.ReLU(inplace=True))
    return ConvNormAct(*layers)


def resize(feature: Feature, size: tuple[int, int], *, align_corners: bool) -> Feature:
    """Resize bilinearly to (height, width); a feature that has that size already is returned as it is."""
    if (feature.shape[-2], feature.shape[-1]) == size:
        return feature
    return functional.interpolate(feature, size, mode="bilinear", align_corners=align_corners)
