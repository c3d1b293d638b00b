import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gald.datasets._rle import decode, encode
from gald.errors import DatasetError

# written by pycocotools 2.0 for the mask below: differences of both signs, and runs of more than one group
GOLDEN = "01R5o0VK0_1RO_O00000000000000000000000V<"


def golden_mask() -> np.ndarray:
    mask = np.zeros((40, 30), dtype=bool)
    mask[3:35, 4:6] = True
    mask[10:12, 7:20] = True
    mask[0, 0] = True
    return mask


def test_equals_pycocotools() -> None:
    assert encode(golden_mask()) == GOLDEN
    np.testing.assert_array_equal(decode(GOLDEN, (40, 30)), golden_mask())


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda size: arrays(bool, size)))
def test_round_trip(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(encode(mask), mask.shape), mask)


def test_large_runs_round_trip() -> None:
    mask = np.zeros((375, 500), dtype=bool)
    mask[20:300, 50:260] = True
    np.testing.assert_array_equal(decode(encode(mask), mask.shape), mask)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (GOLDEN[:-1], "cut off|pixels"),
        (GOLDEN + "5", "pixels"),
        (GOLDEN[:3] + "P", "cut off"),
        (" ", "character"),
        ("122O_O", "pixels|negative"),
    ],
)
def test_damage_is_told(counts: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        decode(counts, (40, 30))
