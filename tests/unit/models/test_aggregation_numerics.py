"""What every aggregation keeps: exact gradients, half precision, both modes, any size, compilation."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from gald import plugins
from gald.models.aggregation import psp
from gald.models.aggregation._layout import contiguous_gradient, turned
from gald.models.aggregation._projections import projected, projected_positions
from gald.models.block import GlobalThenLocal

CHANNELS = 16
NAMES = plugins.available("models/aggregation")
EXACT = {"ema": {"gradient_steps": 3}}  # gradients through all steps, which differences see too


def build(name: str, **options) -> nn.Module:
    """An aggregation off its start, where it would be the identity."""
    off = {"zero_start": False} if "zero_start" in plugins.signature("models/aggregation", name) else {}
    return plugins.load("models/aggregation", name)(CHANNELS, **off, **options)


def settled(name: str, **options) -> nn.Module:
    """The same in evaluation mode, its norms' statistics those of some features."""
    module = build(name, **options)
    with torch.no_grad():
        for _ in range(20):
            module(torch.randn(4, CHANNELS, 9, 11))
    return module.eval()


@pytest.mark.parametrize("strided", [False, True])
def test_turned_matrices_are_transposed_and_so_are_their_gradients(strided):
    matrices = torch.randn(3, 4, 5, dtype=torch.float64)
    matrices = (matrices.transpose(1, 2) if strided else matrices).detach().requires_grad_()
    assert torch.equal(turned(matrices), matrices.transpose(1, 2))
    assert turned(matrices).is_contiguous()
    assert torch.autograd.gradcheck(turned, matrices)
    assert torch.autograd.gradgradcheck(turned, matrices)


@pytest.mark.parametrize("strided", [False, True])
def test_a_gradient_that_was_transposed_comes_out_contiguous(strided):
    matrices, seen = torch.randn(3, 4, 5, requires_grad=True), []
    passed = contiguous_gradient(matrices * 1)
    matrices.register_hook(lambda grad: seen.append(grad.is_contiguous()))
    ahead = torch.randn(3, 5, 4).transpose(1, 2) if strided else torch.randn(3, 4, 5)
    passed.backward(ahead)
    torch.testing.assert_close(matrices.grad, ahead)
    assert seen == [True]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_joined_projections_equal_each_by_itself(bias, layout):
    parts = [nn.Conv2d(6, width, 1, bias=bias) for width in (2, 3, 5)]
    feature = torch.randn(2, 6, 4, 7).contiguous(memory_format=layout)
    expected = [part(feature) for part in parts]
    torch.testing.assert_close(list(projected(feature, *parts)), expected)
    by_position = projected_positions(feature.permute(0, 2, 3, 1), *parts)
    torch.testing.assert_close([part.permute(0, 3, 1, 2) for part in by_position], expected)


def test_every_aggregation_of_the_method_is_here():
    assert set(NAMES) >= {
        "a2", "aspp", "cgnl", "criss_cross", "dual_attention", "dual_gcn", "ema", "global_context", "non_local", "none",
        "psp",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [16, 48, 512])
def test_defaults_fit_the_widths_in_use(name, channels):
    module = plugins.load("models/aggregation", name)(channels).eval()
    with torch.no_grad():
        assert module(torch.randn(1, channels, 8, 8)).shape == (1, channels, 8, 8)


@pytest.mark.parametrize("images", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_differences(name, images):
    # the norm before stands for the neck's: on a CPU its backward pass misreads a gradient of one image laid out by
    # positions, as a transposed matrix product leaves it
    module = nn.Sequential(nn.BatchNorm2d(CHANNELS), settled(name, **EXACT.get(name, {}))).double().eval()
    feature = torch.randn(images, CHANNELS, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, feature)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_near_single(name, dtype, tolerance, autocast, training):
    feature = torch.randn(2, CHANNELS, 17, 23).to(dtype)
    half = settled(name).to(dtype).train(training)
    single = copy.deepcopy(half).float()  # of the same, rounded weights
    if autocast:
        with torch.autocast("cpu", dtype):
            output = copy.deepcopy(single)(feature.float())
    else:
        output = half(feature)
        assert output.dtype == dtype
    expected = single(feature.float())
    assert (output - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (2, 3), (13, 5)])
