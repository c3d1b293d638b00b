"""ResNet-50 and ResNet-101 with the deep stem of scene parsing, dilated to output stride 8 or 16.

Three 3x3 convolutions (64, 64, 128 channels) stand for the 7x7 one; max pooling rounds up; the last stage's dilations
are multiplied by a multi-grid. timm's ``resnet50s`` and ``resnet101s`` have this stem too.

References
----------
He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016.
Chen, Papandreou, Schroff, Adam: Rethinking Atrous Convolution, 2017 (dilation and multi-grid).
Checked against the numbers of the released code of the GALD paper.
"""

from typing import Literal

from torch import Tensor, nn

from gald.models._recompute import applied
from gald.models.backbone import _resnet_weights
from gald.models.backbone._features import IMAGENET, Channels, Features, initialise
from gald.models.layers import Feature, conv_norm_act
from gald.options import PositiveInts

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with norms; ReLU after the first two and after the sum. The 3x3 one strides."""

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, projected: bool) -> None:
        super().__init__()
        out_channels = _EXPANSION * width
        self.residual = nn.Sequential(
            conv_norm_act(in_channels, width, 1),
            conv_norm_act(width, width, 3, stride=stride, dilation=dilation),
            conv_norm_act(width, out_channels, 1, activation=False),
        )
        self.shortcut = (
            conv_norm_act(in_channels, out_channels, 1, stride=stride, activation=False) if projected else nn.Identity()
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, feature: Feature) -> Feature:
        """Map (N, in_channels, H, W) to (N, 4 width, H / stride, W / stride)."""
        *narrow, widen = self.residual
        residual = feature
        for part in narrow:
            residual = part(residual)
        summed: Feature = widen(residual, self.shortcut(feature), self.activation)
        return summed


def _stage(in_channels: int, width: int, blocks: int, stride: int, dilations: tuple[int, ...]) -> nn.Sequential:
    """Bottlenecks of one width; the first one strides and projects. The dilations repeat over the blocks."""
    return nn.Sequential(
        *(
            Bottleneck(
                in_channels if index == 0 else _EXPANSION * width,
                width,
                stride if index == 0 else 1,
                dilations[index % len(dilations)],
                projected=index == 0,
            )
            for index in range(blocks)
        )
    )


class ResNet(nn.Module):
    """Deep-stem ResNet whose last two stages keep the resolution at output stride 8, the last one at 16.

    Attributes
    ----------
    channels : Channels
        2048 of the last stage and 1024 of the one before it, which feeds the auxiliary head.
    coverage : dict or None
        Which pretrained tensors were loaded, see `_pretrained.load_strictly`.
    """

    def __init__(self, depth: Literal[50, 101], output_stride: Literal[8, 16, 32], multi_grid: tuple[int, ...]) -> None:
        super().__init__()
        third, fourth = {8: (1, 1), 16: (2, 1), 32: (2, 2)}[output_stride]  # strides of the last two stages
        dilation = 2 if third == 1 else 1
        last_dilation = dilation * 2 if fourth == 1 else 1
        grid = multi_grid if fourth == 1 else (1,)  # a multi-grid spreads dilated convolutions only
        blocks = _BLOCKS[depth]
        self.stem = nn.Sequential(
            conv_norm_act(3, 64, stride=2),
            conv_norm_act(64, 64),
            conv_norm_act(64, 128),
            nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        )
        self.stage1 = _stage(128, 64, blocks[0], 1, (1,))
        self.stage2 = _stage(256, 128, blocks[1], 2, (1,))
        self.stage3 = _stage(512, 256, blocks[2], third, (dilation,))
        self.stage4 = _stage(1024, 512, blocks[3], fourth, tuple(last_dilation * rate for rate in grid))
        self.channels = Channels(main=2048, aux=1024)
        self.coverage: dict[str, object] | None = None
        self.normalisation = IMAGENET
        initialise(self)

    def forward(self, images: Tensor) -> Features:
        """Map normalised images (N, 3, H, W) to features at the output stride."""
        *convolutions, pool = self.stem
        feature = images
        for part in convolutions:
            feature = part(feature)
        aux = self.stage3(self.stage2(self.stage1(applied(pool, feature))))
        return Features(main=self.stage4(aux), aux=aux)


def build(
    *,
    depth: Literal[50, 101] = 50,
    output_stride: Literal[8, 16, 32] = 8,
    multi_grid: PositiveInts = (1, 2, 4),
    pretrained: Literal["none", "hub", "file"] = "none",
    file: str | None = None,
    allow_missing: tuple[str, ...] = (),
) -> ResNet:
    """ResNet with a deep stem, from images (N, 3, H, W) to features at stride 8, 16 or 32.

    Parameters
    ----------
    depth : {50, 101}
        Layers.
    output_stride : {8, 16, 32}
        Pixels of the image per position of the features.
    multi_grid : tuple of int
        Factors of the last stage's dilation, one a block, repeated; without effect at stride 32.
    pretrained : {"none", "hub", "file"}
        Where ImageNet weights come from: nowhere, timm's hub (``resnet50s``, ``resnet101s``), or `file`.
    file : str or None
        State dict or safetensors under the names of timm or of the released code.
    allow_missing : tuple of str
        Tensors of the backbone, by name or by the beginning of a name up to a dot, that the source may lack.

    Raises
    ------
    ModelError
        Weights that cannot be had, or do not cover the backbone.
    """
    network = ResNet(depth, output_stride, multi_grid)
    network.coverage = _resnet_weights.fill(network, depth, pretrained, file, allow_missing)
    return network
