"""Rests of a process that must not slow down others: so long that it takes a hundredth of a core from them at most.

A low priority alone does not keep that promise. A process of the lowest takes several percent of a busy core, and a
training on all cores waits for the one that was taken. So whoever had to share the processor rests in proportion to
what it used of it. The kernel tells: it counts how often it took the processor away for somebody else, every few
milliseconds where others want it all the time. Beside an idle core that is rare, and there is no rest.
"""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

_SHARE = 0.01
_LONGEST_REST_S = 60.0
_LOOK_S = 0.01  # of processor time
_SHARED = (2, 100)  # processor taken away at least so often, and so often in a second of its time


class _Look(NamedTuple):
    """Seconds of processor time and of the clock, and how often the processor was taken away."""

    used: float
    clock: float
    taken_away: int


class Courtesy:
    """Tells how long to rest for the processor time used since it was asked last."""

    def __init__(self) -> None:
        self._last = self._look()

    def due_s(self) -> float:
        """Seconds to rest, 0 where this process had a core to itself."""
        before, self._last = self._last, self._look()
        used = self._last.used - before.used
        least, each_second = _SHARED
        often = self._last.taken_away - before.taken_away >= max(least, each_second * used)
        waited = self._last.clock - before.clock >= 2 * used
        return min(used / _SHARE, _LONGEST_REST_S) if often and waited else 0.0

    def _look(self) -> _Look:
        found = resource.getrusage(resource.RUSAGE_SELF)
        return _Look(found.ru_utime + found.ru_stime, time.monotonic(), found.ru_nivcsw)


@contextmanager
def resting() -> Iterator[None]:
    """Rest again and again in the block, which may be one long call; not while others wait for a lock that is held."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread alone
        return
    courtesy = Courtesy()

    def rest(*_: object) -> None:
        time.sleep(courtesy.due_s())
        courtesy.due_s()  # the rest itself was no waiting

    before = signal.signal(signal.SIGPROF, rest)
    signal.setitimer(signal.ITIMER_PROF, _LOOK_S, _LOOK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
