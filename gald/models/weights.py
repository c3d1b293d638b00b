"""Weights of a whole model in one file that says how to build it: safetensors with params and class names.

The file needs nothing beside it and runs no code when it is read, which a pickle does.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from gald import __version__, files
from gald.errors import GaldError, ModelError
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import ModelParams
from gald.params._validate import validated

_REMEDY = "give a .safetensors file written by gald; if a run made this one, train it again"
_MOST_LISTED = 6
_KEY = "gald"  # one entry, because safetensors writes several in an order that changes from call to call


class Described(NamedTuple):
    """What a weights file says of its network: its classes in order, and its params less pretrained weights."""

    classes: tuple[str, ...]
    model: ModelParams


def save(path: Path, model: Segmentor, params: ModelParams, classes: Sequence[str]) -> None:
    """Write the model to one file; equal weights give equal bytes.

    Parameters
    ----------
    path : Path
        Destination, replaced in one step.
    model : Segmentor
        Network; its tensors are written from the CPU.
    params : ModelParams
        What it was built from.
    classes : sequence of str
        Names of its K classes, in order.

    Raises
    ------
    ModelError
        The number of names is not the number of classes.
    """
    if len(classes) != model.num_classes:
        raise ModelError(f"{path}: {len(classes)} class names for a model of {model.num_classes} classes")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    header = files.canonical_json({"classes": list(classes), "model": params.model_dump(mode="json")})
    files.write_bytes(path, to_bytes(state, metadata={_KEY: header}))


def load(path: str | Path, *, classes: Sequence[str] | None = None) -> Segmentor:
    """Build the model that a weights file describes, with its weights; this is `gald.load`.

    Parameters
    ----------
    path : str or Path
        File written by `save`.
    classes : sequence of str, optional
        Class names that the model must have, for example a benchmark's.

    Returns
    -------
    Segmentor
        In evaluation mode, on the CPU, its `class_names` set.

    Raises
    ------
    ModelError
        No such file, a damaged or foreign one, of a network that cannot be built, tensors that do not fit it or are
        of no use (see `unusable`), or other classes.
    """
    path = Path(path)
    described = describe(path)
    if classes is not None and list(classes) != list(described.classes):
        raise ModelError(_other_classes(path, list(described.classes), list(classes)))
    with _opened(path) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}
    try:
        model = build_segmentor(described.model, len(described.classes))
    except GaldError as error:
        raise ModelError(f"{path}: its network cannot be built: {error}") from error
    _fill(model, state, path)
    model.class_names = described.classes
    return model.eval()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or no safetensors file ({error}); {_REMEDY}") from error


def describe(path: Path) -> Described:
    """Read what a weights file says of its network, and none of its tensors.

    Raises
    ------
    ModelError
        No such file, a damaged or foreign one, or one that this version cannot read.
    """
    if not path.is_file():
        raise ModelError(f"no weights at {path}; train the run first, or check the path")
    with _opened(path) as file:
        header = (file.metadata() or {}).get(_KEY)
    if header is None:
        text = f"{path} was not written by gald: it does not say which network its tensors belong to; {_REMEDY}"
        raise ModelError(text)
    try:
        content = json.loads(header)
        classes, model = content["classes"], unpretrained(content["model"])
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise TypeError("its classes are no list of names")
    except (GaldError, LookupError, TypeError, ValueError) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(
            f"{path}: this gald, {__version__}, cannot read what the file says of its network ({said[:300]}); load it "
            "with the version of gald that wrote it, or train the run again"
        ) from error
    return Described(tuple(classes), model)


def unpretrained(content: dict[str, Any]) -> ModelParams:
    """Read the params, without fetching pretrained weights that would be overwritten at once.

    Raises
    ------
    ParamsError
        They are no params of a network.
    """
    if "pretrained" in content["backbone"]:
        content = {**content, "backbone": {**content["backbone"], "pretrained": "none"}}
    return validated(ModelParams, content, lambda _: "model")


def _fill(model: Segmentor, state: dict[str, torch.Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    mismatched = sorted(name for name in expected.keys() & state.keys() if not _fits(state[name], expected[name]))
    if missing or unknown or mismatched:
        raise ModelError(
            f"{path} does not fit its network: missing {', '.join(missing) or 'none'}; unknown "
            f"{', '.join(unknown) or 'none'}; of another shape or type {', '.join(mismatched) or 'none'}"
        )
    useless = unusable(state)
    if useless:
        more = f" and {len(useless) - _MOST_LISTED} more" if len(useless) > _MOST_LISTED else ""
        raise ModelError(
            f"{path} would predict nothing of use: not finite, or a negative variance, are numbers of "
            f"{', '.join(useless[:_MOST_LISTED])}{more}; the training diverged or the file is damaged, train again"
        )
    model.load_state_dict(state, strict=True)


def _fits(tensor: torch.Tensor, place: torch.Tensor) -> bool:
    """Whether a tensor has a place's shape and its kind of numbers; floats may have another precision, not 8 bits."""
    floats = tensor.is_floating_point() and tensor.itemsize > 1
    return tensor.shape == place.shape and (floats if place.is_floating_point() else tensor.dtype == place.dtype)


def unusable(state: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors with which a network predicts nothing: not all finite, or a variance below zero.

    Examples
    --------
    >>> unusable({"a": torch.tensor(float("nan")), "b.running_var": torch.tensor(-1.0), "c": torch.tensor(-1)})
    ['a', 'b.running_var']
    """
    return [
        name
        for name, tensor in state.items()
        if not tensor.isfinite().all() or (name.endswith("running_var") and bool((tensor < 0).any()))
    ]


def _other_classes(path: Path, found: list[str], wanted: list[str]) -> str:
    if len(found) != len(wanted):
        return f"{path} has {len(found)} classes, {len(wanted)} are wanted; it was trained for another benchmark"
    index = next(index for index, (have, want) in enumerate(zip(found, wanted, strict=True)) if have != want)
    return f"{path}: class {index} is {found[index]!r}, wanted is {wanted[index]!r}; another benchmark or order"
