"""Global aggregation, then local distribution: the block of the paper, for any network.

It maps (N, C, H, W) to the same shape. To put it into a network of your own:

    from gald.models.block import GlobalThenLocal
    block = GlobalThenLocal(512, aggregation="psp", distribution={"name": "affinity", "window": 5})
    features = block(features)
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gald import plugins
from gald.errors import ModelError
from gald.models.layers import Feature, conv_norm_act, resize

_KERNEL = 3  # of the unpadded convolution before an aggregation at half the resolution

Part = str | Mapping[str, Any] | nn.Module


def build_plugin(
    kind: str,
    name: str,
    *given: Any,
    align_corners: bool,
    stride: int | None = None,
    options: Mapping[str, Any],
) -> nn.Module:
    """Build a plugin of ``gald/models/<kind>``; see `build_part`.

    What the model gives (`given`, `align_corners`, `stride`) is positional in a plugin's ``build``, what the user
    chooses is keyword-only.
    """
    build = plugins.load(f"models/{kind}", name)
    try:
        chosen = plugins.checked(f"models/{kind}", name, options)
    except plugins.OptionError as error:
        raise ModelError(f"{kind} {name!r}: {error.option}: {error}") from error
    told = {"align_corners": align_corners, "stride": stride}
    wanted = inspect.signature(build).parameters.keys() & told.keys()
    module: nn.Module = build(*given, **{key: told[key] for key in wanted}, **chosen)
    return module


def build_part(kind: str, part: Part, channels: int, *, align_corners: bool, stride: int | None = None) -> nn.Module:
    """Build an aggregation or a distribution.

    Parameters
    ----------
    kind : {"aggregation", "distribution"}
        Folder of the plugin.
    part : str, mapping or nn.Module
        Its name, its name and options (``{"name": "psp", "bins": (1, 2)}``), or a module, which is taken as it is.
    channels : int
        Channels of the features.
    align_corners : bool
        Handed to the plugins that resize: those whose ``build`` has this argument.
    stride : int, optional
        Pixels of the image per position of the features, where that is known; handed on in the same way.

    Raises
    ------
    ParamsError
        No plugin bears the name.
    ModelError
        The plugin has no such option, or refuses its value; the message says what would be right.
    """
    if isinstance(part, nn.Module):
        return part
    options = dict(part) if isinstance(part, Mapping) else {"name": part}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ModelError(f"{kind} is {part!r}; give a name, or a mapping with the key 'name' and options beside it")
    return build_plugin(kind, name, channels, align_corners=align_corners, stride=stride, options=options)


class GlobalThenLocal(nn.Module):
    """Aggregate globally, then distribute locally.

    With ``aggregation_stride=2`` the aggregation runs at half the resolution, as in the authors' block: an unpadded
    3x3 depthwise convolution of stride 2 with norm and ReLU before it, bilinear upsampling after it. The distribution
    sees the full resolution either way.

    Parameters
    ----------
    channels : int
        Channels C of the feature.
    aggregation, distribution : str, mapping or nn.Module
        Parts, see `build_part`. An aggregation maps (N, C, H, W) to the same shape; a distribution maps the pair
        (local feature, aggregated feature) to it.
    aggregation_stride : {1, 2}
        Resolution at which the aggregation runs.
    align_corners : bool
        Resizing convention, of the block and its parts.
    output_stride : int, optional
        Pixels of the image per position of the feature, for parts whose defaults follow it (the rates of ``aspp``),
        which otherwise take it for 8.

    Raises
    ------
    ModelError
        A part is refused, there is no channel, or the stride is neither 1 nor 2.
    """

    def __init__(
        self,
        channels: int,
        *,
        aggregation: Part,
        distribution: Part = "none",
        aggregation_stride: int = 1,
        align_corners: bool = True,
        output_stride: int | None = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ModelError(f"channels is {channels}; a feature has 1 or more")
        if aggregation_stride not in (1, 2):
            raise ModelError(f"aggregation_stride is {aggregation_stride}; allowed are 1 and 2")
        self.align_corners = align_corners
        self.reduce = (
            conv_norm_act(channels, channels, _KERNEL, stride=2, groups=channels, padded=False, bias=True)
            if aggregation_stride == 2
            else nn.Identity()
        )
        stride = None if output_stride is None else output_stride * aggregation_stride
        self.aggregation = build_part("aggregation", aggregation, channels, align_corners=align_corners, stride=stride)
        self.distribution = build_part(
            "distribution", distribution, channels, align_corners=align_corners, stride=output_stride
        )

    def forward(self, feature: Feature) -> Feature:
        """Map (N, C, H, W) to the same shape.

        Raises
        ------
        ModelError
            The feature is too small for a part; the message names the smallest size that works.
        """
        size = (feature.shape[-2], feature.shape[-1])
        if not torch.compiler.is_exporting():  # a decision on the traced size must not bind other sizes
            self._check(size)
        aggregated = resize(self.aggregation(self.reduce(feature)), size, align_corners=self.align_corners)
        distributed: Feature = self.distribution(feature, aggregated)
        return distributed

    def _check(self, size: tuple[int, int]) -> None:
        if min(size) < _KERNEL and not isinstance(self.reduce, nn.Identity):
            raise ModelError(
                f"a feature of {size[0]}x{size[1]} positions is too small for aggregation_stride 2, which needs "
                f"{_KERNEL}x{_KERNEL} or more; use larger images, a smaller output stride or aggregation_stride 1"
            )
