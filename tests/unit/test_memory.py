import platform
import subprocess
import sys

import pytest

PROBE = """
import resource
import sys
import torch
from gald.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    (torch.zeros(16 << 20) + 1).sum()  # two blocks of 64 MiB
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# The middle round: a heap that grows once, at a hole of the wrong size, returns no memory.
print(sorted(faults)[10])
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="advice for glibc's allocator")
def test_repeated_allocations_cost_no_page_faults() -> None:
    def faults(mode: str) -> int:
        answer = subprocess.run([sys.executable, "-c", PROBE, mode], capture_output=True, text=True, check=True)
        return int(answer.stdout)

    assert faults("keep") < 0.05 * faults("plain")
