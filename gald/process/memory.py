"""Memory: what is free, whether it ran out, and keeping what was freed for the next iteration.

glibc returns large blocks to the kernel as soon as they are freed. A training step allocates the same hundreds of
megabytes each time, and the kernel must zero every page anew: for 171 classes at full resolution that was 41 % of the
processor time. No bit of a result depends on it.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h>
_TRIM_BYTES = 2**31 - 1  # the largest that fits the call's int
_PAD_BYTES = 64 << 20
_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_FILES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_FILES_V2 = ("memory.max", "memory.current", "inactive_file")
"""Limit and use of a control group, and what of the use are files that would be given back."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; elsewhere do nothing.

    Returns
    -------
    bool
        Whether the allocator took the advice.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _TRIM_BYTES), (_M_TOP_PAD, _PAD_BYTES))
    return all(mallopt(option, value) == 1 for option, value in settings)


def give_back() -> None:
    """Return freed memory to the system after all: where its peak is looked at, or where there is no other left."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def free_bytes() -> int | None:
    """Memory that the system can still give to this process; None where it does not say.

    A container or a job of a cluster has a limit of its own, beyond which its processes are killed; so may a process
    (`ulimit -v`), to which no more is given then.
    """
    found = [*_available(_PROC / "meminfo"), *_left_in_groups(), *_left_of_addresses(_PROC / "self/statm")]
    return min(found) if found else None


def _available(meminfo: Path) -> Iterator[int]:
    with suppress(OSError):
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _left_of_addresses(statm: Path) -> Iterator[int]:
    """Bytes below this process's own limit of addresses; see setrlimit(2)."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(OSError):
        if most != resource.RLIM_INFINITY:
            pages = int(statm.read_text(encoding="ascii").split()[0])
            yield max(0, most - pages * resource.getpagesize())


def _left_in_groups() -> Iterator[int]:
    """Bytes below the limit of each control group that this process is in; see cgroups(7)."""
    try:
        groups = (_PROC / "self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, kinds, place in (line.split(":", 2) for line in groups):
        if kinds not in ("", "memory"):
            continue
        root = _GROUPS / kinds  # of version 1 there is a tree for each kind
        limit, usage, reclaimable = _FILES_V1 if kinds else _FILES_V2
        for folder in (root / place.lstrip("/"), *(root / place.lstrip("/")).parents):
            with suppress(OSError, ValueError):  # ValueError: the limit is "max"
                most, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit, usage))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
                yield max(0, most - used + int(stat.get(reclaimable, 0)))
            if folder == root:
                break


_SIGNS = ("can't allocate memory", "out of memory", "_ALLOC_FAILED", "ALLOCATION_FAILED")
"""How torch's allocator of the CPU says it; the CUDA driver, NCCL, cuBLAS and cuDNN of what torch does not allocate."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, which much of what torch calls says in words alone."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, without torch
    return named or any(sign in str(error) for sign in _SIGNS)
