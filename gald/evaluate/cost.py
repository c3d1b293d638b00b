"""What a network costs: parameters, multiply-accumulates, and on a machine the memory and time of a forward pass."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gald.models.segmentor import Segmentor

_PRODUCTS = (torch.ops.aten.mul, torch.ops.aten.addcmul, torch.ops.aten.addcmul_)


class Cost(NamedTuple):
    """Cost of prediction; the auxiliary head takes no part in it.

    Attributes
    ----------
    parameters : int
        Numbers that training sets.
    gmacs : float
        Billions of multiply-accumulates for one image of `size`: convolutions, matrix products, attention, and products
        of two features element by element, which local distribution is made of. Norms, activations, pooling and
        resizing are not counted, as usual.
    size : (int, int)
        Height and width of that image in pixels.
    """

    parameters: int
    gmacs: float
    size: tuple[int, int]


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiply-accumulates of all that runs below it, inside custom autograd functions too.

    The formulas are those of `torch.utils.flop_counter`, whose own counter knows neither products element by element
    nor the CPU's fused attention.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs: int = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping it means importing it, which takes longer than a miniature's whole evaluation.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and add its cost."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            query, key, value = args[:3]
            self.macs += query.shape[:-1].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
        elif packet in flop_registry:
            self.macs += flop_registry[packet](*args, **kwargs, out_val=result) // 2
        elif packet in _PRODUCTS:
            factors = [value for value in args[-2:] if isinstance(value, Tensor) and value.numel() > 1]
            self.macs += result.numel() if len(factors) == 2 else 0
        return result


def cost(model: Segmentor, size: tuple[int, int]) -> Cost:
    """Measure a network, in evaluation mode, by running it once on an image of `size` (height, width)."""
    return Cost(parameters(model), macs(model, torch.zeros(1, 3, *size, device=model.mean.device)) / 1e9, size)


def parameters(module: nn.Module) -> int:
    """Count the numbers that training sets, without an auxiliary head's."""
    return sum(parameter.numel() for name, parameter in module.named_parameters() if not name.startswith("aux_head."))


def macs(module: nn.Module, *inputs: Tensor) -> int:
    """Count the multiply-accumulates of one forward pass, as `Cost.gmacs` does."""
    counter = _Counter()
    with torch.no_grad(), counter:
        module(*inputs)
    return counter.macs


class Pass(NamedTuple):
    """One forward pass on one machine.

    Attributes
    ----------
    peak_bytes : int
        Most memory held at a time beyond what was held before: without weights and inputs, with the output.
    seconds : tuple of float
        Time of each pass.
    """

    peak_bytes: int
    seconds: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Median time in ms."""
        return 1000 * statistics.median(self.seconds)


@torch.inference_mode()
def measure(module: nn.Module, *inputs: Tensor, warm_up: int, runs: int) -> Pass:
    """Time forward passes and find their peak memory, on the device of the inputs.

    Parameters
    ----------
    module : nn.Module
        On that device, in evaluation mode.
    inputs : Tensor
        What it takes.
    warm_up, runs : int
        Passes before timing, and timed ones. One more, untimed, is watched for its memory, since that slows it down.
    """
    cuda = inputs[0].device.type == "cuda"
    seconds = []
    for _ in range(warm_up + runs):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        module(*inputs)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = _peak_cuda(module, inputs) if cuda else _peak_cpu(module, inputs)
    return Pass(peak, tuple(seconds[warm_up:]))


def _peak_cuda(module: nn.Module, inputs: Iterable[Tensor]) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    module(*inputs)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_cpu(module: nn.Module, inputs: Iterable[Tensor]) -> int:
    """Peak of what torch's allocator of the CPU hands out: tensors, and workspaces within its operators."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler tells its start and end on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        module(*inputs)
    assert recorded.profiler is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(accumulate(changes), default=0)
