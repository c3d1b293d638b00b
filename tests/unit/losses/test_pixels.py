import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gald.errors import ModelError
from gald.losses import _pixels, pixel_loss, valid_weight
from gald.losses._pixels import HardPixels, PixelSums, Rule, hard_pixels


def drawn(classes, old, new, *, images=2, ignored=0.2, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(images, classes, *old, generator=generator, dtype=dtype)
    mask = torch.randint(0, classes, (images, *new), generator=generator)
    mask[torch.rand(mask.shape, generator=generator) < ignored] = 255
    return scores.requires_grad_(), mask


def of_torch(scores, mask, *, align_corners, **options):
    """Value and gradient with all the logits there are."""
    logits = functional.interpolate(scores, mask.shape[1:], mode="bilinear", align_corners=align_corners)
    value = functional.cross_entropy(logits, mask, ignore_index=255, **options)
    return value.detach(), *torch.autograd.grad(value, scores)


def of_ours(scores, mask, **options):
    value = pixel_loss(scores, mask, **options)
    return value.detach(), *torch.autograd.grad(value, scores)


def agree(found, expected, tolerance):
    assert found[0].item() == pytest.approx(expected[0].item(), rel=tolerance)
    largest = expected[1].abs().max().item()
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=tolerance * largest)


sides = st.integers(1, 9)


@settings(max_examples=25, deadline=None)
@given(
    classes=st.integers(1, 30),
    old=st.tuples(sides, sides),
    new=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    ignored=st.sampled_from([0.0, 0.3, 0.9]),
    align_corners=st.booleans(),
    weighted=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 1000),
)
def test_value_and_gradient_are_those_of_torch(classes, old, new, ignored, align_corners, weighted, smoothing, seed):
    scores, mask = drawn(classes, old, new, ignored=ignored, seed=seed, dtype=torch.float64)
    mask[0, 0, 0] = 0
    weights = torch.linspace(0.5, 2, classes, dtype=torch.float64) if weighted else None
    options = {"align_corners": align_corners, "label_smoothing": smoothing}
    expected = of_torch(scores, mask, weight=weights, **options)
    found = of_ours(scores, mask, class_weights=weights, **options)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("classes", "old", "new"), [(8, (12, 24), (48, 96)), (19, (13, 13), (97, 97)), (171, (5, 5), (33, 33))]
)
def test_single_precision_stays_within_a_millionth_of_torch(classes, old, new, align_corners):
    scores, mask = drawn(classes, old, new)
    expected = of_torch(scores, mask, align_corners=align_corners)
    agree(of_ours(scores, mask, align_corners=align_corners), expected, 1e-6)
    agree(of_ours(scores, mask.to(torch.uint8), align_corners=align_corners), expected, 1e-6)


@pytest.mark.parametrize("classes", [1, 2, 171])
@pytest.mark.parametrize("new", [(3, 4), (7, 9)])
@pytest.mark.parametrize("hard", [None, HardPixels(0.2, 5)])
def test_gradient_is_that_of_finite_differences(classes, new, hard):
    scores, mask = drawn(classes, (3, 4) if classes < 171 else (2, 2), new, images=1, dtype=torch.float64)
    weights = torch.linspace(0.5, 2, classes, dtype=torch.float64)
    rule = Rule(True, weights, 0.1, hard, 255)
    assert torch.autograd.gradcheck(lambda given: PixelSums.apply(given, mask, rule)[0], scores, fast_mode=classes > 2)


@pytest.mark.parametrize("new", [(6, 10), (31, 50)])
@pytest.mark.parametrize("hard", [None, HardPixels(0.1, 400)])
def test_the_height_of_strips_changes_nothing_but_rounding(monkeypatch, new, hard):
    scores, mask = drawn(5, (6, 10), new)
    whole = of_ours(scores, mask, align_corners=False, hard=hard)
    for elements in (1, 5 * new[1] * 3 + 1):
        monkeypatch.setitem(_pixels._STRIP_ELEMENTS, "cpu", elements)
        agree(of_ours(scores, mask, align_corners=False, hard=hard), whole, 1e-6)


@pytest.mark.parametrize("new", [(6, 10), (25, 40)])
@pytest.mark.parametrize("hard", [None, HardPixels(0.1, 900)])
@pytest.mark.parametrize("images", [1, 5])
def test_images_that_share_a_strip_get_what_each_gets_alone(monkeypatch, new, hard, images):
    scores, mask = drawn(7, (6, 10), new, images=images)
    monkeypatch.setattr(_pixels, "_GROUP_STRIPS", 0)
    alone = of_ours(scores, mask, align_corners=True, hard=hard, label_smoothing=0.1)
    for strips in (7 * new[0] * new[1] * 2, 7 * new[0] * new[1] * 4, 1 << 20):  # groups of 1, 2 and 2; of 2 and 3; of 5
        monkeypatch.setattr(_pixels, "_GROUP_STRIPS", 1)
        monkeypatch.setitem(_pixels._STRIP_ELEMENTS, "cpu", strips)
        agree(of_ours(scores, mask, align_corners=True, hard=hard, label_smoothing=0.1), alone, 1e-6)


def test_a_batch_without_images_has_no_loss():
    scores = torch.zeros(0, 3, 4, 4, requires_grad=True)
    value, gradient = of_ours(scores, torch.zeros(0, 8, 8, dtype=torch.int64), align_corners=True)
    assert value.item() == 0
    assert gradient.shape == scores.shape


