"""Compute with a given number of threads: results on a CPU depend on it, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gald.process.memory import keep_freed_memory


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads for the length of the block, and keep what it frees."""
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
