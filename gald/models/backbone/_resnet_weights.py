"""ImageNet weights for the deep-stem ResNet: those of timm's ``resnet50s`` and ``resnet101s``.

timm and the released code name its tensors alike.
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from gald.models import released
from gald.models.backbone._checkpoint import tensors
from gald.models.backbone._pretrained import from_file, from_hub, load_strictly


def fill(
    network: nn.Module,
    depth: Literal[50, 101],
    pretrained: Literal["none", "hub", "file"],
    file: str | None,
    allow_missing: Sequence[str] = (),
) -> dict[str, object] | None:
    """Fill the backbone strictly, whatever its output stride and multi-grid: neither changes a tensor.

    Parameters
    ----------
    network : nn.Module
        Deep-stem ResNet of ours; changed in place.
    depth : {50, 101}
        Its layers.
    pretrained : {"none", "hub", "file"}
        Nowhere, timm's hub, or `file`.
    file : str or None
        State dict or safetensors under the names of timm or of the released code.
    allow_missing : sequence of str
        See `_pretrained.load_strictly`; under those names or ours.

    Returns
    -------
    dict or None
        Coverage, see `_pretrained.load_strictly`.

    Raises
    ------
    ModelError
        Weights that cannot be had, or do not cover the backbone.
    """
    if pretrained == "none":
        return None
    name = f"resnet{depth}s"
    state, origin = (from_hub(name), f"hub {name}") if pretrained == "hub" else (from_file(file), f"file {file}")
    renames = released.NETS[f"gald_res{depth}"].renames
    own = tensors(network.state_dict())
    names = released.released_names((f"backbone.{ours}" for ours in own), renames)
    theirs = {ours.removeprefix("backbone."): released_name for released_name, ours in names.items()}
    return load_strictly(
        network, state, origin, allow_missing=allow_missing, spell=lambda spelt: theirs.get(spelt, spelt)
    )
