"""Batches whose order and content are a function of (seed, iteration) alone.

So no loader state is ever saved: a resumed training asks for the batch of the next iteration and gets what an unbroken
one would have got, whatever the number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gald.datasets import IGNORE_INDEX
from gald.datasets._reader import Sample
from gald.errors import DatasetError
from gald.params import TrainParams
from gald.transforms import augment, draw

CACHE_BYTES = 512 << 20  # of decoded samples kept in memory; miniatures and CamVid fit, larger sets stay on disk
_ORDER_STREAM = 0


class Samples(Protocol):
    """A prepared split: samples by index."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """Read one sample."""
        ...


class Batch(NamedTuple):
    """Samples of one iteration.

    Attributes
    ----------
    images : Tensor
        uint8 (N, H, W, 3), RGB.
    masks : Tensor
        uint8 (N, H, W), train ids, 255 where ignored.
    ids : tuple of str
        Names of the samples.
    """

    images: Tensor
    masks: Tensor
    ids: tuple[str, ...]


def sample_indices(seed: int, iteration: int, batch_size: int, length: int) -> list[int]:
    """Choose the samples of an iteration: shuffled epochs, one after the other, cut into batches.

    Parameters
    ----------
    seed, iteration : int
        Seed of the run, and iteration from 0.
    batch_size : int
        Samples per batch; a batch may span two epochs.
    length : int
        Samples in the split.

    Returns
    -------
    list of int
        `batch_size` indices in [0, length).

    Examples
    --------
    >>> sorted(sample_indices(0, 0, 2, 4) + sample_indices(0, 1, 2, 4))
    [0, 1, 2, 3]
    """
    first = iteration * batch_size
    places = (divmod(place, length) for place in range(first, first + batch_size))
    return [int(_epoch_order(seed, epoch, length)[place]) for epoch, place in places]


class CachedSamples:
    """Samples that stay decoded in memory after their first use, as far as a budget goes.

    Parameters
    ----------
    samples : Samples
        Where samples are read from.
    num_classes : int
        Train ids must lie below it, or be ignored.
    budget : int
        Bytes of images and masks to keep.
    """

    def __init__(self, samples: Samples, num_classes: int, budget: int = CACHE_BYTES) -> None:
        self._samples = samples
        self._num_classes = num_classes
        self._budget = budget
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._samples)

    def __getitem__(self, index: int, /) -> Sample:
        """Read one sample, or return it as it was read before.

        Raises
        ------
        DatasetError
            Image and mask do not fit each other or the classes.
        """
        sample = self._kept.get(index)
        if sample is None:
            sample = self._samples[index]
            self._check(sample)
            size = sample.image.nbytes + sample.mask.nbytes
            if size <= self._budget:
                self._budget -= size
                self._kept[index] = sample
        return sample

    def _check(self, sample: Sample) -> None:
        if sample.image.shape != (*sample.mask.shape, 3):
            raise DatasetError(
                f"sample {sample.id}: the image is {sample.image.shape}, the mask {sample.mask.shape}; prepare it again"
            )
        wrong = (sample.mask >= self._num_classes) & (sample.mask != IGNORE_INDEX)
        if wrong.any():
            raise DatasetError(
                f"sample {sample.id}: train id {sample.mask[wrong].max()} in the mask, but there are only "
                f"{self._num_classes} classes; prepare the dataset again"
            )


def make_batch(samples: Samples, params: TrainParams, iteration: int) -> Batch:
    """Read and augment the samples of one iteration.

    Raises
    ------
    DatasetError
        A sample cannot be read; the message names it.
    """
    indices = sample_indices(params.seed, iteration, params.batch_size, len(samples))
    images = np.empty((len(indices), *params.crop_size, 3), np.uint8)
    masks = np.empty((len(indices), *params.crop_size), np.uint8)
    ids = []
    for position, index in enumerate(indices):
        sample = _read(samples, index)
        drawn = draw(params.seed, iteration, position)
        images[position], masks[position] = augment(sample.image, sample.mask, drawn, params)
        ids.append(sample.id)
    return Batch(torch.from_numpy(images), torch.from_numpy(masks), tuple(ids))


def batches(samples: Samples, params: TrainParams, start: int) -> Iterator[tuple[int, Batch]]:
    """Yield (iteration, batch) from iteration `start` up to `params.max_iters`.

    With `params.workers` threads, that many batches are made ahead; decoding and resizing release the interpreter's
    lock, and threads die with the process, whatever kills it.
    """
    iterations = range(start, params.max_iters)
    if params.workers == 0:
        for iteration in iterations:
            yield iteration, make_batch(samples, params, iteration)
        return
    pool = ThreadPoolExecutor(params.workers, "loader")
    ahead: deque[tuple[int, Future[Batch]]] = deque()
    try:
        for iteration in iterations:
            ahead.append((iteration, pool.submit(make_batch, samples, params, iteration)))
            if len(ahead) > params.workers:
                made, future = ahead.popleft()
                yield made, future.result()
        for made, future in ahead:
            yield made, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, _ORDER_STREAM, epoch)).permutation(length)


def _read(samples: Samples, index: int) -> Sample:
    try:
        return samples[index]
    except (OSError, ValueError) as error:
        raise DatasetError(f"sample {index} cannot be read: {error}; run `gald prepare` again") from error
