import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gald.metrics import WIDTHS, _matching
from gald.metrics._matching import match
from gald.metrics.boundary import boundary_f, boundary_iou, boundary_rings
from tests.unit.metrics.scenes import drawn_pair


def band(truth, width):
    """The trimap of one width."""
    return (boundary_rings(truth, (width,)) == 0) & (truth != 255)


def test_band_by_hand() -> None:
    truth = np.zeros((5, 6), np.uint8)
    truth[:, 3:] = 1
    one = band(truth, 1).astype(int)
    two = band(truth, 2).astype(int)
    assert one.tolist() == [[0, 0, 1, 1, 0, 0]] * 5
    assert two.tolist() == [[0, 1, 1, 1, 1, 0]] * 5


def test_ignored_pixels_make_no_boundary_and_hide_none() -> None:
    truth = np.array([[0, 0, 255, 0, 0, 255, 1, 1]], np.uint8)
    assert band(truth, 1).tolist() == [[False] * 8]
    assert band(truth, 2).astype(int).tolist() == [[0, 0, 0, 0, 1, 0, 1, 0]]


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_band_equals_a_naive_search(width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 254, 255], np.uint8), (7, 9), p=[0.6, 0.1, 0.1, 0.2])
    naive = np.zeros(truth.shape, bool)
    for (row, column), own in np.ndenumerate(truth):
        near = truth[max(0, row - width) : row + width + 1, max(0, column - width) : column + width + 1]
        naive[row, column] = own != 255 and ((near != own) & (near != 255)).any()
    np.testing.assert_array_equal(band(truth, width), naive)


@given(st.integers(0, 2**32 - 1))
def test_rings_part_the_bands(seed: int) -> None:
    truth, _ = drawn_pair(seed, 3, (9, 40))
    rings = boundary_rings(truth)
    for index, width in enumerate(WIDTHS):
        np.testing.assert_array_equal((rings <= index) & (truth != 255), band(truth, width))


def contour(mask, others, width):
    """Pixels of a class with a pixel of another within the width, asked one by one."""
    found = np.zeros(mask.shape, bool)
    for row, column in np.argwhere(mask):
        near = others[max(0, row - width) : row + width + 1, max(0, column - width) : column + width + 1]
        found[row, column] = near.any()
    return found


def within(points, others, width):
    """Count the points with one of the others within the width."""
    return sum((abs(others - point).max(axis=1) <= width).any() for point in points) if len(others) else 0


def counted(count, truth, prediction, num_classes):
    """Ask for counts as `count_image` does."""
    prediction = np.where(truth == 255, np.uint8(255), prediction)
    return count(truth, prediction, boundary_rings(truth), boundary_rings(prediction), num_classes)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_classes", [2, 5])
def test_boundary_iou_equals_the_formula_of_each_class(seed: int, num_classes: int) -> None:
    truth, prediction = drawn_pair(seed, num_classes, (12, 30))
    known = truth != 255
    found = counted(boundary_iou, truth, prediction, num_classes)
    for index, width in enumerate(WIDTHS):
        for k in range(num_classes):
            of_truth = contour(known & (truth == k), known & (truth != k), width)
            of_prediction = contour(known & (prediction == k), known & (prediction != k), width)
            expected = [(of_truth & of_prediction).sum(), (of_truth | of_prediction).sum()]
            assert found[index, k].tolist() == expected


def test_boundary_iou_is_the_papers_away_from_edges() -> None:
    truth, prediction = np.zeros((2, 60, 60), np.uint8)
    truth[20:40, 20:40] = 1
    prediction[22:43, 19:38] = 1
    square = np.ones((3, 3), np.uint8)
    found = counted(boundary_iou, truth, prediction, 2)
    for index, width in enumerate(WIDTHS):
        bands = [(mask - cv2.erode(mask, square, iterations=width)).astype(bool) for mask in (truth, prediction)]
        assert found[index, 1].tolist() == [(bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_classes", [2, 5])
def test_boundary_f_equals_the_formula_of_each_class(seed: int, num_classes: int) -> None:
    truth, prediction = drawn_pair(seed, num_classes, (12, 30))
    known = truth != 255
    found = counted(boundary_f, truth, prediction, num_classes)
    for k in range(num_classes):
        of_truth = np.argwhere(contour(known & (truth == k), known & (truth != k), 1))
        of_prediction = np.argwhere(contour(known & (prediction == k), known & (prediction != k), 1))
        for index, width in enumerate(WIDTHS):
            expected = [within(of_prediction, of_truth, width), len(of_prediction)]
            expected += [within(of_truth, of_prediction, width), len(of_truth)]
            assert found[index, k].tolist() == expected


def test_a_boundary_moved_by_four_pixels_is_matched_from_five_on() -> None:
    truth, prediction = np.zeros((2, 6, 40), np.uint8)
    truth[:, 20:], prediction[:, 24:] = 1, 1
    found = counted(boundary_f, truth, prediction, 2)
    assert found[:, 0].tolist() == [[0, 6, 0, 6]] * 2 + [[6, 6, 6, 6]] * 3


@pytest.mark.parametrize(("orders", "few"), [(7, 20_000), (0, 20_000), (0, 0), (1, 0)])
def test_matching_is_exact_whichever_way_is_taken(monkeypatch: pytest.MonkeyPatch, orders: int, few: int) -> None:
    monkeypatch.setattr(_matching, "_ORDERS", orders)
    monkeypatch.setattr(_matching, "_FEW", few)
    monkeypatch.setattr(_matching, "_CHUNK", 50)
    rng = np.random.default_rng(0)
    for num_labels in (1, 3, 20, 255):
        points, others = rng.integers(0, num_labels, (2, 30, 41)).astype(np.uint8)
        points[rng.random(points.shape) < 0.7] = 255
        others[rng.random(others.shape) < 0.8] = 255
        found = match(points, others, WIDTHS, num_labels)
        for row, column in np.argwhere(points != 255):
            same = np.argwhere(others == points[row, column])
            distance = abs(same - (row, column)).max(axis=1).min(initial=99)
            assert found[row, column] == np.searchsorted(WIDTHS, distance)
