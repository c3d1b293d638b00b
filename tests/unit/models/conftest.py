"""Recorded outputs of the released code, and the weights they were recorded with, drawn from the tensors' names."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gald.models.released import Renames, released_names

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = json.loads((GOLDEN / "names.json").read_text())


def draw(name: str, shape: list[int]) -> Tensor:
    """Tensor of a reference name, as the recording drew it."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        value = 0.1 * rng.standard_normal(shape)
    elif name.endswith("bn3.weight"):
        value = 0.2 + 0.02 * rng.standard_normal(shape)
    elif len(shape) == 1:
        value = float(name.endswith("weight")) + 0.1 * rng.standard_normal(shape)
    else:
        value = rng.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, np.float32))


class Recorded:
    """One recorded module: its weights under our names, its input, its numbers."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.shapes = NAMES.get(prefix) or NAMES["blocks"][prefix]

    def state(self) -> dict[str, Tensor]:
        """Weights it was recorded with, under the reference's names."""
        named = self.shapes.items()
        return {name: draw(f"{self.prefix}.{name}", shape) for name, shape in named if name != "__input__"}

    def fill(self, module: nn.Module, renames: Renames) -> None:
        """Load the recorded weights; `renames` lead from our names to the reference's."""
        own = [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]
        names, state = released_names(own, renames), self.state()
        assert names.keys() == state.keys()
        missing, unexpected = module.load_state_dict({names[name]: state[name] for name in state}, strict=False)
        assert not unexpected
        assert all(name.endswith("num_batches_tracked") for name in missing)

    @property
    def input(self) -> Tensor:
        """Recorded input."""
        shape = self.shapes["__input__"]
        return torch.from_numpy(
            np.random.default_rng(zlib.crc32(f"{self.prefix}.input".encode())).standard_normal(shape).astype(np.float32)
        )

    def array(self, file: str, name: str) -> Tensor:
        """Recorded array of a file."""
        with np.load(GOLDEN / file) as arrays:
            return torch.from_numpy(arrays[name])


@pytest.fixture
def recorded() -> type[Recorded]:
    """Look up a recorded module by its name."""
    return Recorded


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
