"""What of a training is other on a GPU: where batches lie, how they travel, and where predictions are counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gald.params import RunParams
from gald.train.loader import batches
from tests.unit.conftest import run_params, scene

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


class Scenes:
    """Samples in memory."""

    num_classes = 4

    def __init__(self) -> None:
        from gald.datasets._reader import Sample

        rng = np.random.default_rng(0)
        self.samples = [Sample(f"scene{index}", *scene(rng)) for index in range(5)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Any:
        return self.samples[index]

    def id(self, index: int, /) -> str:
        return self.samples[index].id


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_lie_where_a_gpu_fetches_them_and_hold_the_same_pixels(workers: int, tmp_path: Path) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        params = RunParams.model_validate(
            run_params(train={"device": device, "workers": workers, "max_iters": 6})
        ).train
        made = [batch for _, batch in batches(Scenes(), params, 0)]
        assert all(batch.images.is_pinned() == batch.masks.is_pinned() == (device == "cuda") for batch in made)
        found[device] = [batch.images.to(device, non_blocking=True).cpu() for batch in made]
    assert all(ours.equal(theirs) for ours, theirs in zip(found["cuda"], found["cpu"], strict=True))
