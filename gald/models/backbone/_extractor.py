"""timm's feature extractors, at a stated output stride and for images of any size.

Many transformers take one size of image only. Those that timm can relax are relaxed; those that want sides of a
certain multiple, or that drop the last pixels of other sides, get images that are padded at the right and below, by
zeros, which after normalisation are the mean colour.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gald.errors import ModelError
from gald.models.backbone._timm import import_timm
from gald.models.layers import Feature
from gald.plugins import nearest

_REFUSALS = (TypeError, ValueError, NotImplementedError, AssertionError, RuntimeError)  # what timm raises of options
_ODD = (97, 129)  # one more than a multiple of every stride
_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)  # as one or another of timm's networks says it


class Fit(NamedTuple):
    """How images go into an extractor and how its features come out.

    Attributes
    ----------
    strides, widths : list of int
        Stride and channels of each feature.
    multiple : int
        Sides of the images are padded to a multiple of this.
    channels_last : bool
        Features come as (N, H, W, C).
    """

    strides: list[int]
    widths: list[int]
    multiple: int
    channels_last: bool

    def features(self, network: nn.Module, images: Tensor) -> list[Feature]:
        """Run the extractor on images (N, 3, H, W): features (N, C, ceil(H / stride), ceil(W / stride)) in order."""
        height, width = images.shape[-2:]
        if self.multiple > 1:
            images = functional.pad(images, (0, self._missing(width), 0, self._missing(height)))
        features: list[Tensor] = network(images)
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        if self.multiple > 1:
            features = [
                feature[..., : (height + stride - 1) // stride, : (width + stride - 1) // stride]
                for feature, stride in zip(features, self.strides, strict=True)
            ]
        return features

    def _missing(self, side: int) -> int:
        """Pixels up to the next multiple, without a negative number, which ONNX divides in another way than Python."""
        return (self.multiple - side % self.multiple) % self.multiple


def check_name(name: str) -> None:
    """Refuse a name that is none of timm's, perhaps with the tag of certain weights."""
    timm = import_timm()
    architecture, _, tag = name.partition(".")
    if architecture not in timm.list_models():
        raise ModelError(f"timm has no model {architecture!r}; {nearest(architecture, timm.list_models())}")
    if tag and name not in timm.list_pretrained():
        known = timm.list_pretrained(f"{architecture}.*")
        raise ModelError(f"timm has no weights {name!r}; {nearest(name, known)}")


def extractor(name: str, output_stride: int, *, fused: bool) -> tuple[nn.Module, Fit]:
    """Build timm's feature extractor with the features that are used: the coarse ones, or all that are joined.

    Raises
    ------
    ModelError
        timm has no such model, it cannot give features at this stride, or takes no image but of its own size.
    """
    check_name(name)
    strides = {} if fused or output_stride == 32 else {"output_stride": output_stride}
    try:
        network = _create(name, strides)
    except TypeError:  # it cannot dilate, but may end at this stride
        strides = {}
        network = _create(name, strides)
    except _REFUSALS as error:
        raise ModelError(
            f"timm's {name} gives no features at output stride {output_stride} by dilation ({error}); use 32, or fuse "
            "coarse features into finer ones with fuse: add"
        ) from error
    native = reductions(network)
    _check_stride(name, native, output_stride, fused=fused)
    first = native.index(output_stride) if fused else len(native) - 2
    # counted from the end, since transformers of one stride give their last few blocks
    network = _create(name, {**strides, "out_indices": tuple(range(first - len(native), 0))})
    return network, _fit(name, network)


def reductions(network: nn.Module) -> list[int]:
    """Strides of an extractor's features, finest first."""
    info: Any = network.feature_info
    strides: list[int] = info.reduction()
    return strides


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    timm = import_timm()
    config = timm.get_pretrained_cfg(name)
    ways: Sequence[dict[str, Any]] = _ANY_SIZE if config is not None and config.fixed_input_size else ({},)
    for way in ways:
        try:
            network: nn.Module = timm.create_model(name, features_only=True, **options, **way)
        except TypeError:
            if way is ways[-1]:
                raise
        else:
            return network
    raise AssertionError("the last way returns or raises")


def _check_stride(name: str, native: Sequence[int], output_stride: int, *, fused: bool) -> None:
    last = native[-1]
    if not fused and last != output_stride:
        finer = [stride for stride in native if stride in (8, 16) and stride < last]
        ways = [f"output_stride: {last}"] if last in (8, 16, 32) else []
        ways += ["fuse: add or concat, which joins its coarse features to its finer ones"] if finer else []
        raise ModelError(
            f"timm's {name} ends at stride {last} and cannot be dilated to output stride {output_stride}; "
            f"use {', or '.join(ways) or 'another network'}"
        )
    if fused and (output_stride not in native or native.index(output_stride) == len(native) - 1):
        allowed = [stride for stride in native[:-1] if stride in (8, 16)]
        raise ModelError(
            f"fuse: timm's {name} has features at strides {', '.join(map(str, native))}, so there is nothing to join "
            f"at output stride {output_stride}; use "
            + (f"output_stride: {' or '.join(map(str, sorted(set(allowed))))}" if allowed else "fuse: none")
        )


def _fit(name: str, network: nn.Module) -> Fit:
    """Try the extractor on an image of odd sides, then on one of even sides, to learn what it wants."""
    info: Any = network.feature_info
    strides = reductions(network)
    last = str(getattr(network, "output_fmt", "")).rpartition(".")[2] == "NHWC"
    coarsest = max(strides)
    as_it_comes = Fit(strides, info.channels(), 1, last)
    padded = as_it_comes._replace(multiple=coarsest)
    runs = True
    try:
        if _covers(as_it_comes, network):
            return as_it_comes
    except _REFUSALS:
        runs = False
    try:
        exact = _covers(padded, network)
    except _REFUSALS as error:
        raise ModelError(
            f"timm's {name} does not take images of any size ({error}), as segmentation needs; use another network, "
            "for example a Swin or PVT for a transformer"
        ) from error
    return as_it_comes if runs and not exact else padded  # unpadded convolutions lose pixels either way


def _covers(fit: Fit, network: nn.Module) -> bool:
    """Whether no feature lacks the last pixels of an image of odd sides."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            device = next(network.parameters()).device
            features = fit.features(network, torch.zeros(1, 3, *_ODD, device=device))
    finally:
        network.train(training)
    if [feature.shape[1] for feature in features] != fit.widths:
        raise ValueError("its features are no maps of the channels it states")
    return all(
        side >= -(-of_image // stride)
        for feature, stride in zip(features, fit.strides, strict=True)
        for side, of_image in zip(feature.shape[2:], _ODD, strict=True)
    )
