"""The affinity distribution against a loop over positions, and against what must hold by construction."""

import itertools

import pytest
import torch
from torch import Tensor

from gald.errors import ModelError
from gald.models.distribution import _blocks, affinity, depthwise
from gald.models.distribution._window import Window, window_mean


def neighbours(row: int, column: int, height: int, width: int, side: int, dilation: int):
    """Neighbours on the map, with the number of their shift."""
    for index, (down, right) in enumerate(itertools.product(range(side), repeat=2)):
        r, c = row + dilation * (down - side // 2), column + dilation * (right - side // 2)
        if 0 <= r < height and 0 <= c < width:
            yield index, r, c


def naive(module: affinity.AffinityDistribution, x: Tensor, g: Tensor, normalisation: str, source: str) -> Tensor:
    """Weighted sums of the values, position by position, without the norm and the residual."""
    part, window = module.affinity, module.window
    asked = {"x": x, "g": g, "both": torch.cat([x, g], 1)}[source]
    given = {"x": x, "g": g, "difference": g - x}[module.source]
    query, key, value = part.query(asked), part.key(g), module.value(given)
    count, channels, height, width = value.shape
    out = torch.zeros_like(value)
    deep, wide = query.shape[1] // part.heads, channels // part.heads
    for n, m, r, c in itertools.product(range(count), range(part.heads), range(height), range(width)):
        keys, values = slice(m * deep, (m + 1) * deep), slice(m * wide, (m + 1) * wide)
        around = list(neighbours(r, c, height, width, window.side, window.dilation))
        logits = torch.stack([query[n, keys, r, c] @ key[n, keys, i, j] / deep**0.5 for _, i, j in around])
        if part.position_bias is not None:
            logits = logits + part.position_bias[m, [index for index, _, _ in around]]
        weights = logits.softmax(0) if normalisation == "softmax" else logits.sigmoid()
        out[n, values, r, c] = sum(w * value[n, values, i, j] for w, (_, i, j) in zip(weights, around, strict=True))
    return out


def pair(channels: int = 8, size: tuple[int, int] = (5, 6)) -> tuple[Tensor, Tensor]:
    """Local and aggregated feature in double precision."""
    generator = torch.Generator().manual_seed(1)
    x, g = (torch.randn(2, channels, *size, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, g


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 5},
        {"window": 7},  # wider than the map is high
        {"dilation": 2},
        {"window": 5, "dilation": 2, "heads": 2},
        {"heads": 2, "key_reduction": 2},
        {"query": "g"},
        {"query": "both", "normalisation": "sigmoid"},
        {"normalisation": "sigmoid", "heads": 2},
        {"position_bias": True, "heads": 2},
        {"value": "x"},
        {"value": "difference", "window": 5, "heads": 2},
    ],
    ids=str,
)
def test_equals_a_loop_over_positions(options):
    module = affinity.build(8, **options).double().eval()
    if module.affinity.position_bias is not None:
        torch.nn.init.normal_(module.affinity.position_bias)
    x, g = pair()
    expected = x + module.norm(naive(module, x, g, options.get("normalisation", "softmax"), options.get("query", "x")))
    torch.testing.assert_close(module(x, g), expected)


@pytest.mark.parametrize(("residual", "added"), [("x", 0), ("g", 1)])
def test_residual_is_what_it_says(residual, added):
    x, g = pair()
    module = affinity.build(8, residual=residual).double().eval()
    bare = affinity.build(8, residual="none").double().eval()
    bare.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(x, g) - bare(x, g), (x, g)[added])


def test_window_of_one_is_a_projection_that_leaves_queries_and_keys_untrained():
    x, g = pair()
    module = affinity.build(8, window=1).double()
    output = module(x, g)
    torch.testing.assert_close(output, x + module.norm(module.value(g)))
    output.square().sum().backward()
    assert module.affinity.query.weight.grad.abs().max() == 0
    assert module.affinity.key.weight.grad.abs().max() == 0
    assert module.value.weight.grad.abs().max() > 0


def test_softmax_weights_sum_to_one_and_give_padding_nothing():
    x, g = pair()
    weights = affinity.build(8, heads=2).double().affinity(x, g)
    assert weights.shape == (2, 2, 9, 5, 6)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 2, 5, 6, dtype=torch.float64))
    assert weights[:, :, :3, 0].abs().max() == 0  # the row above the first
    assert weights[:, :, 2::3, :, -1].abs().max() == 0  # the column right of the last


