"""A split of given samples, and batches of it compared."""

import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from gald.datasets._samples import Sample, WindowedSample
from gald.train.loader import Batch


class Given:
    """A split of given samples that counts what is read."""

    def __init__(self, samples: Sequence[Sample], packed: bool = False) -> None:
        self.samples = samples
        self.packed = packed
        self.count: Counter[int] = Counter()

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.count[index] += 1
        return self.samples[index]

    def verified(self, index: int) -> Sample:
        return self[index]

    def windowed(self, index: int) -> WindowedSample:
        return WindowedSample(*self[index])


def samples(count: int = 10, size: tuple[int, int] = (48, 64)) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(
            f"town/{index:02d}",
            rng.integers(0, 256, (*size, 3)).astype(np.uint8),
            rng.integers(0, 4, size).astype(np.uint8),
        )
        for index in range(count)
    ]


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


def assert_equal(found: Sequence[tuple[int, Batch]], expected: Sequence[tuple[int, Batch]]) -> None:
    assert [iteration for iteration, _ in found] == [iteration for iteration, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.masks, other.masks)