@pytest.mark.parametrize("name", NAMES)
def test_maps_smaller_than_any_window_or_grid_pass_in_both_modes(name, size, training):
    module = build(name).train(training)
    feature = torch.randn(2, CHANNELS, *size, requires_grad=True)
    output = module(feature)
    output.square().mean().backward()
    assert output.shape == feature.shape
    assert output.isfinite().all()
    assert feature.grad.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("distribution", [None, *plugins.available("models/distribution")])
@pytest.mark.parametrize("name", NAMES)
def test_large_and_constant_features_keep_gradients_finite(name, distribution, training):
    module = build(name)
    if distribution is not None:
        options = {"reductions": 1} if distribution == "mask" else {}
        module = GlobalThenLocal(CHANNELS, aggregation=module, distribution={"name": distribution, **options})
    module.train(training)
    for feature in (1e3 * torch.randn(2, CHANNELS, 9, 11), torch.full((2, CHANNELS, 9, 11), -2.0)):
        module.zero_grad()
        module(feature.requires_grad_()).square().mean().backward()
        assert feature.grad.isfinite().all()
        assert all(part.grad is None or part.grad.isfinite().all() for part in module.parameters())


def test_large_constant_features_keep_gradients_finite():
    for name in NAMES:
        feature = torch.full((2, CHANNELS, 9, 11), 3e3, requires_grad=True)
        build(name)(feature).square().mean().backward()
        assert feature.grad.isfinite().all(), name


@pytest.mark.parametrize("cells", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (17, 23)])
def test_grid_means_by_products_are_the_poolings(cells, size):
    pool = psp.GridMeans(cells)
    feature = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    results = [pool.by_products(feature), pool(feature)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(part.sin().sum(), feature)[0] for part in results))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_exported_graph_takes_any_batch_and_size(name):
    module = settled(name)
    sides = {2: Dim("height", min=9, max=1024), 3: Dim("width", min=9, max=1024)}
    shapes = ({0: Dim("batch", min=1, max=64)} | sides,)
    with torch.no_grad():
        graph = torch.export.export(module, (torch.randn(2, CHANNELS, 17, 23),), dynamic_shapes=shapes).module()
        for shape in ((1, 9, 14), (3, 24, 20)):
            feature = torch.randn(shape[0], CHANNELS, *shape[1:])
            torch.testing.assert_close(graph(feature), module(feature), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_every_module_runs_deterministically_on_a_gpu(name, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        results = []
        module = build(name).cuda()
        feature = torch.randn(2, CHANNELS, 33, 41, device="cuda", requires_grad=True)
        for _ in range(2):
            again, feature.grad = copy.deepcopy(module), None
            again(feature).square().mean().backward()
            results.append([feature.grad, *(part.grad for part in again.parameters())])
        assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_changes_no_gradient(name):
    module = settled(name)
    feature = torch.randn(2, CHANNELS, 9, 11)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        module.zero_grad()
        given = feature.clone(memory_format=layout).requires_grad_()
        module(given).square().mean().backward()
        results.append([given.grad, *(parameter.grad for parameter in module.parameters())])
    for contiguous, last in zip(*results, strict=True):
        assert (last - contiguous).norm() <= 1e-4 * contiguous.norm() + 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own modules
@pytest.mark.parametrize("name", NAMES)
def test_compiled_equals_eager(name):
    torch._dynamo.reset()
    module = build(name).double()  # norms of nearly constant features amplify the rounding of single precision
    results = []
    for run in (copy.deepcopy(module), torch.compile(copy.deepcopy(module), fullgraph=True)):
        generator = torch.Generator().manual_seed(1)
        feature = torch.randn(2, CHANNELS, 17, 23, generator=generator, dtype=torch.float64, requires_grad=True)
        output: Tensor = run(feature)
        output.square().mean().backward()
        buffers = [buffer for buffer in run.buffers() if buffer.is_floating_point()]
        results.append([output, feature.grad, *(parameter.grad for parameter in run.parameters()), *buffers])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-7, atol=1e-9)
