"""Weights of a whole model in one file that says how to build it: safetensors with params and class names.

The file needs nothing beside it and runs no code when it is read, which a pickle does.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from gald import files
from gald.errors import ModelError
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import ModelParams

_REMEDY = "give a .safetensors file written by gald; if a run made this one, train it again"
_KEY = "gald"  # one entry, because safetensors writes several in an order that changes from call to call


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
        No such file, a damaged or foreign one, tensors that do not fit the network, or other classes.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no weights at {path}; train the run first, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or no safetensors file ({error}); {_REMEDY}") from error
    if header is None:
        text = f"{path} was not written by gald: it does not say which network its tensors belong to; {_REMEDY}"
        raise ModelError(text)
    content = json.loads(header)
    if classes is not None and list(classes) != content["classes"]:
        raise ModelError(_other_classes(path, content["classes"], list(classes)))
    model = build_segmentor(unpretrained(content["model"]), len(content["classes"]))
    _fill(model, state, path)
    model.class_names = tuple(content["classes"])
    return model.eval()


def unpretrained(content: dict[str, Any]) -> ModelParams:
    """Read the params, without fetching pretrained weights that would be overwritten at once."""
    if "pretrained" in content["backbone"]:
        content = {**content, "backbone": {**content["backbone"], "pretrained": "none"}}
    return ModelParams.model_validate_json(json.dumps(content))


def _fill(model: Segmentor, state: dict[str, torch.Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    mismatched = sorted(name for name in expected.keys() & state.keys() if expected[name].shape != state[name].shape)
    if missing or unknown or mismatched:
        raise ModelError(
            f"{path} does not fit its network: missing {', '.join(missing) or 'none'}; unknown "
            f"{', '.join(unknown) or 'none'}; of another shape {', '.join(mismatched) or 'none'}"
        )
    model.load_state_dict(state, strict=True)


def _other_classes(path: Path, found: list[str], wanted: list[str]) -> str:
    if len(found) != len(wanted):
        return f"{path} has {len(found)} classes, {len(wanted)} are wanted; it was trained for another benchmark"
    index = next(index for index, (have, want) in enumerate(zip(found, wanted, strict=True)) if have != want)
    return f"{path}: class {index} is {found[index]!r}, wanted is {wanted[index]!r}; another benchmark or order"
