"""Samples that cannot be read or do not fit are named."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald.datasets._reader import PreparedSplit
from gald.datasets._samples import Sample
from gald.errors import DatasetError
from gald.params import Run
from gald.train.loader import Batch, CachedSamples, batches, make_batch
from tests.unit.train.given import Given, loader_threads, samples


def test_a_file_is_held_against_its_digest_when_it_is_first_decoded(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []
    real = PreparedSplit.verified
    monkeypatch.setattr(PreparedSplit, "verified", lambda split, index: hashed.append(index) or real(split, index))
    cached = CachedSamples(PreparedSplit(prepared, ["train"], store="files"), 4, budget=0)
    for index in (0, 1, 0, 1):
        cached[index]
    assert hashed == [0, 1]  # which is dear enough to be done once
    Image.fromarray(np.ones((48, 64), np.uint8)).save(prepared / "masks/train/scene02.png")
    for _ in range(2):  # what failed once is not trusted the next time
        with pytest.raises(
            DatasetError, match=r"sample train/scene02: .*scene02\.png does not hold .*gald prepare mini/camvid"
        ):
            cached[2]


def test_a_file_that_changes_after_it_was_verified_is_named(make_run: Callable[..., Run], prepared: Path) -> None:
    params = make_run().params.train
    split = PreparedSplit(prepared, ["train"], store="files")
    cached = CachedSamples(split, 4, budget=0)
    for index in range(len(split)):
        cached[index]
    for path in (prepared / "images/train").iterdir():
        Image.new("RGB", (63, 48)).save(path)
    with pytest.raises(
        DatasetError, match=r"scene\d\d\.png changed its size meanwhile; run `gald prepare mini/camvid`"
    ):
        make_batch(cached, params, 0)
    for path in (prepared / "images/train").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DatasetError, match=r"scene\d\d\.png cannot be read"):
        make_batch(cached, params, 0)


def test_a_damaged_file_and_its_sample_are_named(make_run: Callable[..., Run], prepared: Path) -> None:
    for path in (prepared / "images/train").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    split = PreparedSplit(prepared, ["train"], store="files")
    message = r"sample train/scene(\d\d): .*images/train/scene\1\.png cannot be read"
    for workers in (0, 2):
        with pytest.raises(DatasetError, match=message):
            list(batches(CachedSamples(split, 4), make_run(train={"workers": workers}).params.train, 0))
        assert loader_threads() == []


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (
            Sample("a/7", np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 9, np.uint8)),
            "sample a/7: train id 9 .* 4 classes",
        ),
        (Sample("a/7", np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 254, np.uint8)), "a/7: train id 254"),
        (Sample("a/7", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)), r"sample a/7: .*\(4, 5\)"),
    ],
)
def test_a_sample_that_does_not_fit_is_named(make_run: Callable[..., Run], sample: Sample, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        make_batch(CachedSamples(Given([sample]), 4), make_run().params.train, 0)


def test_the_last_class_and_ignored_pixels_fit(make_run: Callable[..., Run]) -> None:
    mask = np.array([[3, 255], [0, 255]], np.uint8).repeat(30, 0).repeat(30, 1)
    sample = Sample("a/7", np.zeros((60, 60, 3), np.uint8), mask)
    found = make_batch(CachedSamples(Given([sample]), 4), make_run().params.train, 0).masks
    assert set(found.unique().tolist()) <= {0, 3, 255}


class Broken(Given):
    """A split of which one sample fails, with an error of choice."""

    def __init__(self, error: Exception, after: int = 0) -> None:
        super().__init__(samples())
        self.error = error
        self.after = after

    def __getitem__(self, index: int) -> Sample:
        if sum(self.count.values()) >= self.after:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_names_the_sample_and_ends_the_threads(make_run: Callable[..., Run], workers: int) -> None:
    params = make_run(train={"workers": workers}).params.train
    with pytest.raises(DatasetError, match=r"sample town/\d\d: no such colour; run `gald prepare`"):
        list(batches(CachedSamples(Broken(ValueError("no such colour")), 4), params, 0))
    with pytest.raises(RuntimeError, match="out of luck") as caught:
        list(batches(CachedSamples(Broken(RuntimeError("out of luck"), after=6), 4, budget=0), params, 0))
    assert "while making sample town/" in caught.value.__notes__[0]
    assert loader_threads() == []


def test_what_was_made_before_an_error_still_comes(make_run: Callable[..., Run]) -> None:
    params = make_run(train={"workers": 1}).params.train
    made: Iterator[tuple[int, Batch]] = batches(CachedSamples(Broken(OSError("gone"), after=8), 4, budget=0), params, 0)
    assert [iteration for iteration, _ in islice(made, 2)] == [0, 1]
    with pytest.raises(DatasetError, match="gone"):
        next(made)
