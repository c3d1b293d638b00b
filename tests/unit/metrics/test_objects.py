import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from gald.metrics import area_edges, component_areas
from gald.metrics.objects import objects
from tests.unit.metrics.scenes import drawn_pair

EDGES = (2, 5, 20)


def test_objects_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [255, 1, 0, 0], [2, 2, 2, 0]], np.uint8)
    prediction = np.array([[0, 1, 1, 1], [1, 0, 0, 1], [2, 0, 0, 0]], np.uint8)
    # classes 0 and 1 cross, and both hold together over the corner
    assert component_areas(truth, 3).tolist() == [5, 3, 3]
    found = objects(truth, prediction, EDGES, 3)
    assert found[1].tolist() == [[3, 5, 1, 1], [2, 3, 1, 1], [1, 3, 0, 1]]
    assert not found[[0, 2, 3]].any()
    assert objects(truth, prediction, (3, 4, 20), 3)[:, 0, 3].tolist() == [0, 0, 1, 0]


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]), st.sampled_from([(13, 17), (1, 9), (9, 1), (1, 1)]))
def test_objects_equal_components_class_by_class(seed: int, num_classes: int, shape: tuple[int, int]) -> None:
    truth, prediction = drawn_pair(seed, num_classes, shape)
    expected, areas = np.zeros((4, num_classes, 4), np.int64), []
    for k in range(num_classes):
        labels, count = ndimage.label(truth == k, np.ones((3, 3)))
        for label in range(1, count + 1):
            area, right = (labels == label).sum(), ((labels == label) & (prediction == k)).sum()
            areas.append((k, area))
            expected[sum(area > edge for edge in EDGES), k] += (right, area, 2 * right >= area, 1)
    np.testing.assert_array_equal(objects(truth, prediction, EDGES, num_classes), expected)
    assert sorted(component_areas(truth, num_classes)) == sorted(area for _, area in areas)


def test_edges_are_areas_that_occur() -> None:
    assert area_edges(np.array([5])) == (5, 5, 5)
    assert area_edges(np.arange(100, 0, -1)) == (25, 50, 75)
    with pytest.raises(ValueError, match="no object"):
        area_edges(np.zeros(0, np.int64))
