import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gald.metrics import boundary_band, confusion_matrix, scores


def test_confusion_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    expected = [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    counts = confusion_matrix(truth, prediction, 3)
    assert counts.tolist() == expected
    assert counts.dtype == np.int64


def test_scores_by_hand() -> None:
    # truth: 3, 2, 1, 0 pixels of classes 0 to 3; class 3 is predicted once, class 4 occurs nowhere
    confusion = np.array([[2, 0, 0, 1, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0] * 5, [0] * 5])
    found = scores(confusion)
    np.testing.assert_array_equal(found.iou, [2 / 4, 1 / 2, 1, np.nan, np.nan])
    assert (
        found.mean_iou == (2 / 4 + 1 / 2 + 1) / 3
    )  # the wrong pixel of class 3 counts against class 0, and class 3 is no zero
    assert found.mean_accuracy == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found.pixel_accuracy == 4 / 6
    assert found.absent == (3, 4)


def test_nothing_counted_is_nan_not_zero() -> None:
    found = scores(np.zeros((2, 2), np.int64))
    assert np.isnan([found.mean_iou, found.mean_accuracy, found.pixel_accuracy]).all()
    assert found.absent == (0, 1)


def test_counts_beyond_float32_stay_exact() -> None:
    found = scores(np.array([[2**53 - 1, 1], [0, 2**24 + 1]], np.int64))
    assert found.iou[1] == (2**24 + 1) / (2**24 + 2)


@given(st.integers(1, 255), st.integers(0, 2**32 - 1))
def test_confusion_equals_a_naive_count(num_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, (5, 7)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.2] = 255
    prediction = rng.integers(0, num_classes, (5, 7)).astype(np.uint8)
    naive = np.zeros((num_classes, num_classes), np.int64)
    for true_class, predicted in zip(truth.flat, prediction.flat, strict=True):
        if true_class != 255:
            naive[true_class, predicted] += 1
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, num_classes), naive)


def test_ids_out_of_range_are_named() -> None:
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="mask holds train id 7, but there are only 3"):
        confusion_matrix(zeros + np.uint8(7), zeros, 3)
    with pytest.raises(ValueError, match="prediction holds class 3"):
        confusion_matrix(zeros, zeros + np.uint8(3), 3)
    with pytest.raises(ValueError, match=r"\(2, 2\), the prediction \(1, 2\)"):
        confusion_matrix(zeros, zeros[:1], 3)


def test_band_by_hand() -> None:
    truth = np.zeros((5, 6), np.uint8)
    truth[:, 3:] = 1
    one = boundary_band(truth, 1).astype(int)
    two = boundary_band(truth, 2).astype(int)
    assert one.tolist() == [[0, 0, 1, 1, 0, 0]] * 5
    assert two.tolist() == [[0, 1, 1, 1, 1, 0]] * 5


def test_ignored_pixels_make_no_boundary_and_hide_none() -> None:
    truth = np.array([[0, 0, 255, 0, 0, 255, 1, 1]], np.uint8)
    assert boundary_band(truth, 1).tolist() == [[False] * 8]
    assert boundary_band(truth, 2).astype(int).tolist() == [[0, 0, 0, 0, 1, 0, 1, 0]]


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_band_equals_a_naive_search(width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 254, 255], np.uint8), (7, 9), p=[0.6, 0.1, 0.1, 0.2])
    naive = np.zeros(truth.shape, bool)
    for (row, column), own in np.ndenumerate(truth):
        near = truth[max(0, row - width) : row + width + 1, max(0, column - width) : column + width + 1]
        naive[row, column] = own != 255 and ((near != own) & (near != 255)).any()
    np.testing.assert_array_equal(boundary_band(truth, width), naive)


def test_counting_a_large_pair_is_quick() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = (rng.integers(0, 19, (1024, 2048)).astype(np.uint8) for _ in range(2))
    confusion_matrix(truth, prediction, 19)
    began = time.perf_counter()
    confusion_matrix(truth, prediction, 19)
    assert time.perf_counter() - began < 0.25  # some 5 ms on a free core
