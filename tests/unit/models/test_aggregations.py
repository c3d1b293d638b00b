"""Each aggregation against a loop or a formula, its options, and what it refuses."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gald.errors import ModelError
from gald.models.aggregation import (
    a2,
    aspp,
    criss_cross,
    dual_attention,
    dual_gcn,
    ema,
    global_context,
    non_local,
    psp,
)
from gald.models.segmentor import build_segmentor
from gald.params import ModelParams


def draw(channels: int = 6, size: tuple[int, int] = (4, 5)) -> Tensor:
    return torch.randn(2, channels, *size, dtype=torch.float64)


def dilations(module: aspp.AtrousPyramid) -> tuple[int, ...]:
    return tuple(branch[0].dilation[0] for branch in module.branches[1:])


def positions(size: tuple[int, int]) -> list[tuple[int, int]]:
    return list(itertools.product(range(size[0]), range(size[1])))


def attended(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """Mean of the values by the softmax of the query's products with the keys."""
    weights = torch.stack([query @ key for key in keys]).softmax(0)
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


@pytest.mark.parametrize("size", [(4, 5), (1, 6), (5, 1), (1, 1)])
@pytest.mark.parametrize("recurrence", [1, 2, 3])
def test_criss_cross_equals_a_loop_over_rows_and_columns(recurrence, size):
    module = criss_cross.build(6, recurrence=recurrence, reduction=2, zero_start=False).double()
    torch.nn.init.constant_(module.gamma, 0.7)
    feature = expected = draw(size=size)
    for _ in range(recurrence):
        query, key, value = module.query(expected), module.key(expected), module.value(expected)
        out = torch.empty_like(expected)
        for n, (r, c) in itertools.product(range(2), positions(size)):
            cross = [(r, j) for j in range(size[1])] + [(i, c) for i in range(size[0]) if i != r]
            out[n, :, r, c] = attended(
                query[n, :, r, c], [key[n, :, i, j] for i, j in cross], [value[n, :, i, j] for i, j in cross]
            )
        expected = expected + 0.7 * out
    torch.testing.assert_close(module(feature), expected)


@pytest.mark.parametrize(("recurrence", "reached"), [(1, 4 + 5 - 1), (2, 4 * 5)])
def test_criss_cross_reaches_the_whole_map_in_two_passes(recurrence, reached):
    module = criss_cross.build(6, recurrence=recurrence, reduction=2, zero_start=False).double()
    feature = draw().requires_grad_()
    module(feature)[0, :, 1, 2].sum().backward()
    assert (feature.grad[0].abs().sum(0) > 0).sum() == reached
    assert feature.grad[1].abs().max() == 0


@pytest.mark.parametrize("scaled", [False, True])
def test_non_local_equals_a_loop_over_pairs(scaled):
    module = non_local.build(6, scaled=scaled, zero_start=False).double().eval()
    feature = draw()
    query, key, value = module.query(feature), module.key(feature), module.value(feature)
    query = query / 3**0.5 if scaled else query
    out = torch.empty_like(value)
    for n, (r, c) in itertools.product(range(2), positions((4, 5))):
        keys, values = ([part[n, :, i, j] for i, j in positions((4, 5))] for part in (key, value))
        out[n, :, r, c] = attended(query[n, :, r, c], keys, values)
    torch.testing.assert_close(module(feature), feature + module.out(out))


@pytest.mark.parametrize(("descriptors", "count"), [(0, 3), (5, 5)])
def test_a2_equals_a_loop_over_descriptors_and_positions(descriptors, count):
    module = a2.build(6, reduction=2, descriptors=descriptors).double().eval()
    feature = draw()
    content, gather, distribute = module.feature(feature), module.gather(feature), module.distribute(feature)
    assert gather.shape[1] == count
    out = torch.zeros_like(content)
    for n in range(2):
        everywhere = positions((4, 5))
        gathered = []
        for k in range(count):
            weights = torch.stack([gather[n, k, i, j] for i, j in everywhere]).softmax(0)
            gathered.append(sum(w * content[n, :, i, j] for w, (i, j) in zip(weights, everywhere, strict=True)))
        for r, c in everywhere:
            shares = distribute[n, :, r, c].softmax(0)
            out[n, :, r, c] = sum(share * vector for share, vector in zip(shares, gathered, strict=True))
    torch.testing.assert_close(module(feature), feature + module.out(out))


def naive_fit(points: list[Tensor], bases: list[Tensor], steps: int) -> tuple[list[Tensor], list[Tensor]]:
    """Shares of each point and bases, by the equations, point by point."""
    for _ in range(steps):
        shares = [torch.stack([point @ basis for basis in bases]).softmax(0) for point in points]
        means = []
        for k in range(len(bases)):
            total = sum(share[k] for share in shares) + 1e-6
            means.append(sum(share[k] / total * point for share, point in zip(shares, points, strict=True)))
        bases = [mean / (mean.square().sum().sqrt() + 1e-6) for mean in means]
    return shares, bases


