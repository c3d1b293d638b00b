"""The affinity in blocks of channels against the same sums in plain operators: layouts, types, graphs, repetition."""

import pytest
import torch
from torch import Tensor, nn

from gald.models.distribution import _blocks, affinity

OPTIONS = [
    {},
    {"window": 5, "heads": 5},
    {"window": 7, "dilation": 2, "heads": 20, "position_bias": True},
    {"query": "both", "normalisation": "sigmoid", "value": "difference", "residual": "none"},
    {"query": "g", "value": "x", "residual": "g"},
    {"weights": "uniform", "window": 5, "dilation": 2},
]


def features(*size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, g = (torch.randn(*size, generator=generator).to(dtype).requires_grad_() for _ in range(2))
    return x, g


def results(module: nn.Module, x: Tensor, g: Tensor) -> list[Tensor]:
    """Output and the gradients of inputs and parameters."""
    output = module(x, g)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return [output.detach(), *torch.autograd.grad(output, (x, g, *module.parameters()), weights)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kept", [True, False])
def test_equals_plain_operators_in_value_and_every_gradient(options, kept, monkeypatch):
    monkeypatch.setattr(_blocks, "_KEPT_BYTES", 1 << 30 if kept else 0)
    module = affinity.build(160, **options).double()  # two and a half blocks; heads that share one
    pair = features(2, 160, 7, 5, dtype=torch.float64)
    found = results(module, *pair)
    monkeypatch.setattr(affinity, "_traced", lambda: True)
    assert_close(found, results(module, *pair), 1e-12)


@pytest.mark.parametrize("size", [(1, 8, 1, 9), (3, 8, 9, 1), (1, 8, 1, 1), (2, 8, 2, 3)])
def test_thin_and_tiny_maps_equal_plain_operators(size, monkeypatch):
    module = affinity.build(8, window=7, heads=2).double().eval()
    pair = features(*size, dtype=torch.float64)
    found = results(module, *pair)
    monkeypatch.setattr(affinity, "_traced", lambda: True)
    assert_close(found, results(module, *pair), 1e-12)


def test_images_of_a_batch_know_nothing_of_each_other():
    # their maps lie behind one another, so that a shift runs from one into the next
    module = affinity.build(8, window=5).double().eval()
    x, g = features(3, 8, 4, 3, dtype=torch.float64)
    together = module(x, g)
    alone = torch.cat([module(x[i : i + 1], g[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    (of_g,) = torch.autograd.grad(together[1].sum(), g)
    assert of_g[[0, 2]].abs().max() == 0


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_channels_last_equals_contiguous_and_stays_so(options):
    module = affinity.build(80, **options)
    x, g = features(2, 80, 6, 7)
    expected = results(module, x, g)
    last = [f.detach().to(memory_format=torch.channels_last).requires_grad_() for f in (x, g)]
    found = results(module, *last)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert_close(found, expected, 1e-4)


def test_features_that_are_slices_of_others():
    module = affinity.build(8).double().eval()
    x, g = features(2, 20, 9, 12, dtype=torch.float64)
    slices = [f[:, ::2, 1:7, 2:9][:, :8].detach().requires_grad_() for f in (x, g)]
    copies = [f.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for f in slices]
    assert_close(results(module, *slices), results(module, *copies), 1e-12)


@pytest.mark.parametrize("threads", [1, 2])
def test_repeats_bit_for_bit(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        module = affinity.build(80, window=5)
        pair = features(2, 80, 24, 25)
        first = results(module, *pair)
        assert all(torch.equal(a, b) for a, b in zip(first, results(module, *pair), strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_half_precision_is_near_single(options):
    module = affinity.build(80, **options)
    x, g = features(2, 80, 6, 7)
    expected = results(module, x, g)
    half = affinity.build(80, **options).bfloat16()
    half.load_state_dict(module.state_dict())
    found = results(half, *(f.detach().bfloat16().requires_grad_() for f in (x, g)))
    assert all(one.dtype == torch.bfloat16 for one in found)
    for one, other in zip(found, expected, strict=True):
        assert (one.float() - other).norm() <= 0.03 * other.norm() + 1e-6


def test_autocast_projects_in_its_type_and_gives_gradients_in_single():
    module = affinity.build(80)
    x, g = features(2, 80, 6, 7)
    expected = results(module, x, g)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(x, g)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    found = [output.detach(), *torch.autograd.grad(output, (x, g, *module.parameters()), weights)]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.03 * other.norm() + 1e-6


def test_large_features_keep_neither_values_nor_windows():
    module = affinity.build(512, window=5)
    x, g = features(1, 512, 48, 48)
    positions, kept = 48 * 48, {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (kept.update({t.data_ptr(): t.numel()}), t)[1], lambda t: t
    ):
        module(x, g)
    for given in (x, g, *module.parameters()):
        kept.pop(given.data_ptr(), None)
    # what the norm takes; queries and keys, a quarter each; logits' mask and weights of 25 shifts
    assert sum(kept.values()) <= positions * (512 + 2 * 128 + 3 * 25) + 128 * 512 + 4 * 512


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own modules
@pytest.mark.parametrize(("options", "backend"), [({}, "inductor"), *((one, "aot_eager") for one in OPTIONS[1:])])
def test_compiled_equals_eager(options, backend):  # code is generated for one only, as that takes longest
    torch.compiler.reset()
    module = affinity.build(20, **({**options, "heads": 5} if options.get("heads") else options))
    pair = features(2, 20, 6, 7)
    expected = results(module, *pair)
    assert_close(results(torch.compile(module, fullgraph=True, backend=backend), *pair), expected, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_exports_with_any_height_and_width(options):
    module = affinity.build(20, **({**options, "heads": 5} if options.get("heads") else options)).eval()
    x, g = (f.detach() for f in features(2, 20, 6, 7))
    axes = {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    program = torch.export.export(module, (x, g), dynamic_shapes=(axes, axes))
    other = [f.detach() for f in features(3, 20, 11, 9)]
    for pair in ((x, g), other):
        torch.testing.assert_close(program.module()(*pair), module(*pair), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_gpu_equals_the_cpu_and_repeats_bit_for_bit(options):
    module = affinity.build(320, **options).double()
    pair = features(2, 320, 9, 7, dtype=torch.float64)
    expected = results(module, *pair)
    module = module.cuda()
    there = [f.detach().cuda().requires_grad_() for f in pair]

    def on_gpu() -> list[Tensor]:
        output = module(*there)
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device="cuda").view(output.shape)
        return [output.detach(), *torch.autograd.grad(output, (*there, *module.parameters()), weights)]

    first = on_gpu()
    assert_close([one.cpu() for one in first], expected, 1e-10)
    assert all(torch.equal(a, b) for a, b in zip(first, on_gpu(), strict=True))
