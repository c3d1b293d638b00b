import numpy as np
import pytest

from gald.metrics import WIDTHS, CountTable, Layout, count_image, detail_per_class, detail_scores

LAYOUT = Layout(3, (2, 6, 20))


def table_of(*images: dict[str, np.ndarray]) -> CountTable:
    return CountTable.of([str(index) for index in range(len(images))], LAYOUT, images)


def test_scores_by_hand() -> None:
    # a boundary between columns 3 and 4, predicted one column to the right; class 2 occurs nowhere
    truth, prediction = np.zeros((2, 5, 10), np.uint8)
    truth[:, 4:], prediction[:, 5:] = 1, 1
    found = detail_scores(table_of(count_image(truth, prediction, LAYOUT)))
    assert found["mean_iou"] == pytest.approx((20 / 25 + 25 / 30) / 2)
    assert found["pixel_accuracy"] == pytest.approx(45 / 50)
    assert found["mean_accuracy"] == pytest.approx((20 / 20 + 25 / 30) / 2)
    assert found["frequency_weighted_iou"] == pytest.approx((20 * 20 / 25 + 30 * 25 / 30) / 50)
    # within one pixel: column 3 is right, column 4 is wrong
    assert found["trimap_mean_iou_1"] == pytest.approx((5 / 10 + 0) / 2)
    # within three: columns 1 to 3 are right, 4 is wrong, 5 and 6 are right
    assert found["trimap_mean_iou_3"] == pytest.approx((15 / 20 + 10 / 15) / 2)
    # bands of class 0: columns 3 and 4, then 1 to 3 and 2 to 4; of class 1: 4 and 5, then 4 to 6 and 5 to 7
    assert found["boundary_iou_1"] == 0
    assert found["boundary_iou_3"] == pytest.approx(2 / 4)
    assert [found[f"boundary_f_{width}"] for width in WIDTHS] == [1.0] * 5
    # both objects are larger than 6 pixels; that of 20 belongs to the third bin, that of 30 to the fourth
    assert [found[f"object_accuracy_{q}"] for q in (3, 4)] == pytest.approx([20 / 20, 25 / 30])
    assert [found[f"object_found_{q}"] for q in (3, 4)] == [1.0, 1.0]
    assert np.isnan([found[f"object_accuracy_{q}"] for q in (1, 2)]).all()
    # five pixels are too few for a zone nearer than a tenth: all is in the innermost
    assert found["border_mean_iou_4"] == found["mean_iou"]
    assert np.isnan([found[f"border_mean_iou_{z}"] for z in (1, 2, 3)]).all()


def test_boundary_f_is_averaged_over_the_images_that_show_the_class() -> None:
    shape = (6, 40)
    truths, predictions = np.zeros((2, 4, *shape), np.uint8)
    truths[0, :, 20:], predictions[0, :, 20:] = 1, 1  # found exactly: 1
    truths[1, :, 20:], predictions[1, :, 24:] = 1, 1  # four pixels off: 0 within three
    truths[2, :, 20:] = 1  # not found: 0
    predictions[3, :, 20:] = 1  # not in the truth: does not count for class 1
    table = table_of(*(count_image(*pair, LAYOUT) for pair in zip(truths, predictions, strict=True)))
    found = detail_per_class(table, width=3)
    assert found["boundary_f_3"][1] == pytest.approx((1 + 0 + 0) / 3)
    assert found["boundary_f_3"][0] == pytest.approx((1 + 0 + 0 + 0) / 4)
    assert np.isnan(found["boundary_f_3"][2])
    assert detail_per_class(table, width=5)["boundary_f_5"][1] == pytest.approx((1 + 1 + 0) / 3)


def test_boundary_f_is_the_harmonic_mean() -> None:
    image = {name: np.zeros(shape, np.int64) for name, shape in LAYOUT.shapes().items()}
    image["rings"][5, 1, 1] = 9
    image["boundary_f"][:, 1] = (30, 40, 10, 50)
    found = detail_per_class(table_of(image), width=1)["boundary_f_1"][1]
    assert found == pytest.approx(2 * (30 / 40) * (10 / 50) / (30 / 40 + 10 / 50))


def test_neither_boundary_is_a_match_and_one_alone_a_miss() -> None:
    whole = np.ones((5, 8), np.uint8)
    half = whole.copy()
    half[:, 4:] = 0
    assert detail_per_class(table_of(count_image(whole, whole, LAYOUT)), width=3)["boundary_f_3"][1] == 1
    assert detail_per_class(table_of(count_image(whole, half, LAYOUT)), width=3)["boundary_f_3"][1] == 0


def test_boundary_iou_is_of_the_sums_and_of_classes_in_the_truth() -> None:
    image = {name: np.zeros(shape, np.int64) for name, shape in LAYOUT.shapes().items()}
    image["rings"][5, :2, :2] = 9
    image["boundary_iou"][0] = [[1, 2], [0, 4], [0, 6]]
    other = {name: counts.copy() for name, counts in image.items()}
    other["boundary_iou"][0] = [[5, 8], [2, 4], [0, 6]]
    found = detail_per_class(table_of(image, other), width=1)["boundary_iou_1"]
    np.testing.assert_array_equal(found, [6 / 10, 2 / 8, np.nan])


def test_nothing_counted_is_nan() -> None:
    truth = np.full((5, 8), 255, np.uint8)
    found = detail_scores(table_of(count_image(truth, np.zeros((5, 8), np.uint8), LAYOUT)))
    assert np.isnan(list(found.values())).all()
