"""Work spread over processes: few samples in flight, results as they come, and no worker that outlives its parent.

Each worker has a pipe of its own, on which it is asked for one portion at a time. So a worker that is killed, at
whatever moment, is an end of file; the standard library's executors share a queue, and wait for ever on a message that
a killed worker had half written.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from gald.errors import DatasetError
from gald.process.watch import EX_TEMPFAIL

T = TypeVar("T")
R = TypeVar("R")

_FEWEST = 32  # samples per process: starting one takes as long as converting some hundred small samples
_TOGETHER = 8  # samples asked for at a time: what a kill loses at most, for each process


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
    Exception
        Whatever `work` raises.
    """
    if processes <= 1:
        yield from map(work, tasks)
        return
    family: dict[Connection[Any, Any], SpawnProcess] = {}
    try:
        for _ in range(processes):
            pipe, process = _start(work)
            family[pipe] = process
        yield from _served(family, tasks)
    finally:
        for pipe, process in family.items():
            pipe.close()
            process.terminate()  # at once, as what it has not finished is not trusted anyway
            process.join()


def _start(work: Callable[[T], R]) -> tuple[Connection[Any, Any], SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, work), daemon=True)
    process.start()
    there.close()  # so that the worker's death closes the pipe
    return here, process


def _served(family: dict[Connection[Any, Any], SpawnProcess], tasks: Sequence[T]) -> Iterator[Any]:
    """Ask every idle worker for the next portion, and yield what comes back."""
    portions = (tasks[start : start + _TOGETHER] for start in range(0, len(tasks), _TOGETHER))
    busy: set[Connection[Any, Any]] = set()
    for pipe, portion in zip(family, portions, strict=False):
        with _noticed(len(family)):
            pipe.send(portion)
        busy.add(pipe)
    while busy:
        for ready in connection.wait(list(busy)):
            assert isinstance(ready, Connection)
            with _noticed(len(family)):
                error, results = ready.recv()
            if error is not None:
                raise error
            following = next(portions, None)
            if following is None:
                busy.remove(ready)
            else:
                with _noticed(len(family)):
                    ready.send(following)
            yield from results


@contextmanager
def _noticed(processes: int) -> Iterator[None]:
    """Turn a broken pipe, whose other end died, into words."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise DatasetError(
            "a process that converts samples was ended from outside, as by a machine out of memory: make memory free "
            f"or set prepare.processes below {processes}, then repeat the command; it goes on"
        ) from error


def _serve(pipe: Connection[Any, Any], work: Callable[[Any], Any]) -> None:
    """Answer portions until the pipe is closed; an interrupt from the keyboard is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            portion = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[Exception | None, list[Any]] = (None, [work(task) for task in portion])
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = (error, [])
        pipe.send(answer)


def _end_with_parent() -> None:
    """End this worker in the middle of its work when its parent is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    connection.wait([parent.sentinel])
    os._exit(EX_TEMPFAIL)
