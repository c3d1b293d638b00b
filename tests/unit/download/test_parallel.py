"""Archives side by side: order, failures of one, and errors that end all."""

import threading
import time

import pytest

from gald.download import parallel
from gald.download.parallel import in_parallel
from gald.errors import ArchiveError


def test_order_and_failures_of_parallel_work() -> None:
    running: set[int] = set()
    most = 0
    lock = threading.Lock()

    def work(number: int, _: threading.Event) -> int:
        nonlocal most
        with lock:
            running.add(number)
            most = max(most, len(running))
        time.sleep(0.02 * (number % 3))
        with lock:
            running.discard(number)
        if number == 5:
            raise ArchiveError("five")
        return number

    results = in_parallel(work, range(9))
    assert [str(result) for result in results] == ["0", "1", "2", "3", "4", "five", "6", "7", "8"]
    assert 2 <= most <= parallel.WORKERS


def test_an_error_of_another_kind_ends_all_at_once() -> None:
    started, stopped = threading.Barrier(3), threading.Event()

    def work(number: int, stop: threading.Event) -> None:
        if number == 0:
            started.wait(60)  # the others are under way
            raise OSError("disk full")
        started.wait(60)
        if stop.wait(60):
            stopped.set()

    with pytest.raises(OSError, match="disk full"):
        in_parallel(work, range(3))
    assert stopped.wait(60)