@pytest.mark.parametrize("steps", [1, 3])
def test_ema_equals_a_loop_over_points_and_bases(steps):
    module = ema.build(6, bases=4, steps=steps).double().eval()
    feature = draw()
    moved = module.before(feature)
    out = torch.empty_like(feature)
    for n in range(2):
        points = [moved[n, :, i, j] for i, j in positions((4, 5))]
        shares, bases = naive_fit(points, list(module.bases[0].T), steps)
        for share, (i, j) in zip(shares, positions((4, 5)), strict=True):
            out[n, :, i, j] = sum(part * basis for part, basis in zip(share, bases, strict=True))
    torch.testing.assert_close(module(feature), functional.relu(feature + module.after(functional.relu(out))))


def test_ema_keeps_its_bases_by_a_moving_average_in_training_alone():
    module = ema.build(6, bases=4, momentum=0.75)
    feature = torch.randn(2, 6, 4, 5)
    before = module.bases.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(1, 4))
    fitted = module.fit(module.before(feature).flatten(2))[1]
    module.eval()(feature)
    assert torch.equal(module.bases, before)
    module.train()(feature).sum().backward()
    torch.testing.assert_close(module.bases, 0.75 * before + 0.25 * fitted.mean(0, keepdim=True))
    assert "bases" in module.state_dict()


def test_ema_passes_gradients_through_its_last_steps():
    feature, grads = torch.randn(2, 6, 4, 5), []
    module = ema.build(6, bases=4).eval()
    for gradient_steps in (1, 2, 3):
        module.gradient_steps = gradient_steps
        grads.append(torch.autograd.grad(module(feature).square().sum(), module.before.weight)[0])
    assert min(grad.abs().max() for grad in grads) > 0
    assert not torch.allclose(grads[0], grads[2])
    module.gradient_steps = 0
    module(feature).sum().backward()
    assert module.before.weight.grad is None  # as released
    assert module.after[0].weight.grad is not None


@pytest.mark.parametrize("similarity", ["opposite", "alike"])
def test_channel_attention_equals_a_loop_over_channels(similarity):
    module = dual_attention.ChannelAttention(similarity, zero_start=False).double()
    torch.nn.init.constant_(module.gamma, 0.7)
    feature = 0.3 * draw()
    sign = {"opposite": -1, "alike": 1}[similarity]
    expected = torch.empty_like(feature)
    for n, c in itertools.product(range(2), range(6)):
        maps = list(feature[n])
        weights = torch.stack([sign * (maps[c] * other).sum() for other in maps]).softmax(0)
        expected[n, c] = maps[c] + 0.7 * sum(w * other for w, other in zip(weights, maps, strict=True))
    torch.testing.assert_close(module(feature), expected)


def test_position_attention_equals_a_loop_over_pairs():
    module = dual_attention.PositionAttention(6, 2, zero_start=False).double()
    torch.nn.init.constant_(module.gamma, 0.7)
    feature = draw()
    query, key, value = module.query(feature), module.key(feature), module.value(feature)
    expected = feature.clone()
    for n, (r, c) in itertools.product(range(2), positions((4, 5))):
        keys, values = ([part[n, :, i, j] for i, j in positions((4, 5))] for part in (key, value))
        expected[n, :, r, c] += 0.7 * attended(query[n, :, r, c], keys, values)
    torch.testing.assert_close(module(feature), expected)


def test_dual_attention_sums_its_two_attentions_each_transformed_if_asked():
    feature = torch.randn(2, 8, 4, 5)
    torch.testing.assert_close(dual_attention.build(8)(feature), 2 * feature)
    module = dual_attention.build(8, transform=True).eval()
    expected = module.position[1](feature) + module.channel[1](feature)
    torch.testing.assert_close(module(feature), expected)
    assert expected.min() >= 0


def test_global_context_adds_one_vector_of_the_image_to_all_positions():
    module = global_context.build(8, zero_start=False).double()
    feature = draw(8)
    added = module(feature) - feature
    for n in range(2):
        weights = torch.stack([module.attention.weight[0, :, 0, 0] @ feature[n, :, i, j] for i, j in positions((4, 5))])
        context = sum(w * feature[n, :, i, j] for w, (i, j) in zip(weights.softmax(0), positions((4, 5)), strict=True))
        first, norm, _, last = module.transform
        hidden = first.weight @ context + first.bias
        hidden = (hidden - hidden.mean()) / (hidden.var(correction=0) + norm.eps).sqrt()
        expected = last.weight @ hidden.clamp(min=0) + last.bias
        torch.testing.assert_close(added[n], expected[:, None, None].expand(8, 4, 5))


