import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

from gald.errors import DatasetError
from gald.prepare import pool
from tests.processes import alive, wait_until


def double(number: int) -> int:
    return 2 * number


def test_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert pool.workers(None, 10_000) == 6
    assert pool.workers(None, 100) == 3
    assert pool.workers(8, 10_000) == 8
    assert pool.workers(8, 0) == 1


def test_everything_comes_once() -> None:
    assert list(pool.spread(double, range(5), 1)) == [0, 2, 4, 6, 8]
    # operator.mul can be sent to a process that does not know this file
    found = sorted(pool.spread(partial(pow, 2), range(100), 2))
    assert found == [2**k for k in range(100)]


def test_errors_of_the_work_arrive() -> None:
    with pytest.raises(ZeroDivisionError):
        list(pool.spread(partial(divmod, 1), [1, 1, 0, 1], 2))


def test_an_error_tells_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        list(pool.spread(os.stat, [tmp_path / "absent"] * 9, 2))
    assert caught.value.filename == str(tmp_path / "absent")
    assert "Traceback" in caught.value.__notes__[0]


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_killed_while_it_answers(which: int) -> None:
    """A half-written answer must not be waited for."""
    results = pool.spread(partial(bytes.ljust, b"x"), [1 << 20] * 160, 2)
    next(results)
    time.sleep(0.3)  # both now write an answer that no pipe holds, to a parent that does not read
    sorted(multiprocessing.active_children(), key=lambda process: process.pid or 0)[which].kill()
    with pytest.raises(DatasetError, match="ended from outside"):
        list(results)
    assert not multiprocessing.active_children()


def test_a_worker_that_is_ended_from_outside() -> None:
    with pytest.raises(DatasetError, match=r"prepare\.processes below 2, then repeat the command; it goes on"):
        list(pool.spread(os._exit, [9], 2))


def test_few_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []

    class Tasks:
        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, part: slice) -> list[int]:
            handed.extend(range(part.start, part.stop))
            return list(range(part.start, part.stop))

    results = pool.spread(partial(pow, 2), Tasks(), 1 + 1)  # type: ignore[arg-type]
    next(results)
    assert len(handed) <= 3 * 8  # a portion for each process, and the one that follows the first answer
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(end: signal.Signals) -> None:
    code = """
        import multiprocessing, time
        from gald.prepare.pool import spread
        if __name__ == "__main__":
            for _ in spread(time.sleep, [0.01] * 32 + [60] * 32, 2):
                print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    children = [int(child) for child in process.stdout.readline().split()]
    assert len(children) >= 2
    process.send_signal(end)
    process.communicate()
    wait_until(lambda: not any(map(alive, children)))


def test_an_interrupt_is_the_parents_business() -> None:
    code = """
        import os, signal, sys, time
        from gald.prepare.pool import spread
        if __name__ == "__main__":
            try:
                for _ in spread(time.sleep, [0.02] * 500, 2):
                    print("up", flush=True)
            except KeyboardInterrupt:
                sys.exit(130)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)  # as the keyboard does: to all of them
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == ""  # no worker's traceback
