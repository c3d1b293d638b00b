"""Time and memory of a piece of work on a GPU: in this process, whose allocator counts what tensors take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

_WARM, _ROUNDS = 3, 10


class OnGpu(NamedTuple):
    """Median seconds of a run, its peak memory in bytes beyond what was held before it, and that peak as a whole."""

    seconds: float
    peak_bytes: int
    whole_bytes: int


def on_gpu(run: Callable[[], object]) -> OnGpu:
    """Measure ten runs on the current GPU, after three that do not count."""
    for _ in range(_WARM):
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    taken = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated()
    return OnGpu(statistics.median(taken), peak - before, peak)