def test_global_context_keeps_two_channels_where_a_norm_of_one_would_be_constant():
    assert global_context.build(4, reduction=16).transform[0].out_features == 2


@pytest.mark.parametrize("build", [non_local.build, criss_cross.build, global_context.build])
def test_residual_blocks_start_as_the_identity(build):
    feature = torch.randn(2, 16, 5, 7)
    assert torch.equal(build(16)(feature), feature)
    assert not torch.equal(build(16, zero_start=False)(feature), feature)


def test_a2_starts_as_the_identity_only_if_asked():
    feature = torch.randn(2, 16, 5, 7)
    assert torch.equal(a2.build(16, zero_start=True)(feature), feature)
    assert not torch.equal(a2.build(16)(feature), feature)


def test_aspp_reads_each_rate_its_own_distance_away():
    module = aspp.build(4, rates=(1, 3)).double().eval()
    feature = torch.zeros(1, 4, 9, 9, dtype=torch.float64)
    feature[0, 0, 4, 4] = 1
    for branch, reach in zip(module.branches, (0, 1, 3), strict=True):
        seen = branch[0](feature).abs().sum(1)[0].nonzero().tolist()
        offsets = (0,) if reach == 0 else (-reach, 0, reach)
        assert seen == [[4 + r, 4 + c] for r in offsets for c in offsets]
    assert module.fuse[0].in_channels == 2 * 4


def test_aspp_rate_wider_than_the_map_is_a_1x1_convolution():
    module = aspp.build(4, rates=(12,)).double().eval()
    feature = draw(4, (7, 11))
    convolution = module.branches[1][0]
    torch.testing.assert_close(
        convolution(feature), functional.conv2d(feature, convolution.weight[:, :, 1:2, 1:2]), rtol=1e-10, atol=1e-10
    )


def test_aspp_widths_are_the_papers_at_512_channels():
    module = aspp.build(512)
    assert [branch[0].out_channels for branch in module.branches] == [256] * 4
    assert [branch[0].dilation[0] for branch in module.branches[1:]] == [12, 24, 36]
    assert module.fuse[0].in_channels == 1280


def test_dual_gcn_product_from_the_right_is_the_graph_over_positions():
    module = dual_gcn.CoordinateGraph(6).double().eval()
    feature = draw()
    query, key, value = (project(feature).flatten(2) for project in (module.query, module.key, module.value))
    states = key.transpose(1, 2) @ (query @ value.transpose(1, 2)).softmax(2)  # (N, L, C/2)
    updated = module.update[1](module.update[0](states.transpose(1, 2)))
    expected = functional.relu(module.out(updated.view(2, 3, 4, 5)) + feature)
    torch.testing.assert_close(module(feature), expected)


@pytest.mark.parametrize(("reductions", "side"), [(1, 17), (2, 9), (3, 5)])
def test_dual_gcn_reduces_the_map_of_its_graph_over_positions(reductions, side):
    module = dual_gcn.build(8, reductions=reductions).eval()
    assert module.down(torch.randn(1, 8, 33, 33)).shape[2:] == (side, side)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (ema.build, {"gradient_steps": 4}, "gradient_steps is 4; allowed are 0 to steps, 3"),
        (dual_gcn.build, {"reduction": 32}, "16 channels leave no node at reduction 32"),
        (psp.build, {"bins": tuple(range(1, 18))}, "17 grids .* share 16 channels"),
    ],
)
def test_options_that_do_not_fit_each_other_or_the_channels_are_refused(build, options, message):
    with pytest.raises(ModelError, match=message):
        build(16, **options)


@pytest.mark.parametrize(
    ("stride", "rates"),
    [(None, (12, 24, 36)), (4, (24, 48, 72)), (8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))],
)
def test_rates_of_aspp_see_equally_far_in_the_image_at_every_stride(stride, rates):
    assert dilations(aspp.build(8, stride)) == rates
    assert dilations(aspp.build(8, stride, rates=(2, 3))) == (2, 3)


@pytest.mark.parametrize(("backbone", "reduced", "rates"), [(8, 1, 12), (16, 1, 6), (8, 2, 6)])
def test_the_network_tells_aspp_the_stride_it_works_at(backbone, reduced, rates):
    model = ModelParams.model_validate(
        {
            "backbone": {"name": "resnet", "output_stride": backbone},
            "channels": 8,
            "aggregation": {"name": "aspp"},
            "aggregation_stride": reduced,
            "distribution": {"name": "none"},
            "aux_head": None,
            "align_corners": True,
        }
    )
    with torch.device("meta"):
        assert dilations(build_segmentor(model, 2).head.block.aggregation)[0] == rates
