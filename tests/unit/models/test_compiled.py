"""What torch.compile makes of the parts equals eager execution, in one graph, forward and backward."""

import copy

import pytest
import torch
from torch import Tensor, nn

from gald.models.aggregation import _attention, dual_attention, non_local
from gald.models.block import GlobalThenLocal
from gald.models.distribution import affinity, depthwise, mask

CHANNELS, SIZE = 16, (17, 23)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the compiler's own modules
    pytest.mark.filterwarnings("ignore:distribution mask:UserWarning"),  # eager says that so small a mask is no use
]


def results(run: nn.Module, count: int) -> list[Tensor]:
    """Output, gradients and running statistics on `count` features."""
    generator = torch.Generator().manual_seed(1)
    shape = (2, CHANNELS, *SIZE)
    features = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]
    output: Tensor = run(*features)
    output.square().mean().backward()
    buffers = [buffer for buffer in run.buffers() if buffer.is_floating_point()]
    grads = [feature.grad for feature in features] + [parameter.grad for parameter in run.parameters()]
    return [output, *(grad for grad in grads if grad is not None), *buffers]


def assert_compiled_equals_eager(module: nn.Module, count: int, backend: str) -> None:
    torch.compiler.reset()
    module = module.double()  # norms of nearly constant features amplify the rounding of single precision
    eager = results(copy.deepcopy(module), count)
    compiled = results(torch.compile(copy.deepcopy(module), fullgraph=True, backend=backend), count)
    for one, other in zip(compiled, eager, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_attention_over_several_blocks_of_queries(backend, monkeypatch):
    monkeypatch.setattr(_attention, "_HELD", 150 * SIZE[0] * SIZE[1])  # 391 queries in blocks of 150, 150 and 91
    assert_compiled_equals_eager(dual_attention.build(CHANNELS, zero_start=False), 1, backend)


def test_attention_with_keys_of_another_number_than_queries():
    assert_compiled_equals_eager(non_local.build(CHANNELS, subsample=True, zero_start=False), 1, "aot_eager")


@pytest.mark.parametrize(
    "module",
    [
        affinity.build(CHANNELS, window=5, heads=4),
        mask.build(CHANNELS, reductions=1),
        mask.build(CHANNELS, reductions=3),  # of which eager warns
        depthwise.build(CHANNELS, window=5),
    ],
    ids=["affinity", "mask", "mask of one position", "depthwise"],
)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_distributions(module, backend):
    assert_compiled_equals_eager(module, 2, backend)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("aggregation", "distribution"), [("cgnl", "mask"), ("psp", "affinity"), ("ema", "depthwise")])
def test_the_block(aggregation, distribution, stride):
    block = GlobalThenLocal(CHANNELS, aggregation=aggregation, distribution=distribution, aggregation_stride=stride)
    assert_compiled_equals_eager(block, 1, "aot_eager")
