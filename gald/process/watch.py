"""Reasons to stop early: a signal, or the death of the workflow that waits for the result.

A killed Snakemake cannot stop its jobs. A training saves its state first, so it asks for reasons (`watched`); every
other verb may die at any moment without leaving anything half-written, so it just does (`end_with_parent`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # SIGUSR1: how clusters announce a preemption


PARENT = "GALD_PARENT"
"""Environment variable in which the workflow tells its jobs its process id."""
EX_TEMPFAIL = 75  # <sysexits.h>: try again
_LOOK_S = 0.5


class Watch:
    """Collects reasons to stop; the loop asks once an iteration.

    Parameters
    ----------
    patience_s : float or None
        Seconds after a signal in which the loop must have ended, else the process ends where it is: with other
        processes it may wait inside an operation for one that is gone, and never ask.
    """

    def __init__(self, patience_s: float | None = None) -> None:
        self._signal: str | None = None
        self._patience_s = patience_s
        self._timer: threading.Timer | None = None
        self._parent = _parent_to_watch()

    def reason(self) -> str | None:
        """Why to stop now, or None."""
        if self._signal is not None:
            return self._signal
        if self._parent is not None and os.getppid() != self._parent:
            return f"the process that started it ({self._parent}) is gone"
        return None

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Remember a signal; a second interrupt from the keyboard ends the process at once."""
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = f"it was sent {signal.Signals(number).name}"
        if self._patience_s is not None and self._timer is None:
            self._timer = threading.Timer(self._patience_s, os._exit, (EX_TEMPFAIL,))
            self._timer.daemon = True
            self._timer.start()

    def end(self) -> None:
        """The loop has ended: nothing has to be hurried any more."""
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def watched(patience_s: float | None = None) -> Iterator[Watch]:
    """Turn signals into reasons to stop for the length of the block; `patience_s` as in `Watch`."""
    watch = Watch(patience_s)
    if threading.current_thread() is not threading.main_thread():
        yield watch  # Python delivers signals to the main thread only
        return
    before = {number: signal.signal(number, watch.note) for number in _SIGNALS}
    try:
        yield watch
    finally:
        watch.end()
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """End this process within a second of the workflow's death; without a workflow, do nothing."""
    planner = os.environ.get(PARENT)
    if planner is not None:
        threading.Thread(target=_end_after, args=(int(planner),), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(EX_TEMPFAIL)


def _parent_to_watch() -> int | None:
    """Process whose death means that nobody waits for this training; None for one sent to the background by `nohup`."""
    planner = os.environ.get(PARENT)  # told by the workflow, which may die while torch is being imported
    if planner is not None and "TORCHELASTIC_RUN_ID" not in os.environ:  # whose agent stands between
        return int(planner)
    parent = os.getppid()
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        return parent
    try:
        command = Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:
        return None
    return parent if b"snakemake" in command else None
