"""The largest batch of a device: found by trying on a GPU, estimated from two measured steps on a CPU.

It is the number of samples that go through the network at once, which is `batch_size` by devices and `micro_batches`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from gald.datasets._reader import Store
from gald.errors import GaldError
from gald.params import Run
from gald.process.memory import free_bytes, give_back, is_out_of_memory
from gald.train import loop
from gald.train.faults import what_to_lower
from gald.train.loader import Batch
from gald.train.norms import training_mode
from gald.train.parallel import World
from gald.train.start import build_state
from gald.train.trial import prepared

SMALLEST = 2  # batch norm of one pooled value per channel has no variance
LARGEST = 4096
_MEASURED = (2, 6)
_SHARE = 0.9  # of the free memory, since batches differ and other programs live too
_MIB = 2**20


def find_batch(run: Run, *, store: Store = "auto") -> str:
    """Find the largest batch of one device that fits into its memory.

    Parameters
    ----------
    run : Run
        The recipe; its batch size and micro-batches do not matter.
    store : {"auto", "packed", "files"}
        Where pixels would be read from; only the classes are.

    Returns
    -------
    str
        The batch, and how it was found.

    Raises
    ------
    GaldError
        Not even two samples fit, or the system does not say how much memory is free.
    """
    with prepared(run, store) as (task, world, _):
        state = build_state(task, world)
        training_mode(state.model, run.params.train)
        step = _stepper(run, state, world)
        if world.device.type == "cuda":
            found = largest_fitting(lambda size: _fits(step, state, size))
            how = f"tried on {torch.cuda.get_device_name(world.device)}"
            how += f"; more than {LARGEST} were not tried" if found == LARGEST else f"; {found + 1} did not fit"
        else:
            found, how = _estimated(step)
        if found < SMALLEST:
            lower = what_to_lower(state.model, run.params.train, SMALLEST)
            raise GaldError(f"{run.name}: not even a batch of {SMALLEST} fits: {lower}")
    height, width = run.params.train.crop_size
    return f"{run.name}: a device takes a batch of {found} crops of {height}x{width} pixels at once ({how})\n"


def largest_fitting(fits: Callable[[int], bool], smallest: int = SMALLEST, largest: int = LARGEST) -> int:
    """Find the largest size that fits, by doubling and then bisecting.

    Returns
    -------
    int
        Between `smallest` and `largest`; 0 where not even the smallest fits.

    Examples
    --------
    >>> largest_fitting(lambda size: size <= 37)
    37
    """
    if not fits(smallest):
        return 0
    low = smallest
    high = low
    while low < largest:
        high = min(2 * low, largest)
        if not fits(high):
            break
        low = high
    else:
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def extrapolated(peaks: dict[int, int], free: int) -> int:
    """Largest batch whose peak stays within some memory, on the line through two measured ones.

    Parameters
    ----------
    peaks : dict of int to int
        Peak of an iteration in bytes beyond what lies in memory anyway, by batch; two of them.
    free : int
        Bytes that may be taken.

    Raises
    ------
    GaldError
        The larger batch did not take more.

    Examples
    --------
    >>> extrapolated({2: 300, 6: 700}, 1000)
    9
    """
    (small, least), (large, most) = sorted(peaks.items())
    each = (most - least) / (large - small)
    if each <= 0:
        raise GaldError(
            f"a batch of {large} took no more memory than one of {small}, so that nothing can be estimated; run it "
            "again, with a larger train.crop_size"
        )
    return max(0, int((free - (least - small * each)) / each))


def _stepper(run: Run, state: loop.State, world: World) -> Callable[[int], None]:
    """Make what trains one iteration on a batch of a size; noise takes as much memory as images do."""
    generator = torch.Generator().manual_seed(0)
    size, classes = run.params.train.crop_size, state.model.num_classes

    def step(count: int) -> None:
        params = run.params.train.model_copy(update={"batch_size": count, "micro_batches": 1})
        images = torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=generator)
        masks = torch.randint(0, classes, (count, *size), dtype=torch.uint8, generator=generator)
        loop.train_one_iteration(state, Batch(images, masks, ("noise",) * count), params, 0, 0.0, world)

    return step


def _fits(step: Callable[[int], None], state: loop.State, size: int) -> bool:
    """Whether two iterations go through; the second one meets what the first one left."""
    fitted = True
    try:
        step(size)
        step(size)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fitted = False
    state.optimiser.drop_gradients()  # here, and not above, where the error still holds on to the step's tensors
    torch.cuda.empty_cache()
    return fitted


def _estimated(step: Callable[[int], None]) -> tuple[int, str]:
    peaks = {}
    for size in _MEASURED:
        step(size)
        peaks[size] = _peak(lambda size=size: step(size))  # type: ignore[misc]
    give_back()
    free = free_bytes()
    if free is None:
        raise GaldError("the system does not say how much memory is free (/proc/meminfo); --find-batch needs Linux")
    found = extrapolated(peaks, int(_SHARE * free))
    small, large = _MEASURED
    return found, (
        f"an estimate: steps of {small} and {large} took {peaks[small] / _MIB:.0f} and {peaks[large] / _MIB:.0f} MiB, "
        f"and {100 * _SHARE:.0f} % of the {free / _MIB:.0f} MiB free may be taken"
    )


def _peak(act: Callable[[], None]) -> int:
    """Bytes by which the process grew at most."""
    give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew, see proc(5)
        before = _status("VmRSS")
        act()
        return _status("VmHWM") - before
    except OSError as error:
        raise GaldError(
            f"the system does not say how much memory is taken ({error}); --find-batch needs Linux"
        ) from error


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024
