"""Batches whose order and content are a function of (seed, iteration) alone.

So no loader state is ever saved: a resumed training asks for the batch of the next iteration and gets what an unbroken
one would have got, whatever the number of workers or of processes that share the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gald.datasets import IGNORE_INDEX
from gald.datasets._samples import Sample, WindowedSample
from gald.errors import DatasetError, ParamsError
from gald.params import TrainParams
from gald.transforms import Pixels, augment, draw

CACHE_BYTES = 512 << 20  # of decoded samples kept in memory; miniatures and CamVid fit, larger sets stay on disk
_ORDER_STREAM = 0


class Split(Protocol):
    """A prepared split, whose pixels are decoded from files or lie in a packed store."""

    packed: bool

    @property
    def ids(self) -> Sequence[str]:
        """Names in the order of the samples."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def windowed(self, index: int, /) -> WindowedSample:
        """Read one sample for a crop, its image no further than that takes."""
        ...

    def verified(self, index: int, /) -> Sample:
        """Read one sample and compare it with what was prepared."""
        ...


class Samples(Protocol):
    """What batches are made of."""

    num_classes: int

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Sample | WindowedSample:
        """Read one sample."""
        ...

    def id(self, index: int, /) -> str:
        """Name a sample without reading it."""
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


class CachedSamples:
    """Samples of a split, which stay in memory after they were decoded for the first time, as far as a budget goes.

    Files are held against their digests when first decoded; those that are not kept are decoded from then on as far as
    crops reach. Samples of a packed store, checked as a whole, are not kept: they are views, and the system keeps the
    pages that crops have read.

    Parameters
    ----------
    split : Split
        Where samples are read from.
    num_classes : int
        Train ids must lie below it, or be ignored.
    budget : int
        Bytes of decoded images and masks to keep.
    """

    def __init__(self, split: Split, num_classes: int, budget: int = CACHE_BYTES) -> None:
        self.num_classes = num_classes
        self._split = split
        self._budget = 0 if split.packed else budget
        self._kept: dict[int, Sample] = {}
        self._verified: set[int] = set()
        self._lock = Lock()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._split)

    def __getitem__(self, index: int, /) -> Sample | WindowedSample:
        """Read one sample, or return it as it was read before.

        Raises
        ------
        DatasetError
            The sample cannot be read or is not what was prepared; the message names it.
        """
        if (sample := self._kept.get(index)) is not None:
            return sample
        try:
            if self._split.packed or index in self._verified:
                return self._split.windowed(index)
            sample = self._split.verified(index)
        except (DatasetError, OSError, ValueError) as error:
            remedy = "" if isinstance(error, DatasetError) else "; run `gald prepare` again"
            raise DatasetError(f"sample {self.id(index)}: {error}{remedy}") from error
        size = sample.image.nbytes + sample.mask.nbytes
        with self._lock:
            self._verified.add(index)
            if size <= self._budget and index not in self._kept:
                self._budget -= size
                self._kept[index] = sample
        return sample

    def id(self, index: int, /) -> str:
        """Name a sample without reading it."""
        return self._split.ids[index]


class _Plan(NamedTuple):
    """A batch before it is made: its memory, and one job for each sample, which fills its place and returns its id."""

    images: Tensor
    masks: Tensor
    jobs: list[Callable[[], str]]

    def batch(self, ids: Iterable[str]) -> Batch:
        """Batch whose jobs returned these ids."""
        return Batch(self.images, self.masks, tuple(ids))


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


def make_batch(samples: Samples, params: TrainParams, iteration: int, *, rank: int = 0, world: int = 1) -> Batch:
    """Make one process's share of one iteration's batch; parameters and errors are those of `batches`."""
    plan = _plan(samples, params, iteration, _share(params.batch_size, rank, world))
    return plan.batch(job() for job in plan.jobs)


