import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gald.commands import _audit_duplicates as duplicates
from gald.commands._audit_pictures import overlay

hashes = st.lists(
    st.integers(0, 63).flatmap(lambda bit: st.sampled_from([0, 1 << bit, 0xF0F << (bit % 50)])), max_size=9
)


@settings(max_examples=150, deadline=None)
@given(hashes, hashes, st.lists(st.integers(0, 2**64 - 1), max_size=5), st.integers(1, 4))
def test_near_search_misses_nothing(first: list[int], second: list[int], more: list[int], block: int) -> None:
    first, second = first + more, second + [value ^ 0b1011 for value in more]
    same = [str(number % 3) for number in range(len(first))], [str(number % 2) for number in range(len(second))]
    expected = sorted(
        ((a ^ b).bit_count(), i, j)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if (a ^ b).bit_count() <= duplicates.THRESHOLD and same[0][i] != same[1][j]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_BLOCK", block * max(1, len(second)))
        arguments = (
            np.array(first, np.uint64),
            np.array(second, np.uint64),
            (np.array(same[0], "U64"), np.array(same[1], "U64")),
        )
        assert duplicates.compare(*arguments, most=1000) == (len(expected), expected)
        assert duplicates.compare(*arguments, most=2) == (len(expected), expected[:2])


def test_overlay_mixes_colours_and_stripes_ignored_pixels() -> None:
    palette = np.full((256, 3), 100, np.uint8)
    palette[0] = (255, 0, 50)
    image = np.full((1, 9, 3), 200, np.uint8)
    mask = np.array([[0, 0, 255, 255, 255, 255, 255, 255, 255]], np.uint8)
    mixed = overlay(image, mask, palette, 255)
    assert mixed[0, 0].tolist() == [234, 76, 107]  # 0.62 of the colour, 0.38 of the image
    assert mixed[0, 2].tolist() == [138, 138, 138]
    assert (mixed[0, 7] > 200).all()  # a stripe: two columns of seven
    assert (mixed[0, 8] > 200).all()
