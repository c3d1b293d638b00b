"""Read tensors from a file that somebody else wrote, without running any code of it."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gald.errors import ModelError

_PREFIX = "module."  # of checkpoints saved from a parallel wrapper
_NESTED = ("state_dict", "model")  # keys under which training scripts keep the state dict among other things


def tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the counters of batch norm, which are no weights and which many sources lack."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def read(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint.

    Parameters
    ----------
    file : Path
        A safetensors file, or what `torch.save` wrote: a state dict, or a dictionary that holds one under
        ``state_dict`` or ``model``.

    Returns
    -------
    dict of str to Tensor
        On the CPU, without counters of batch norm, without the prefix ``module.`` where all names have it.

    Raises
    ------
    ModelError
        No such file, a damaged one, one that holds more than tensors of plain numbers, or none.
    """
    if not file.is_file():
        raise ModelError(f"no checkpoint at {file}; check the path")
    content = _safetensors(file) if file.suffix == ".safetensors" else _pickle(file)
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{file} holds no state dict, neither by itself nor under {' or '.join(map(repr, _NESTED))}")
    others = [str(name) for name, value in content.items() if not isinstance(name, str) or not _is_plain(value)]
    if others:
        raise ModelError(
            f"{file} holds entries that are no tensors of plain numbers: {', '.join(others)}; give a state dict"
        )
    state = tensors(content)
    if all(name.startswith(_PREFIX) for name in state):
        state = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    return state


def _is_plain(value: Any) -> bool:
    """Whether something is a tensor in memory that all operators take, as sparse, complex and 8-bit ones are not."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
        and (value.itemsize > 1 or not value.is_floating_point())
    )


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is damaged or no safetensors file ({error}); fetch it again") from error


def _pickle(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint make torch raise nearly anything
        wanted = re.search(r"GLOBAL (\w+(?:\.\w+)+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if wanted is None:
            raise ModelError(f"{file} is damaged or no checkpoint of tensors alone; fetch it again") from error
        raise ModelError(  # torch's own message advises to run the code
            f"{file} is refused: it holds more than tensors, and reading it would call {wanted[1]}; only a state dict "
            "of tensors is read, so ask its owner for one"
        ) from error
