"""What predicting takes of memory: said before an evaluation begins, and by name where it runs out."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from gald.errors import GaldError, ParamsError
from gald.evaluate.predictor import Predictor
from gald.process.memory import free_bytes, is_out_of_memory

_REMEDY = "choose another evaluate.protocol (`--protocol`), of fewer or smaller scales or a smaller window"
_LOG = logging.getLogger("gald.evaluate")


def check(name: str, predictor: Predictor, sizes: Iterable[tuple[int, int]], *, tell: bool) -> None:
    """Say what the largest of the images will take, and refuse it if there is less.

    Where a GPU predicts, nothing is said: the scores lie in its memory, of which there is enough for them.

    Parameters
    ----------
    name : str
        What is evaluated.
    predictor : Predictor
    sizes : iterable of (int, int)
        Height and width of each image, as of its prediction.
    tell : bool
        Say it, rather than refuse alone.

    Raises
    ------
    ParamsError
        Less memory is free than the scores of the largest image take, beside what the network takes for itself: the
        system would end the process, without a word.
    """
    largest = max(sizes, key=math.prod, default=None)
    if largest is None or predictor.model.mean.device.type != "cpu":
        return
    needed, free = predictor.peak_bytes(largest), free_bytes()
    what = f"{predictor.params.protocol.name} on {largest[1]}x{largest[0]} pixels"
    if free is not None and needed > free:
        raise ParamsError(
            f"{name}: {what} takes {_spelled(needed)} of memory beyond the network's own, but {_spelled(free)} are "
            f"free; {_REMEDY}"
        )
    if tell:
        _LOG.info("%s: %s takes up to %s of memory beyond the network's own", name, what, _spelled(needed))


@contextmanager
def named(predictor: Predictor, size: tuple[int, int]) -> Iterator[None]:
    """Let memory that runs out while an image of some size is predicted end in a message.

    Raises
    ------
    GaldError
        Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        device = predictor.model.mean.device
        free = free_bytes() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
        raise GaldError(
            f"memory ran out: {predictor.params.protocol.name} on {size[1]}x{size[0]} pixels takes about "
            f"{_spelled(predictor.peak_bytes(size))} beyond the network's own, free are "
            f"{'unknown' if free is None else _spelled(free)}; {_REMEDY}"
        ) from error


def _spelled(count: int) -> str:
    return f"{max(1, round(count / 1e6))} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
