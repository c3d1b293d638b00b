"""Processes as tests look at them: who lives, who started whom; and waiting for what a busy machine does late."""

import time
from collections.abc import Callable
from pathlib import Path


def _stat(process: int | str) -> list[str]:
    """What the kernel says of a process: its state, its parent, and so on; nothing of one that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and is not yet waited for does not."""
    return (_stat(process) or ["Z"])[0] != "Z"


def children(process: int) -> list[int]:
    """Processes that another has started, the oldest first; not every kernel keeps a list of them."""
    numbers = [path.name for path in Path("/proc").glob("[0-9]*")]
    return sorted(int(number) for number in numbers if _stat(number)[1:2] == [str(process)])


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait for what comes soon on a quiet machine."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for never happened"
        time.sleep(0.002)
