import numpy as np
import pytest

from gald.metrics import BORDER
from gald.metrics.border import border_zones
from tests.unit.metrics.scenes import drawn_pair


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 60), (30, 50), (101, 57)])
def test_zones_equal_a_loop_over_pixels(shape: tuple[int, int]) -> None:
    truth, prediction = drawn_pair(1, 3, shape)
    expected = np.zeros((4, 3, 3), np.int64)
    for (row, column), own in np.ndenumerate(truth):
        if own != 255:
            nearest = min(row, column, shape[0] - 1 - row, shape[1] - 1 - column) + 0.5
            zone = sum(nearest >= share * min(shape) for share in BORDER)
            expected[zone, own, prediction[row, column]] += 1
    np.testing.assert_array_equal(border_zones(truth, prediction, 3), expected)
