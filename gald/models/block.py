"""Global aggregation, then local distribution: the block of the paper, for any network.

It maps (N, C, H, W) to the same shape. To put it into a network of your own:

    from gald.models.block import GlobalThenLocal
    block = GlobalThenLocal(512, aggregation="psp", distribution={"name": "affinity", "window": 5})
    features = block(features)
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from gald import plugins
from gald.errors import ModelError
from gald.models.layers import Feature, conv_norm_act, resize

Part = str | Mapping[str, Any] | nn.Module


def build_plugin(kind: str, name: str, *given: Any, align_corners: bool, options: Mapping[str, Any]) -> nn.Module:
    """Build a plugin of ``gald/models/<kind>``; see `build_part`.

    What the model gives (`given`, `align_corners`) is positional in a plugin's ``build``, what the user chooses is
    keyword-only.
    """
    build = plugins.load(f"models/{kind}", name)
    known = plugins.signature(f"models/{kind}", name)
    for key in options:
        if key not in known:
            raise ModelError(f"{kind} {name!r} has no option {key!r}; {plugins.nearest(key, known)}")
    convention = {"align_corners": align_corners} if "align_corners" in inspect.signature(build).parameters else {}
    module: nn.Module = build(*given, **convention, **options)
    return module


def build_part(kind: str, part: Part, channels: int, *, align_corners: bool) -> nn.Module:
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

    Raises
    ------
    ParamsError
        No plugin bears the name.
    ModelError
        The plugin has no such option, or refuses its value.
    """
    if isinstance(part, nn.Module):
        return part
    options = {"name": part} if isinstance(part, str) else dict(part)
    return build_plugin(kind, options.pop("name"), channels, align_corners=align_corners, options=options)


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

    Raises
    ------
    ModelError
        A part is refused, or the stride is neither 1 nor 2.
    """

    def __init__(
        self,
        channels: int,
        *,
        aggregation: Part,
        distribution: Part = "none",
        aggregation_stride: int = 1,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        if aggregation_stride not in (1, 2):
            raise ModelError(f"aggregation_stride is {aggregation_stride}; allowed are 1 and 2")
        self.align_corners = align_corners
        self.reduce = (
            conv_norm_act(channels, channels, stride=2, groups=channels, padded=False, bias=True)
            if aggregation_stride == 2
            else nn.Identity()
        )
        self.aggregation = build_part("aggregation", aggregation, channels, align_corners=align_corners)
        self.distribution = build_part("distribution", distribution, channels, align_corners=align_corners)

    def forward(self, feature: Feature) -> Feature:
        """Map (N, C, H, W) to the same shape."""
        size = (feature.shape[-2], feature.shape[-1])
        aggregated = resize(self.aggregation(self.reduce(feature)), size, align_corners=self.align_corners)
        distributed: Feature = self.distribution(feature, aggregated)
        return distributed
