"""The archives of one benchmark side by side: one that fails lets the others end, an interrupt ends all at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from gald.errors import ArchiveError

T = TypeVar("T")
R = TypeVar("R")

WORKERS = 4
_LEAVE_S = 0.5
"""Seconds in which threads that are told to stop may do so; one that waits for a silent server does not."""


def in_parallel(work: Callable[[T, threading.Event], R], items: Sequence[T]) -> list[R | ArchiveError]:
    """Apply `work` to each item, several at a time.

    Threads are daemons and not a pool's, whose threads the interpreter waits for before it ends: one that hangs on a
    silent server would hold up an interrupted command for the length of a timeout.

    Parameters
    ----------
    work : callable
        Takes an item and an event, which is set when the others' results no longer matter.
    items : sequence
        What to work on.

    Returns
    -------
    list
        In the order of the items: what `work` returned, or the `ArchiveError` that it raised.

    Raises
    ------
    Exception
        Any other error of `work`, as that of a full disk; the others are stopped.
    """
    stop = threading.Event()
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[int, R | BaseException]] = queue.SimpleQueue()
    for number in range(len(items)):
        waiting.put(number)

    def run() -> None:
        while not stop.is_set():
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                ended.put((number, work(items[number], stop)))
            except BaseException as error:
                ended.put((number, error))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(WORKERS, len(items)))]
    for thread in threads:
        thread.start()
    results: dict[int, R | ArchiveError] = {}
    try:
        while len(results) < len(items):
            number, result = ended.get()
            if isinstance(result, BaseException) and not isinstance(result, ArchiveError):
                raise result
            results[number] = result
    finally:
        stop.set()
        deadline = time.monotonic() + _LEAVE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    return [results[number] for number in range(len(items))]
