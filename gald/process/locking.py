"""One process at a time for a run: a lock that the operating system drops when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gald import paths
from gald.errors import RunBusy

WAIT_S = 15.0
"""Seconds that a stage waits for its lock: a job whose workflow was killed notices soon, and needs a moment to end."""
_LOOK_S = 0.1


@contextmanager
def held(name: str, *, wait_s: float, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock `name` for the length of the block.

    Parameters
    ----------
    name : str
        What is locked, for example a run's name.
    wait_s : float
        Seconds to wait for another holder to end; ``math.inf`` waits without limit.
    say : callable, optional
        Told once whom the wait is for.

    Raises
    ------
    RunBusy
        Another process still holds it; the message says which.
    """
    path = paths.lock(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with path.open("a+", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                if time.monotonic() >= deadline:
                    raise RunBusy(
                        f"{name} is busy: {holder} holds {path}; wait for it to end or stop it, then repeat the command"
                    ) from None
                if say is not None:
                    say(f"waiting for {holder}, which holds {path}")
                    say = None
                time.sleep(_LOOK_S)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def is_held(name: str) -> bool:
    """Whether a process holds the lock `name`; a lock that cannot be looked at counts as free."""
    try:
        with paths.lock(name).open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def wait_until_free(name: str, *, say: Callable[[str], None]) -> None:
    """Wait for whoever holds the lock `name` to end; return at once if nobody does.

    Parameters
    ----------
    name : str
        What is locked.
    say : callable
        Told once whom the wait is for.
    """
    path = paths.lock(name)
    if not path.exists():
        return
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {file.read().strip() or 'another process'}, which holds {path}")
            fcntl.flock(file, fcntl.LOCK_SH)
