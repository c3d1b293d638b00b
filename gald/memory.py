"""Memory: what is free, whether it ran out, and keeping what was freed for the next iteration.

glibc returns large blocks to the kernel as soon as they are freed. A training step allocates the same hundreds of
megabytes each time, and the kernel must zero every page anew: for 171 classes at full resolution that was 41 % of the
processor time. No bit of a result depends on it.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h>
_TRIM_BYTES = 2**31 - 1  # the largest that fits the call's int
_PAD_BYTES = 64 << 20


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


def free_bytes() -> int | None:
    """Memory that the system can still give away; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


_SIGNS = ("can't allocate memory", "out of memory", "_ALLOC_FAILED", "ALLOCATION_FAILED")
"""How torch's allocator of the CPU says it; the CUDA driver, NCCL, cuBLAS and cuDNN of what torch does not allocate."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, which much of what torch calls says in words alone."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, without torch
    return named or any(sign in str(error) for sign in _SIGNS)
