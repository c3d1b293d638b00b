"""What a piece of work needs: the most memory it holds beyond what was there before, and its seconds.

Each measurement is a process of its own, so that no other work's memory is reused and none of its settings remain.

Memory is what the kernel has handed out (the high-water mark of the resident set), not what tensors add up to: the
workspaces of convolutions and matrix products are in it. In that process freed blocks go back to the kernel at once,
and the mathematics library keeps no buffers; the work has been done once before, so that code and threads are there.
Otherwise a first call would count the loading of kernels, and a second one would find kept memory and count too little.

Time is taken in another process, with the allocator as a training has it. Works that are compared are done in turn,
round by round, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gald.errors import GaldError

_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_HIGH_WATER = "5"  # proc(5), clear_refs
_M_MMAP_THRESHOLD = -3  # <malloc.h>; set, it no longer grows with what is freed
_THRESHOLD_BYTES = 64 << 10


class Work(NamedTuple):
    """A piece of work that another process can find.

    Attributes
    ----------
    function : str
        ``package.module:name`` of a function that makes everything ready and returns the work, which takes nothing.
    arguments : tuple
        What the function takes, of what JSON knows: numbers, strings, lists (a tuple arrives as one), None.
    """

    function: str
    arguments: tuple[Any, ...] = ()


class Held(NamedTuple):
    """One run that was watched: its peak memory in bytes beyond what was there, and its seconds.

    The seconds are those of an allocator that gives everything back; `seconds` takes better ones.
    """

    peak_bytes: int
    seconds: float


def peak_bytes(work: Work, *, threads: int) -> int:
    """Most memory held at a time by one run of the work, beyond what was held before it; see `held`."""
    return held(work, threads=threads).peak_bytes


def held(work: Work, *, threads: int) -> Held:
    """Watch one run of the work, which the process has done once before.

    Parameters
    ----------
    work : Work
        What its function holds when it returns (weights, inputs, gradients already there) does not count.
    threads : int
        Threads of torch.

    Raises
    ------
    GaldError
        The work failed, or this system does not tell a process's memory as Linux does.
    """
    if not _STATUS.exists():
        raise GaldError(f"{_STATUS} is missing: peak memory can be measured on Linux alone")
    return Held(*_apart("peak", [work], threads, 1))


def seconds(works: Sequence[Work], *, threads: int, rounds: int) -> list[tuple[float, ...]]:
    """Seconds of each round of each work, in turn, after one round that does not count.

    Raises
    ------
    GaldError
        A work failed.
    """
    return [tuple(found) for found in _apart("seconds", works, threads, rounds)]


def _apart(what: str, works: Sequence[Work], threads: int, rounds: int) -> list[Any]:
    """Run this file as a process and return what it found."""
    asked = json.dumps([what, works, threads, rounds])
    settings = {"OMP_NUM_THREADS": str(threads)} | ({"MKL_DISABLE_FAST_MM": "1"} if what == "peak" else {})
    command = [sys.executable, "-m", "gald.bench._memory", asked]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["killed, perhaps for want of memory"])[-1]
        raise GaldError(f"measuring {works[0].function} failed: {last}")
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _ready(work: Sequence[Any]) -> Callable[[], object]:
    module, name = work[0].split(":")
    run: Callable[[], object] = getattr(importlib.import_module(module), name)(*work[1])
    return run


def _own_peak(run: Callable[[], object]) -> Held:
    """Peak of this process during a second run, beyond what it held before that run."""
    run()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _REFERENCES.write_text(_RESET_HIGH_WATER)
    before = _status("VmRSS")
    start = time.perf_counter()
    run()
    return Held(_status("VmHWM") - before, time.perf_counter() - start)


def _status(field: str) -> int:
    """Bytes that the kernel tells of this process."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _own_seconds(runs: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds + 1):
        for run, of_run in zip(runs, taken, strict=True):
            start = time.perf_counter()
            run()
            of_run.append(time.perf_counter() - start)
    return [of_run[1:] for of_run in taken]


def _main(asked: str) -> None:
    """Measure in this process what another one asked for, and write it to stdout as JSON."""
    what, works, threads, rounds = json.loads(asked)
    if what == "peak":  # before anything is loaded that allocates
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
    import torch

    from gald.process.memory import keep_freed_memory

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if what == "peak":
        found: list[Any] = list(_own_peak(_ready(works[0])))
    else:
        keep_freed_memory()
        found = _own_seconds([_ready(work) for work in works], rounds)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1])