def test_a_second_derivative_is_refused_and_not_wrong():
    scores, mask = drawn(3, (4, 4), (8, 8))
    value = pixel_loss(scores, mask, align_corners=True)
    with pytest.raises(ModelError, match="differentiated once"):
        torch.autograd.grad(value, scores, create_graph=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_two_calls_agree_bit_for_bit(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scores, mask = drawn(19, (17, 17), (129, 129))
        first, second = (of_ours(scores, mask, align_corners=True, hard=HardPixels(0.1, 15_000)) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert first[0].item() == second[0].item()
    assert torch.equal(first[1], second[1])


def test_scores_far_apart_neither_overflow_nor_vanish():
    scores, mask = drawn(6, (4, 4), (13, 13), ignored=0)
    scores = (scores.detach() * 1000 + 1e4).requires_grad_()
    expected = of_torch(scores.detach().double().requires_grad_(), mask, align_corners=True)
    value, gradient = of_ours(scores, mask, align_corners=True)
    assert value.item() == pytest.approx(expected[0].item(), rel=1e-6)
    torch.testing.assert_close(gradient.double(), expected[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("hard", [None, HardPixels(0.5, 1), HardPixels(0.1, 100), HardPixels(0.1, 100_000)])
@pytest.mark.parametrize("where", [(0, 1, 2, 2), ...])
def test_not_a_number_is_passed_on(hard, where):
    """Of hard pixels too: a comparison with it is false, and a loss over none of them would be zero."""
    scores, mask = drawn(3, (4, 4), (8, 8))
    with torch.no_grad():
        scores[where] = float("nan")
    assert pixel_loss(scores, mask, align_corners=True, hard=hard).isnan()


def test_half_precision_is_computed_in_single_and_gives_gradients_of_its_own_kind():
    scores, mask = drawn(7, (5, 5), (33, 33))
    for kind in (torch.bfloat16, torch.float16):
        half = scores.detach().to(kind).requires_grad_()
        expected = of_ours(half.detach().float().requires_grad_(), mask, align_corners=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, gradient = of_ours(half, mask, align_corners=True)
        assert value.dtype == torch.float32
        assert value.item() == expected[0].item()
        assert gradient.dtype == kind
        assert torch.equal(gradient, expected[1].to(kind))


def test_settings_for_matrix_products_are_as_they_were():
    before = torch.backends.cuda.matmul.fp32_precision
    scores, mask = drawn(3, (4, 4), (8, 8))
    pixel_loss(scores, mask, align_corners=True)
    assert torch.backends.cuda.matmul.fp32_precision == before


def test_values_need_no_gradient():
    scores, mask = drawn(3, (4, 4), (8, 8))
    with torch.no_grad():
        value = pixel_loss(scores, mask, align_corners=True)
    assert not value.requires_grad
    assert value.item() == pixel_loss(scores, mask, align_corners=True).item()


def test_a_given_denominator_scales_value_and_gradient():
    scores, mask = drawn(3, (4, 4), (8, 8))
    value, gradient = of_ours(scores, mask, align_corners=True)
    count = valid_weight(mask, 3)
    halved = of_ours(scores, mask, align_corners=True, denominator=2 * count)
    assert halved[0].item() == pytest.approx(value.item() / 2)
    torch.testing.assert_close(halved[1], gradient / 2)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 200),
    kinds=st.integers(1, 50),
    ignored=st.integers(0, 50),
    threshold=st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    min_kept=st.integers(1, 260),
    seed=st.integers(0, 1000),
)
def test_selection_is_that_of_a_full_sort(count, kinds, ignored, threshold, min_kept, seed):
    draw = np.random.default_rng(seed)
    values = torch.from_numpy(draw.integers(0, kinds, count) / kinds).float()  # with ties
    found = hard_pixels(torch.cat([values, torch.full((ignored,), 2.0)]), HardPixels(threshold, min_kept))[:count]
    ascending = values.sort().values
    cut = max(threshold, ascending[min(min_kept, count) - 1].item())
    assert torch.equal(found, values <= cut)


def test_selection_on_the_device_is_that_on_the_processor(monkeypatch):
    """The branch without a look at the numbers, run on the processor by a tensor that says it is elsewhere."""

    class Elsewhere(torch.Tensor):
        device = torch.device("meta")

    values = torch.rand(500, generator=torch.Generator().manual_seed(0))
    for hard in (HardPixels(0.7, 10), HardPixels(0.1, 200), HardPixels(0.1, 500), HardPixels(0.1, 501)):
        found = hard_pixels(values.as_subclass(Elsewhere), hard)
        assert torch.equal(found.as_subclass(torch.Tensor), hard_pixels(values, hard))


def test_memory_stays_far_below_that_of_the_logits():
    scores, mask = drawn(40, (17, 17), (129, 129), images=4)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        pixel_loss(scores, mask, align_corners=True).backward()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    logits = 4 * 40 * 129 * 129 * 4
    assert 0 < peak < 0.6 * logits  # torch's own way: three times the logits and more


@pytest.mark.parametrize(("scores", "mask"), [((2, 3, 4, 4), (1, 8, 8)), ((2, 3, 4, 4), (2, 1, 8, 8))])
def test_scores_and_masks_that_do_not_fit_are_refused(scores, mask):
    with pytest.raises(ModelError, match="do not fit a mask of shape"):
        pixel_loss(torch.zeros(scores), torch.zeros(mask, dtype=torch.int64), align_corners=True)


@pytest.mark.gpu
@pytest.mark.parametrize("hard", [None, HardPixels(0.1, 50_000)])
def test_cuda_repeats_itself_and_agrees_with_the_processor(hard):
    scores, mask = drawn(19, (33, 33), (257, 257))
    expected = of_ours(scores, mask, align_corners=True, hard=hard)
    there = scores.detach().cuda().requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (of_ours(there, mask.cuda(), align_corners=True, hard=hard) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first[1], second[1])
    agree((first[0].cpu(), first[1].cpu()), expected, 1e-5)
