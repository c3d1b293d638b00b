import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gald.process import memory
from gald.process.memory import is_out_of_memory

PROBE = """
import resource
import sys
import torch
from gald.process.memory import keep_freed_memory

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


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
)
def test_memory_that_ran_out_is_known_by_its_many_names(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_other_faults_of_a_gpu_are_not_taken_for_it() -> None:
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))


MIB = 1 << 20


def machine(root: Path, groups: str, files: dict[str, object]) -> None:
    """Write what a system says of its memory."""
    texts = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 4096000 kB\n", "proc/self/cgroup": groups, **files}
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("0::/", {}, 4000 * MIB),
        (
            "0::/",
            {"memory.max": 300 * MIB, "memory.current": 250 * MIB, "memory.stat": f"anon 1\ninactive_file {20 * MIB}"},
            70 * MIB,
        ),
        (
            "0::/job/step",
            {
                "job/memory.max": 500 * MIB,
                "job/memory.current": 100 * MIB,
                "job/memory.stat": "inactive_file 0",
                "job/step/memory.max": "max",
                "job/step/memory.current": 90 * MIB,
                "job/step/memory.stat": "inactive_file 0",
            },
            400 * MIB,
        ),
        (
            "0::/job",
            {"job/memory.max": 10 * MIB, "job/memory.current": 11 * MIB, "job/memory.stat": "inactive_file 0"},
            0,
        ),
        (
            "4:memory:/slurm\n3:cpu,cpuacct:/slurm\n0::/",
            {
                "memory/slurm/memory.limit_in_bytes": 200 * MIB,
                "memory/slurm/memory.usage_in_bytes": 80 * MIB,
                "memory/slurm/memory.stat": f"inactive_file 7\ntotal_inactive_file {5 * MIB}",
                "memory/memory.limit_in_bytes": 9223372036854771712,
                "memory/memory.usage_in_bytes": 80 * MIB,
                "memory/memory.stat": "total_inactive_file 0",
            },
            125 * MIB,
        ),
    ],
)
def test_free_is_what_the_system_has_and_the_job_may_take(
    groups: str, files: dict[str, object], free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, groups, {f"groups/{name}": text for name, text in files.items()})
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    assert memory.free_bytes() == free


def test_where_nothing_is_said_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    assert memory.free_bytes() is None


def test_a_process_may_have_a_limit_of_its_own() -> None:
    probe = (
        "import resource\nfrom gald.process.memory import free_bytes\nmost = 512 << 20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\nprint(free_bytes())"
    )
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert 256 * MIB < int(answer.stdout) < 512 * MIB