def batches(
    samples: Samples, params: TrainParams, start: int, *, rank: int = 0, world: int = 1
) -> Iterator[tuple[int, Batch]]:
    """Yield (iteration, batch) from iteration `start` up to `params.max_iters`.

    With `params.workers` threads, samples are made ahead, several of one batch side by side; decoding and resizing
    release the interpreter's lock. The threads end with the iterator, and with the process, whatever kills it.

    Parameters
    ----------
    samples : Samples
        Where samples are read from.
    params : TrainParams
        The recipe; `batch_size` is that of all processes together.
    start : int
        First iteration.
    rank, world : int
        Which process this is, from 0, and how many share each batch: its places are cut into `world` equal runs.

    Raises
    ------
    DatasetError
        A sample cannot be read or does not fit the classes; the message names it.
    ParamsError
        The batch cannot be shared evenly.
    """
    share = _share(params.batch_size, rank, world)
    plans = ((iteration, _plan(samples, params, iteration, share)) for iteration in range(start, params.max_iters))
    if params.workers == 0:
        return ((iteration, plan.batch(job() for job in plan.jobs)) for iteration, plan in plans)
    return _made_ahead(plans, params.workers, ahead=1 + -(-params.workers // len(share)))


def _made_ahead(plans: Iterator[tuple[int, _Plan]], workers: int, ahead: int) -> Iterator[tuple[int, Batch]]:
    """Make the samples of that many batches ahead of the one that is asked for."""
    # torch's own threads would multiply with these; its setting is the calling thread's alone.
    pool = ThreadPoolExecutor(workers, "loader", torch.set_num_threads, (1,))
    waiting: deque[tuple[int, _Plan, list[Future[str]]]] = deque()
    try:
        for iteration, plan in plans:
            waiting.append((iteration, plan, [pool.submit(job) for job in plan.jobs]))
            if len(waiting) > ahead:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(iteration: int, plan: _Plan, futures: list[Future[str]]) -> tuple[int, Batch]:
    return iteration, plan.batch(future.result() for future in futures)


def _share(batch_size: int, rank: int, world: int) -> range:
    """Places in the batch that one of several processes fills."""
    if batch_size % world:
        raise ParamsError(
            f"train.batch_size {batch_size} cannot be shared evenly by {world} processes; make it a multiple of {world}"
        )
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is none of {world} processes")
    size = batch_size // world
    return range(rank * size, (rank + 1) * size)


def _plan(samples: Samples, params: TrainParams, iteration: int, share: range) -> _Plan:
    indices = sample_indices(params.seed, iteration, params.batch_size, len(samples))
    pinned = params.device == "cuda" and torch.cuda.is_available()  # fetched by a GPU while this process goes on
    empty = partial(torch.empty, dtype=torch.uint8, pin_memory=pinned)
    images, masks = empty((len(share), *params.crop_size, 3)), empty((len(share), *params.crop_size))
    jobs: list[Callable[[], str]] = [
        partial(_make_sample, samples, params, iteration, indices[place], (image, mask))
        for image, mask, place in zip(images.numpy(), masks.numpy(), share, strict=True)
    ]
    return _Plan(images, masks, jobs)


def _make_sample(samples: Samples, params: TrainParams, iteration: int, index: int, out: tuple[Pixels, Pixels]) -> str:
    """Read and augment one sample into its place in the batch; return its id."""
    try:
        sample = samples[index]
        if sample.image.shape != (*sample.mask.shape, 3):
            raise DatasetError(
                f"sample {sample.id}: the image is {sample.image.shape}, the mask {sample.mask.shape}; prepare it again"
            )
        augment(sample.image, sample.mask, draw(params.seed, iteration, index), params, out=out)
        _check_train_ids(sample.id, out[1], samples.num_classes)
    except DatasetError:
        raise
    except Exception as error:
        error.add_note(f"while making sample {samples.id(index)} of iteration {iteration}")
        raise
    return sample.id


def _check_train_ids(sample_id: str, mask: Pixels, num_classes: int) -> None:
    """Check the crop alone: the rest of a packed mask is never read."""
    if (mask + np.uint8(1)).max() <= num_classes:  # the ignored 255 becomes 0: two quick passes
        return
    raise DatasetError(
        f"sample {sample_id}: train id {mask[mask != IGNORE_INDEX].max()} in the mask, but there are only "
        f"{num_classes} classes; prepare the dataset again"
    )


@lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, _ORDER_STREAM, epoch)).permutation(length)