@pytest.mark.parametrize(("window", "dilation"), [(3, 1), (5, 1), (3, 2), (7, 1)])
def test_uniform_control_is_the_mean_over_neighbours_on_the_map(window, dilation):
    x, g = pair()
    module = affinity.build(8, window=window, dilation=dilation, weights="uniform").double().eval()
    assert module.affinity is None
    value = module.value(g)
    mean = torch.empty_like(value)
    for r, c in itertools.product(range(5), range(6)):
        around = [value[:, :, i, j] for _, i, j in neighbours(r, c, 5, 6, window, dilation)]
        mean[:, :, r, c] = torch.stack(around).mean(0)
    torch.testing.assert_close(module(x, g), x + module.norm(mean))


def test_uniform_control_equals_adaptive_weights_that_are_all_equal():
    x, g = pair()
    adaptive = affinity.build(8, window=5).double().eval()
    torch.nn.init.zeros_(adaptive.affinity.query.weight)
    uniform = affinity.build(8, window=5, weights="uniform").double().eval()
    uniform.load_state_dict({k: v for k, v in adaptive.state_dict().items() if not k.startswith("affinity.")})
    torch.testing.assert_close(adaptive(x, g), uniform(x, g))


@pytest.mark.parametrize("window", [Window(3, 1), Window(3, 2), Window(5, 1)])
def test_gradient_of_the_mean(window):
    value = torch.randn(1, 2, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: window_mean(v, window), (value.requires_grad_(),))


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 2, "key_reduction": 2, "position_bias": True},
        {"window": 5},
        {"dilation": 2, "query": "both", "normalisation": "sigmoid"},
        {"query": "g", "value": "difference"},
        {"value": "x", "window": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("kept", [pytest.param(True, marks=pytest.mark.slow), False])
def test_whole_module_passes_gradcheck(options, kept, monkeypatch):
    monkeypatch.setattr(_blocks, "_KEPT_BYTES", 1 << 20 if kept else 0)
    monkeypatch.setitem(_blocks._CHANNELS, "cpu", 3)  # blocks smaller than a head, and a last one that is smaller still
    x, g = (feature[:, :4, :3, :4].clone().requires_grad_() for feature in pair())
    module = affinity.build(4, **options).double().eval()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert torch.autograd.gradcheck(lambda x, g, *_: module(x, g), (x, g, *parameters))


def test_windows_are_never_unfolded():
    # beside features and weights nothing is kept for the backward pass: 16 channels x 25 shifts would be
    x, g = (feature.float().requires_grad_() for feature in pair(16, (12, 12)))
    module = affinity.build(16, window=5, heads=1)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        module(x, g)
    assert max(sizes) <= 2 * 25 * 12 * 12  # the weights


@pytest.mark.parametrize("size", [(1, 7), (1, 1), (2, 2)])
def test_maps_smaller_than_the_window(size):
    x, g = pair(8, size)
    assert affinity.build(8, window=5).double().eval()(x, g).isfinite().all()


def test_large_and_constant_inputs_keep_gradients_finite():
    for x, g in (tuple(1e3 * feature.float() for feature in pair()), (torch.ones(2, 8, 5, 6), torch.ones(2, 8, 5, 6))):
        module = affinity.build(8)
        module(x.requires_grad_(), g).square().mean().backward()
        assert x.grad.isfinite().all()
        assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ModelError, match="3 heads must divide both 16 and 4"):
        affinity.build(16, heads=3)


@pytest.mark.parametrize("channels", [32, 48, 64, 512])
@pytest.mark.parametrize("window", [3, 5])
def test_depthwise_control_has_as_many_parameters_as_the_affinity(channels, window):
    count = {
        name: sum(parameter.numel() for parameter in plugin.build(channels, window=window).parameters())
        for name, plugin in (("affinity", affinity), ("depthwise", depthwise))
    }
    one_channel = 2 * channels + window**2 + 4  # what one hidden channel costs
    assert abs(count["affinity"] - count["depthwise"]) <= one_channel / 2
