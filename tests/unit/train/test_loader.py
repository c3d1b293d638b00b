from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gald.datasets._reader import PreparedSplit, Sample
from gald.errors import DatasetError
from gald.params import Run
from gald.train.loader import CachedSamples, batches, make_batch, sample_indices


def test_epochs_are_whole_and_shuffled() -> None:
    drawn = [index for iteration in range(35) for index in sample_indices(3, iteration, 4, 7)]
    epochs = [drawn[first : first + 7] for first in range(0, len(drawn), 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 15
    assert drawn != [index for iteration in range(35) for index in sample_indices(4, iteration, 4, 7)]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_and_start_change_nothing(make_run: Callable[..., Run], prepared: Path, workers: int) -> None:
    plain = make_run(train={"max_iters": 8}).params.train
    threaded = make_run(train={"max_iters": 8, "workers": workers}).params.train
    split = PreparedSplit(prepared, ["train"])
    expected = list(batches(split, plain, 0))[3:]
    found = list(batches(CachedSamples(split, 4), threaded, 3))
    assert [iteration for iteration, _ in found] == [3, 4, 5, 6, 7]
    for (_, one), (_, other) in zip(expected, found, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.masks, other.masks)


class Reads:
    def __init__(self, split: PreparedSplit) -> None:
        self.split = split
        self.count: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        self.count[index] += 1
        return self.split[index]


def test_samples_are_read_once_as_far_as_the_budget_goes(prepared: Path) -> None:
    reads = Reads(PreparedSplit(prepared, ["train"]))
    size = 48 * 64 * 4
    cached = CachedSamples(reads, 4, budget=3 * size)
    for _ in range(2):
        for index in range(5):
            cached[index]
    assert reads.count == {0: 1, 1: 1, 2: 1, 3: 2, 4: 2}


def test_a_damaged_file_names_itself(make_run: Callable[..., Run], prepared: Path) -> None:
    for path in (prepared / "images/train").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    split = PreparedSplit(prepared, ["train"])
    with pytest.raises(DatasetError, match=r"images/train/scene\d\d\.png cannot be read"):
        list(batches(split, make_run(train={"workers": 2}).params.train, 0))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (
            Sample("a/7", np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 9, np.uint8)),
            "a/7: train id 9 .* 4 classes",
        ),
        (Sample("a/7", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)), r"sample a/7: .*\(4, 5\)"),
    ],
)
def test_a_sample_that_does_not_fit_is_named(make_run: Callable[..., Run], sample: Sample, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        make_batch(CachedSamples([sample], 4), make_run().params.train, 0)


def test_a_broken_sample_is_named(make_run: Callable[..., Run]) -> None:
    class Broken:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            raise ValueError("no such colour")

    with pytest.raises(DatasetError, match="sample 0 cannot be read: no such colour"):
        make_batch(Broken(), make_run().params.train, 0)
