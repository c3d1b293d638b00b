import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gald.transforms._resize import nearest, resize_image, resize_mask
from tests.unit.transforms.samples import assert_same_pixels, library_crop, noise


@settings(deadline=None)
@given(st.data())
def test_crop_before_resize_equals_resize_before_crop(data: st.DataObject) -> None:
    """Where the window begins and ends on whole pixels: masks to the bit; images to one level, away from its edge."""
    up, down = data.draw(st.sampled_from([(2, 1), (3, 2), (1, 2), (3, 4), (5, 4), (2, 3)]))
    height, width = (down * data.draw(st.integers(8, 30)) for _ in range(2))
    image, mask = noise(height, width, data.draw(st.integers(0, 99)))
    tall, wide = height // down, width // down
    top, left = data.draw(st.integers(0, tall - 6)), data.draw(st.integers(0, wide - 6))
    rows, columns = data.draw(st.integers(6, tall - top)), data.draw(st.integers(6, wide - left))
    window = np.s_[down * top : down * (top + rows), down * left : down * (left + columns)]
    shown = np.s_[up * top : up * (top + rows), up * left : up * (left + columns)]
    size, all_of_it = (up * rows, up * columns), (up * tall, up * wide)
    np.testing.assert_array_equal(resize_mask(mask[window], size), resize_mask(mask, all_of_it)[shown])
    difference = np.abs(resize_image(image[window], size).astype(int) - resize_image(image, all_of_it)[shown])
    inner = np.s_[2:-2, 2:-2]  # a window's edge pixels lack their neighbours outside, as in torchvision's resized_crop
    assert difference[inner].max(initial=0) <= (0 if (up, down) in {(2, 1), (1, 2)} else 1)
    smooth = np.clip(np.add.outer(np.arange(height), np.arange(width))[..., None] * [1, 2, 1], 0, 255).astype(np.uint8)
    difference = np.abs(resize_image(smooth[window], size).astype(int) - resize_image(smooth, all_of_it)[shown])
    assert difference.max() <= 3  # of a slope of 2 levels a pixel, edges included


@settings(deadline=None)
@example(1, 4, 47, 82)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 150), st.integers(1, 150))
def test_resizing_is_torchvisions_to_the_bit(height: int, width: int, tall: int, wide: int) -> None:
    image, mask = noise(height, width)
    for resized, whole in ((resize_image(image, (tall, wide)), image), (resize_mask(mask, (tall, wide)), mask)):
        assert_same_pixels(resized, library_crop(whole, (0, 0, height, width), (tall, wide)), (height, width))


def test_masks_take_the_pixel_under_the_centre() -> None:
    for result in (20, 96, 240, 513, 769):
        for source in range(1, 1600, 7):
            twice = (2 * np.arange(result) + 1) * source  # of the centres, in units of half a result's pixel
            exact, between = twice // (2 * result), twice % (2 * result) == 0
            found = nearest(source, result)
            np.testing.assert_array_equal(found[~between], exact[~between])
            assert ((exact - found)[between] >= 0).all()  # of two that are equally near, either
            assert ((exact - found)[between] <= 1).all()


@pytest.mark.parametrize("size", [(20, 24), (13, 40), (37, 24)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_masks_are_resized_into_their_place(size: tuple[int, int], mirrored: bool) -> None:
    mask = noise(20, 24)[1]
    expected = resize_mask(mask, size)[:, :: -1 if mirrored else 1]
    np.testing.assert_array_equal(resize_mask(mask, size, mirrored=mirrored), expected)
    around = np.full((size[0] + 2, size[1] + 2), 7, np.uint8)
    resize_mask(mask, size, mirrored=mirrored, out=around[1:-1, 1:-1])
    np.testing.assert_array_equal(around[1:-1, 1:-1], expected)
    around[1:-1, 1:-1] = 7
    assert (around == 7).all()
