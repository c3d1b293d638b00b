import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gald.params import Run, TrainParams, read_yaml
from gald.transforms import PADDING_COLOUR, Draws, Window, augment, draw, jitter, resize_image, resize_mask

BASE = read_yaml(Path(__file__).parents[2] / "params" / "base.yaml")
NEUTRAL = Draws(scale=0.5, top=0.5, left=0.5, flip=0.9, brightness=0.5, contrast=0.5, saturation=0.5)


def recipe(**changes: object) -> TrainParams:
    """Recipe that only crops to 20x24."""
    plain = {"crop_size": [20, 24], "scale_range": [1.0, 1.0], "flip": False, "color_jitter": 0.0}
    return TrainParams.model_validate(BASE["train"] | plain | changes)


def sample(height: int = 30, width: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 4, (height // 5 + 1, width // 5 + 1)).repeat(5, 0).repeat(5, 1)[:height, :width]
    mask = mask.astype(np.uint8)
    return np.stack([mask * 60, 255 - mask * 60, mask * 30 + 20], axis=-1).astype(np.uint8), mask


def test_draws_are_a_function_of_seed_iteration_and_position() -> None:
    drawn = {draw(*key) for key in np.ndindex(3, 4, 5)}
    assert len(drawn) == 60
    assert draw(2, 3, 4) == draw(2, 3, 4)
    assert all(0 <= value < 1 for value in draw(2, 3, 4))


def test_a_switch_changes_no_other_draw() -> None:
    image, mask = sample()
    plain = augment(image, mask, draw(0, 0, 0), recipe(scale_range=[0.5, 2.0]))
    flipped = augment(image, mask, draw(0, 0, 0)._replace(flip=0.1), recipe(scale_range=[0.5, 2.0], flip=True))
    np.testing.assert_array_equal(plain[0][:, ::-1], flipped[0])
    np.testing.assert_array_equal(plain[1][:, ::-1], flipped[1])


def test_neutral_draws_crop_the_middle() -> None:
    image, mask = sample()
    cropped, cropped_mask = augment(image, mask, NEUTRAL, recipe())
    np.testing.assert_array_equal(cropped, image[5:25, 8:32])
    np.testing.assert_array_equal(cropped_mask, mask[5:25, 8:32])


@given(st.integers(0, 1000))
def test_image_and_mask_move_together(iteration: int) -> None:
    # scaled by whole numbers, so that the colours of a class stay what they are away from its edges
    image, mask = sample(seed=iteration)
    params = recipe(scale_range=[2.0, 2.0], flip=True, crop_size=[40, 90])
    got, got_mask = augment(image, mask, draw(0, iteration, 0), params)
    inside = got_mask != 255
    expected = np.stack([got_mask * 60, 255 - got_mask * 60, got_mask * 30 + 20], axis=-1)
    close = np.abs(got.astype(int) - expected).max(axis=-1)[inside] <= 1
    assert close.mean() > 0.6
    assert (got[~inside] == PADDING_COLOUR).all()
    assert inside.sum() == 40 * 80  # the width was padded, the height cropped


def test_smaller_samples_are_padded_and_ignored() -> None:
    image, mask = sample(10, 12)
    got, got_mask = augment(image, mask, NEUTRAL, recipe())
    assert (got_mask != 255).sum() == 120
    rows, columns = np.nonzero(got_mask != 255)
    np.testing.assert_array_equal(got[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], image)


@pytest.mark.parametrize("size", [(13, 17), (30, 40), (61, 83), (300, 47)])
@given(st.data())
def test_a_window_equals_resizing_everything(size: tuple[int, int], data: st.DataObject) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    mask = image[..., 0]
    top = data.draw(st.integers(0, size[0] - 1))
    left = data.draw(st.integers(0, size[1] - 1))
    window = Window(top, left, data.draw(st.integers(top + 1, size[0])), data.draw(st.integers(left + 1, size[1])))
    shown = np.s_[window.top : window.bottom, window.left : window.right]
    whole = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    difference = np.abs(resize_image(image, size, window).astype(int) - whole[shown])
    assert difference.max() <= 2  # Pillow rounds to 8 bits between the two directions, and its weights to 22 bits
    np.testing.assert_array_equal(resize_mask(mask, size, window), resize_mask(mask, size)[shown])


def test_masks_take_the_pixel_below_the_centre() -> None:
    mask = np.arange(30 * 40, dtype=np.uint32).reshape(30, 40).view(np.uint8)[:, ::4]
    for height, width in ((13, 17), (61, 83), (300, 47)):
        rows = [math.floor(Fraction(2 * row + 1, 2) * 30 / height) for row in range(height)]
        columns = [math.floor(Fraction(2 * column + 1, 2) * 40 / width) for column in range(width)]
        np.testing.assert_array_equal(resize_mask(mask, (height, width)), mask[np.ix_(rows, columns)])


def test_image_size_comes_before_the_scale() -> None:
    image, mask = sample(90, 120)
    got, got_mask = augment(image, mask, NEUTRAL, recipe(image_size=[30, 40], crop_size=[30, 40]))
    np.testing.assert_array_equal(got, resize_image(image, (30, 40)))
    np.testing.assert_array_equal(got_mask, resize_mask(mask, (30, 40)))


def test_jitter_by_hand() -> None:
    image = np.array([[[100, 100, 100], [50, 50, 50]]], np.uint8)  # grey, so saturation does nothing
    brighter = jitter(image, NEUTRAL._replace(brightness=1.0), 0.5)
    flatter = jitter(image, NEUTRAL._replace(contrast=0.0), 0.5)
    assert brighter[0, :, 0].tolist() == [150, 75]
    assert flatter[0, :, 0].tolist() == [88, 62]  # 75 +- 12.5, rounded to even
    grey = jitter(np.array([[[100, 200, 0]]], np.uint8), NEUTRAL._replace(saturation=0.0), 1.0)
    assert grey[0, 0].tolist() == [147, 147, 147]  # 0.299 * 100 + 0.587 * 200 = 147.3
    assert jitter(image, NEUTRAL, 0.5).tolist() == image.tolist()


def test_inputs_are_left_alone(make_run: Callable[..., Run]) -> None:
    image, mask = sample()
    before = image.copy(), mask.copy()
    augment(image, mask, draw(0, 0, 0), make_run().params.train)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])
