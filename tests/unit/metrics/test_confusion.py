import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gald.metrics import _tally, confusion_matrix, confusion_on_device, scores
from tests.unit.metrics.scenes import drawn_pair


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
    np.testing.assert_array_equal(found.accuracy, [2 / 3, 1 / 2, 1, np.nan, np.nan])
    assert found.frequency_weighted_iou == pytest.approx((3 * 2 / 4 + 2 * 1 / 2 + 1) / 6)
    assert found.absent == (3, 4)


def test_nothing_counted_is_nan_not_zero() -> None:
    found = scores(np.zeros((2, 2), np.int64))
    assert np.isnan([found.mean_iou, found.mean_accuracy, found.pixel_accuracy, found.frequency_weighted_iou]).all()
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


def test_counts_beyond_what_opencv_hands_out_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tally, "_EXACT_PIXELS", 4)
    truth, prediction = drawn_pair(3, 5)
    expected = np.zeros((5, 5), np.int64)
    known = truth != 255
    np.add.at(expected, (truth[known], prediction[known]), 1)
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, 5), expected)


def test_counting_where_asked_leaves_the_rest_unread() -> None:
    truth, prediction = np.array([[0, 1, 7]], np.uint8), np.array([[0, 0, 9]], np.uint8)
    where = np.array([[True, True, False]])
    assert confusion_matrix(truth, prediction, 2, where=where).tolist() == [[1, 0], [1, 0]]
    assert confusion_matrix(truth, prediction, 2, where=np.zeros((1, 3), bool)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("num_classes", [1, 19, 171, 255])
def test_tensors_are_counted_alike(num_classes: int) -> None:
    truth, prediction = drawn_pair(num_classes, num_classes)
    expected = confusion_matrix(truth, prediction, num_classes)
    for kind in (torch.uint8, torch.int64):
        found = confusion_on_device(
            torch.from_numpy(truth).to(kind), torch.from_numpy(prediction).to(kind), num_classes
        )
        assert found.dtype == torch.int64
        np.testing.assert_array_equal(found.numpy(), expected)


def test_tensors_out_of_range_are_refused() -> None:
    zeros = torch.zeros(2, 2, dtype=torch.int64)
    for truth, prediction in ((zeros + 7, zeros), (zeros - 1, zeros), (zeros, zeros + 3), (zeros, zeros + 255)):
        with pytest.raises(ValueError, match="there are only 3 classes"):
            confusion_on_device(truth, prediction, 3)
    with pytest.raises(ValueError, match=r"\(2, 2\), the prediction \(1, 2\)"):
        confusion_on_device(zeros, zeros[:1], 3)
    assert confusion_on_device(zeros[:0], zeros[:0], 2).tolist() == [[0, 0], [0, 0]]
    assert confusion_on_device(zeros + 255, zeros, 2).tolist() == [[0, 0], [0, 0]]
