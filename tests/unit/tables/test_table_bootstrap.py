"""The paired bootstrap against a loop over resampled confusion matrices."""

import numpy as np
import pytest

from gald.tables import bootstrap
from gald.tables.bootstrap import paired_bootstrap


def confusions(seed, images=12, classes=4):
    """Confusion matrices of images with a few of the classes each, and the same truth for every seed."""
    truth = np.random.default_rng(99)
    shown = truth.random((images, classes)) < 0.5
    pixels = truth.integers(5, 100, (images, classes)) * shown
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.ones(classes), (images, classes))
    drawn = np.floor(pixels[..., None] * (0.3 * shares)).astype(np.int64)
    drawn[:, range(classes), range(classes)] += pixels - drawn.sum(axis=2)
    return drawn


def per_class(matrices):
    right = np.diagonal(matrices, axis1=1, axis2=2)
    return np.stack([right, matrices.sum(axis=2), matrices.sum(axis=1)], axis=-1)


def mean_iou(matrix):
    known = matrix.sum(axis=1) > 0
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - np.diagonal(matrix)
    return np.mean(np.diagonal(matrix)[known] / union[known])


def test_it_is_the_loop_over_drawn_confusion_matrices():
    first, second = confusions(1), confusions(2)
    found = paired_bootstrap(per_class(first), per_class(second), resamples=200)
    assert (found.first, found.second) == pytest.approx((mean_iou(first.sum(0)), mean_iou(second.sum(0))), rel=1e-14)
    drawn = np.random.default_rng(0).integers(0, 12, (200, 12))  # as documented: one seed, images with replacement
    changes = [mean_iou(second[places].sum(0)) - mean_iou(first[places].sum(0)) for places in drawn]
    assert found.interval == pytest.approx(np.quantile(changes, (0.025, 0.975)), rel=1e-12)
    assert found.interval[0] < found.difference < found.interval[1]


def test_the_size_of_the_chunks_changes_no_bit(monkeypatch):
    counts = per_class(confusions(1)), per_class(confusions(2))
    whole = paired_bootstrap(*counts, resamples=500)
    monkeypatch.setattr(bootstrap, "_CELLS", 12 * 7)
    assert paired_bootstrap(*counts, resamples=500) == whole
    assert paired_bootstrap(*counts, resamples=500, seed=1).interval != whole.interval


def test_a_class_that_a_draw_lacks_is_left_out_of_it():
    # Two images of one class each, 8 and 4 pixels. The first network is right on the first alone, the second on both:
    # IoU 8/12 and 0, then 1 and 1. Draws: the first image twice 1 - 1, both 1 - 1/3, the second twice 1 - 0.
    first = np.array([[[8, 8, 8], [0, 0, 0]], [[0, 0, 4], [0, 4, 0]]])
    second = np.array([[[8, 8, 8], [0, 0, 0]], [[0, 0, 0], [4, 4, 4]]])
    drawn = [sorted(places) for places in np.random.default_rng(0).integers(0, 2, (400, 2)).tolist()]
    expected = [{(0, 0): 0.0, (0, 1): 1 - 1 / 3, (1, 1): 1.0}[tuple(places)] for places in drawn]
    found = paired_bootstrap(first, second, resamples=400, confidence=0.2)
    assert found.interval == pytest.approx(np.quantile(expected, (0.4, 0.6)))
    assert len(set(expected)) == 3


@pytest.mark.parametrize("images", [1, 5, 6])
def test_a_few_images_give_no_verdict(images: int):
    worse = np.tile([[[4, 8, 8], [4, 8, 8]]], (images, 1, 1))
    better = np.tile([[[8, 8, 8], [8, 8, 8]]], (images, 1, 1))
    found = paired_bootstrap(worse, better, resamples=50)
    assert found.interval == pytest.approx((2 / 3, 2 / 3))
    assert found.distinguishable == (images == 6)
    assert found.says == ("the interval leaves zero out" if images == 6 else "fewer than 6 labelled images, no verdict")


def test_images_without_a_labelled_pixel_move_nothing_and_alone_are_refused():
    first, second = (per_class(confusions(seed).sum(axis=0, keepdims=True)) for seed in (1, 2))
    empty = np.zeros((1, 4, 3), np.int64)
    found = paired_bootstrap(np.concatenate([first, empty]), np.concatenate([second, empty]), resamples=50)
    assert found.interval == pytest.approx((found.difference, found.difference))  # draws of the empty one have no score
    with pytest.raises(ValueError, match="no image has a labelled pixel"):
        paired_bootstrap(empty, empty)


def test_images_without_a_labelled_pixel_are_no_evidence():
    worse, better = np.tile([[[4, 8, 8]]], (5, 1, 1)), np.tile([[[8, 8, 8]]], (5, 1, 1))
    empty = np.zeros((20, 1, 3), np.int64)
    found = paired_bootstrap(np.concatenate([worse, empty]), np.concatenate([better, empty]), resamples=50)
    assert (found.images, found.labelled) == (25, 5)
    assert found.says == "fewer than 6 labelled images, no verdict"


def test_two_networks_with_other_truths_are_refused():
    first, second = per_class(confusions(1)), per_class(confusions(2))
    second[0, 0, 1] += 1
    with pytest.raises(ValueError, match="not scored on the same images"):
        paired_bootstrap(first, second)
    with pytest.raises(ValueError, match="not scored on the same images"):
        paired_bootstrap(first, second[:-1])


def test_equal_networks_differ_by_nothing():
    counts = per_class(confusions(1))
    found = paired_bootstrap(counts, counts, resamples=100)
    assert found.interval == (0.0, 0.0)
    assert not found.distinguishable
