"""Work spread over processes: few samples in flight, results as they come, and no worker that outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection
from typing import TypeVar

from gald.errors import DatasetError
from gald.watch import EX_TEMPFAIL

T = TypeVar("T")
R = TypeVar("R")

_FEWEST = 32  # samples per process: starting one takes as long as converting some hundred small samples
_TOGETHER = 8  # tasks sent to a process at a time: what a kill loses at most, for each process
_WINDOW = 3  # such portions per process that are handed out and not yet done


def workers(asked: int | None, tasks: int) -> int:
    """Choose the number of processes: what was asked for, or the usable cores, and fewer for few tasks.

    Examples
    --------
    >>> workers(4, 1000), workers(4, 70), workers(4, 3)
    (4, 2, 1)
    """
    most = len(os.sched_getaffinity(0)) if asked is None else asked
    return max(1, min(most, tasks // _FEWEST))


def spread(work: Callable[[T], R], tasks: Sequence[T], processes: int) -> Iterator[R]:
    """Do the tasks in this process, or in several; yield results in order of completion.

    Parameters
    ----------
    work : callable
        Can be sent to another process.
    tasks : sequence
        Handed out in this order, a few at a time.
    processes : int
        1 works in this process.

    Raises
    ------
    DatasetError
        A worker was ended from outside.
    """
    if processes <= 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin)
    try:
        portions = (tasks[start : start + _TOGETHER] for start in range(0, len(tasks), _TOGETHER))
        yield from _completed(pool, work, portions, _WINDOW * processes)
    except BrokenProcessPool as error:
        raise DatasetError(
            "a process that converts samples was ended from outside, as by a machine out of memory: make memory free "
            f"or set prepare.processes below {processes}, then repeat the command; it goes on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _completed(
    pool: ProcessPoolExecutor, work: Callable[[T], R], portions: Iterator[Sequence[T]], window: int
) -> Iterator[R]:
    pending: set[Future[list[R]]] = {pool.submit(_each, work, portion) for portion in islice(portions, window)}
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        pending |= {pool.submit(_each, work, portion) for portion in islice(portions, len(done))}
        for future in done:
            yield from future.result()


def _each(work: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
    return [work(task) for task in tasks]


def _begin() -> None:
    """Leave an interrupt from the keyboard to the parent, and end when the parent does, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    connection.wait([parent.sentinel])
    os._exit(EX_TEMPFAIL)
