"""Predict and count images: every process of a group its share of them, and after a kill only what is left.

What is counted depends on the run, its params and the images, never on how many processes shared them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from gald import files, paths, provenance
from gald.evaluate import memory
from gald.evaluate.journal import Journal
from gald.evaluate.predictor import Predictor
from gald.metrics import Mask
from gald.metrics.counts import Layout, count_image
from gald.params import EvaluateParams, Run
from gald.process.ranks import ranks

_TELL_EVERY_S = 15.0
_STARTED = ("MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")  # the same for processes of one start
_LOG = logging.getLogger("gald.evaluate")

Pixels: TypeAlias = npt.NDArray[np.uint8]
Keep: TypeAlias = Callable[[int, Pixels, Mask], None]
"""Takes the index of an image, its pixels and its predicted mask."""


class Images(Protocol):
    """Images in a fixed order, each with an id, and with a truth where there is one."""

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of image `i`, without reading it."""

    @property
    def ids(self) -> Sequence[str]:
        """Ids in the order of the images."""

    def verified_pixels(self, i: int) -> tuple[Pixels, Mask | None]:
        """Read image `i`, uint8 (h, w, 3), and its truth, uint8 (h, w)."""


class Place(NamedTuple):
    """Which of several processes this is, as torchrun says it, which of its machine's, and of which start."""

    rank: int
    size: int
    local: int
    group: str


def place() -> Place:
    """Read from the environment which of several processes this is.

    Raises
    ------
    ParamsError
        What torchrun sets is there, but is not what torchrun sets.
    """
    rank, size, local = ranks()
    started = [os.environ.get(name, "") for name in _STARTED]
    return Place(rank, size, local, " ".join(started).strip() if size > 1 else "")


def identity(run: Run, params: EvaluateParams, images: str, layout: Layout) -> str:
    """Digest of all that decides what is counted, as 64 hex digits; `images` is a digest of what they are."""
    return files.digest([state(run), images, params.model_dump(mode="json"), list(layout.area_edges)])


def state(run: Run) -> str:
    """Digest of who counts, as 64 hex digits: a run's weights, the code and its libraries."""
    libraries = [torch.__version__, np.__version__]  # their last bits may differ: half of each would be neither
    return files.digest([files.sha256(paths.run_json(run.name)), provenance.code_digest(), libraries])


def count_images(
    name: str, images: Images, predictor: Predictor, journal: Journal, layout: Layout, shared: Place, keep: Keep
) -> None:
    """Predict and count this process's share of the images that nobody has counted yet.

    Parameters
    ----------
    name : str
        What is evaluated, for messages.
    images : Images
        One without a truth is predicted, and noted without counts.
    predictor : Predictor
    journal : Journal
        Knows what is counted, and takes the counts.
    layout : Layout
    shared : Place
        Which of several processes this is.
    keep : callable
        Is shown every prediction before it is noted, so that whatever it keeps is there after a kill.

    Raises
    ------
    DatasetError
        An image is damaged.
    ParamsError
        The protocol takes more memory than there is.
    GaldError
        Memory ran out.
    """
    done, total = journal.indices(), len(images.ids)
    left = [index for index in range(shared.rank, total, shared.size) if index not in done]
    if done and shared.rank == 0:
        _LOG.info("%s: going on after %d of %d images", name, len(done), total)

    def predicted() -> Iterator[tuple[int, Mask | None, Mask]]:
        for index in left:
            image, truth = images.verified_pixels(index)
            height, width = (image if truth is None else truth).shape[:2]
            with memory.named(predictor, (height, width)):
                mask = predictor(image, (height, width))
                keep(index, image, mask)
            yield index, truth, mask

    memory.check(name, predictor, map(images.size, left), tell=shared.rank == 0)
    counters = 0 if predictor.model.mean.device.type == "cpu" else predictor.params.threads
    told = time.monotonic()
    for number, (index, counts) in enumerate(counted(predicted(), layout, counters), 1):
        journal.append(index, counts)
        if shared.rank == 0 and time.monotonic() - told > _TELL_EVERY_S:
            told = time.monotonic()
            counted_by_all = max(0, total - (len(left) - number) * shared.size)  # the others are about as far
            _LOG.info("%s: %d of %d images", name, counted_by_all, total)


def counted(
    predicted: Iterable[tuple[int, Mask | None, Mask]], layout: Layout, counters: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Count images in threads beside the one that predicts: a GPU need not wait for what a CPU counts.

    What a GPU predicts is counted on the CPU too. Boundaries and objects need the mask there, one byte a pixel, and the
    confusion matrix falls out of the counts of its rings: on the device it would be counted a second time, to save 2 ms
    of the 75 that an image of 2048x1024 takes. Validation while training, which asks for no more than the matrix,
    counts it where it is (`gald.metrics.confusion_on_device`).

    Parameters
    ----------
    predicted : iterable of (int, uint8 array (H, W) or None, uint8 array (H, W))
        Index, truth if there is one, and prediction of each image.
    layout : Layout
    counters : int
        Threads; with 0 the caller's own counts, and as many as twice the threads wait for their turn.

    Yields
    ------
    int, dict
        Index and counts, in the order given; none where there is no truth.
    """

    def count(truth: Mask | None, prediction: Mask) -> dict[str, Any]:
        return {} if truth is None else count_image(truth, prediction, layout)

    if counters == 0:
        for index, truth, prediction in predicted:
            yield index, count(truth, prediction)
        return
    waiting: list[tuple[int, Future[dict[str, Any]]]] = []
    with ThreadPoolExecutor(counters) as pool:
        for index, truth, prediction in predicted:
            waiting.append((index, pool.submit(count, truth, prediction)))
            if len(waiting) > 2 * counters:
                oldest, future = waiting.pop(0)
                yield oldest, future.result()
        for index, future in waiting:
            yield index, future.result()
