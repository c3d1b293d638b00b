"""A small residual network of our own, for miniature benchmarks and tests.

It is fast on one CPU thread and sees little on purpose: a far cue lies beyond its receptive field, so only global
aggregation can bring it in. At stride s, the stem spans 7 pixels at stride 4 (15 at stride 8) and each 3x3 convolution
adds 2 s: two basic blocks at stride 4 see 39 pixels.
"""

from typing import Literal

from torch import Tensor, nn

from gald.errors import ModelError
from gald.models.backbone._features import IMAGENET, Channels, Features, initialise
from gald.models.layers import Feature
from gald.options import PositiveInt


def _norm(channels: int, kind: Literal["batch", "group"]) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    groups = max(1, channels // 8)
    if channels % groups:
        raise ModelError(
            f"backbone tiny: groups of 8 channels do not share {channels} evenly; give widths that are multiples of 8, "
            "or norm: batch"
        )
    return nn.GroupNorm(groups, channels)


class _Block(nn.Module):
    """Basic residual block of equal width: x + conv(relu(conv(x))), each convolution with its norm (He, CVPR 2016)."""

    def __init__(self, width: int, norm: Literal["batch", "group"]) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            _norm(width, norm),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            _norm(width, norm),
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, feature: Feature) -> Feature:
        activated: Feature = self.activation(feature + self.residual(feature))
        return activated


class TinyResNet(nn.Module):
    """Strided stem, then basic blocks at the output stride.

    Attributes
    ----------
    channels : Channels
        Both features have `width` channels; the auxiliary one is taken before the last block.
    coverage : None
        Nothing is pretrained.
    """

    def __init__(self, width: int, stem_width: int, blocks: int, output_stride: int, norm: Literal["batch", "group"]):
        super().__init__()
        widths = [stem_width] * (output_stride.bit_length() - 2) + [width]  # one strided convolution a halving
        stem: list[nn.Module] = []
        for before, after in zip([3, *widths], widths, strict=False):
            stem += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                _norm(after, norm),
                nn.ReLU(inplace=True),
            ]
        self.stem = nn.Sequential(*stem)
        self.early = nn.Sequential(*(_Block(width, norm) for _ in range(blocks - 1)))
        self.last = _Block(width, norm)
        self.channels = Channels(main=width, aux=width)
        self.coverage = None
        self.normalisation = IMAGENET
        initialise(self)

    def forward(self, images: Tensor) -> Features:
        """Map normalised images (N, 3, H, W) to features at the output stride."""
        early = self.early(self.stem(images))
        return Features(main=self.last(early), aux=early)


def build(
    *,
    width: PositiveInt = 32,
    stem_width: PositiveInt = 16,
    blocks: Literal[1, 2, 3, 4] = 2,
    output_stride: Literal[4, 8] = 4,
    norm: Literal["batch", "group"] = "batch",
) -> TinyResNet:
    """Small residual network from images (N, 3, H, W) to features at stride 4 or 8.

    Parameters
    ----------
    width : int
        Channels of the features.
    stem_width : int
        Channels of the strided convolutions before the last one.
    blocks : {1, 2, 3, 4}
        Basic blocks at the output stride; each widens the view by 4 output strides in pixels.
    output_stride : {4, 8}
        Pixels of the image per position of the features.
    norm : {"batch", "group"}
        Batch normalisation, or group normalisation with groups of 8 channels.

    Raises
    ------
    ModelError
        Widths that groups of 8 channels do not share evenly.
    """
    return TinyResNet(width, stem_width, blocks, output_stride, norm)
