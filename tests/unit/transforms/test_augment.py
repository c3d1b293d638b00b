from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gald.params import Run
from gald.transforms._augment import CROPS_TRIED, PADDING_COLOUR, augment, draw, is_balanced
from gald.transforms._crops import span
from gald.transforms._resize import resize_image, resize_mask
from tests.unit.transforms.samples import (
    NEUTRAL,
    STILL,
    F,
    assert_same_pixels,
    library_crop,
    noise,
    pixels,
    planes,
    recipe,
    sample,
)


def test_draws_are_a_function_of_seed_iteration_and_sample() -> None:
    drawn = {draw(*key) for key in np.ndindex(3, 4, 5)}
    assert len(drawn) == 60
    assert draw(2, 3, 4) == draw(2, 3, 4)
    *single, others = draw(2, 3, 4)
    assert len(others) == CROPS_TRIED - 1
    assert all(0 <= value < 1 for value in (*single, *(number for pair in others for number in pair)))
    # What is drawn first never moves, or every run would see other crops.
    assert single[:7] == np.random.default_rng((2, 1, 3, 4)).random(7).tolist()


SWITCHES = {
    "flip": {"flip": True},
    "photometric": {"photometric": STILL | {"brightness": 0.4, "hue": 0.1}},
    "max_class_ratio": {"max_class_ratio": 0.999},
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_changes_no_other_draw(switch: str) -> None:
    image, mask = noise(60, 80)
    for iteration in range(4):
        plain = augment(image, mask, draw(0, iteration, 0), recipe(scale_range=[0.5, 2.0]))
        draws = draw(0, iteration, 0)._replace(flip=0.1)
        switched = augment(image, mask, draws, recipe(scale_range=[0.5, 2.0], **SWITCHES[switch]))
        expected = plain[1][:, ::-1] if switch == "flip" else plain[1]
        np.testing.assert_array_equal(switched[1], expected)
        if switch == "flip":
            np.testing.assert_array_equal(switched[0], plain[0][:, ::-1])


def test_neutral_draws_crop_the_middle_and_copy_it() -> None:
    image, mask = noise(30, 40)
    cropped, cropped_mask = augment(image, mask, NEUTRAL, recipe())
    np.testing.assert_array_equal(cropped, image[5:25, 8:32])
    np.testing.assert_array_equal(cropped_mask, mask[5:25, 8:32])


def agree(image: np.ndarray, mask: np.ndarray) -> bool:
    """Whether each pixel amid its class has that class's colour; only at the edge of a class two are mixed."""
    windows = np.lib.stride_tricks.sliding_window_view(mask, (3, 3))
    amid = (windows == mask[1:-1, 1:-1, None, None]).all(axis=(2, 3)) & (mask[1:-1, 1:-1] != 255)
    expected = np.stack([mask * 60, 255 - mask * 60, mask * 30 + 20], axis=-1)
    assert amid.any()
    return bool((np.abs(image.astype(int) - expected)[1:-1, 1:-1][amid] <= 1).all())


@given(st.integers(0, 1000))
def test_image_and_mask_move_together(iteration: int) -> None:
    # scaled by whole numbers, so that a class keeps its colour up to its edge
    image, mask = sample(seed=iteration)
    params = recipe(scale_range=[2.0, 2.0], flip=True, crop_size=[40, 90])
    got, got_mask = augment(image, mask, draw(0, iteration, 0), params)
    assert agree(got, got_mask)
    for axis in (0, 1):
        for shift in (-1, 1):
            assert not agree(np.roll(got, shift, axis), got_mask)  # one pixel of the crop, half a pixel of the source
    inside = got_mask != 255
    assert (got[~inside] == PADDING_COLOUR).all()
    assert inside.sum() == 40 * 80  # the width was padded, the height cropped


@pytest.mark.parametrize("flip", [False, True])
def test_smaller_samples_are_padded_and_ignored(flip: bool) -> None:
    image, mask = noise(10, 12)
    got, got_mask = augment(image, mask, NEUTRAL._replace(flip=0.1, left=0.1), recipe(flip=flip))
    rows, columns = np.nonzero(got_mask != 255)
    assert len(rows) == 120
    assert columns.min() == (24 - 12 - 1 if flip else 1)
    shown = got[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    np.testing.assert_array_equal(shown, image[:, ::-1] if flip else image)
    assert (got[got_mask == 255] == PADDING_COLOUR).all()


@settings(deadline=None)
@given(
    source=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    crop=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    scale=st.floats(0.3, 3.0),
    image_size=st.none() | st.tuples(st.integers(1, 90), st.integers(1, 90)),
    iteration=st.integers(0, 10**6),
)
def test_a_crop_is_torchvisions_of_the_same_window_to_the_bit(
    source: tuple[int, int],
    crop: tuple[int, int],
    scale: float,
    image_size: tuple[int, int] | None,
    iteration: int,
) -> None:
    image, mask = noise(*source)
    params = recipe(crop_size=crop, scale_range=[scale, scale], image_size=image_size, flip=True)
    draws = draw(1, iteration, 2)
    got, got_mask = augment(image, mask, draws, params)
    scaled = [max(1, round(length * scale)) for length in image_size or source]
    rows, columns = (span(*axis) for axis in zip(source, scaled, crop, (draws.top, draws.left), strict=True))
    window = (rows.start, columns.start, rows.length, columns.length)
    if draws.flip < 0.5:
        got, got_mask = got[:, ::-1], got_mask[:, ::-1]
    shown = np.s_[rows.inside, columns.inside]
    for found, whole in ((got, image), (got_mask, mask)):
        assert_same_pixels(found[shown], library_crop(whole, window, (rows.shown, columns.shown)), window[2:])
    padding = np.ones(crop, bool)
    padding[shown] = False
    assert (got_mask[padding] == 255).all()
    assert (got[padding] == PADDING_COLOUR).all()


def test_image_size_comes_before_the_scale() -> None:
    image, mask = sample(90, 120)
    got, got_mask = augment(image, mask, NEUTRAL, recipe(image_size=[30, 40], crop_size=[30, 40]))
    np.testing.assert_array_equal(got, resize_image(image, (30, 40)))
    np.testing.assert_array_equal(got_mask, resize_mask(mask, (30, 40)))
    half = recipe(image_size=[60, 80], crop_size=[30, 40], scale_range=[0.5, 0.5])
    np.testing.assert_array_equal(augment(image, mask, NEUTRAL, half)[0], got)


def test_samples_are_fitted_into_a_box_before_the_crop() -> None:
    image, mask = sample(90, 120)
    box = recipe(image_size={"long_side": 80, "short_side": 30}, crop_size=[30, 40])
    got, got_mask = augment(image, mask, NEUTRAL, box)
    np.testing.assert_array_equal(got, resize_image(image, (30, 40)))
    np.testing.assert_array_equal(got_mask, resize_mask(mask, (30, 40)))
    with pytest.raises(ValueError, match="short_side: 90 exceeds long_side 80"):
        recipe(image_size={"long_side": 80, "short_side": 90})


def test_all_colour_steps_in_their_order_after_the_flip() -> None:
    image, mask = noise(30, 40)
    most = {"brightness": 0.4, "contrast": 0.5, "saturation": 0.6, "hue": 0.1}
    params = recipe(photometric=most, flip=True, scale_range=[1.5, 1.5])
    for iteration in range(6):
        draws = draw(0, iteration, 0)
        found, _ = augment(image, mask, draws, params)
        expected = planes(augment(image, mask, draws, recipe(flip=True, scale_range=[1.5, 1.5]))[0])
        for step, strength in most.items():
            change = strength * (2 * getattr(draws, step) - 1)
            expected = getattr(F, f"adjust_{step}")(expected, change if step == "hue" else 1 + change)
        assert np.abs(found.astype(int) - pixels(expected)).max() <= 2


def test_padding_keeps_its_colour() -> None:
    image, mask = noise(10, 12)
    bright = recipe(photometric=STILL | {"brightness": 1.0, "contrast": 1.0})
    got, got_mask = augment(image, mask, NEUTRAL._replace(brightness=0.9, contrast=0.1), bright)
    assert (got[got_mask == 255] == PADDING_COLOUR).all()
    assert (got[got_mask != 255] != image.reshape(-1, 3)).any()


def test_one_class_that_fills_the_crop_is_cropped_again() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:, 60:80], mask[:, 80:] = 1, 255
    image, _ = noise(100, 100)
    params, free = recipe(crop_size=[20, 20], max_class_ratio=0.75), recipe(crop_size=[20, 20])
    tried = 0
    for iteration in range(60):
        draws = draw(0, iteration, 0)
        got, got_mask = augment(image, mask, draws, params)
        places = [(draws.top, draws.left), *draws.others]
        crops = [augment(image, mask, draws._replace(top=top, left=left), free) for top, left in places]
        good = [index for index, (_, crop) in enumerate(crops) if is_balanced(crop, 0.75)]
        chosen = good[0] if good else CROPS_TRIED - 1
        np.testing.assert_array_equal(got, crops[chosen][0])
        np.testing.assert_array_equal(got_mask, crops[chosen][1])
        tried += chosen > 0
    assert tried > 20


def test_balance_counts_what_is_not_ignored() -> None:
    mask = np.full((10, 10), 255, np.uint8)
    assert not is_balanced(mask, 0.75)
    mask[0, :6], mask[0, 6:8] = 3, 254
    assert is_balanced(mask, 0.75)
    assert not is_balanced(mask, 0.74)
    mask[0, 6:8] = 3
    assert not is_balanced(mask, 1.0)


def test_inputs_are_left_alone_and_may_be_read_only(make_run: Callable[..., Run]) -> None:
    image, mask = noise(48, 64)
    before = image.copy(), mask.copy()
    image.flags.writeable = mask.flags.writeable = False
    changes = {"photometric": {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.1}}
    for size in ([32, 48], [48, 64], [96, 128]):
        for scale in (1.0, 0.7, 1.3):
            options = {"crop_size": size, "scale_range": [scale, scale], **changes}
            augment(image, mask, NEUTRAL._replace(flip=0.1, hue=0.9), recipe(flip=True, **options))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_crops_are_written_where_the_batch_wants_them() -> None:
    image, mask = noise(50, 60)
    params = recipe(scale_range=[0.3, 1.5], flip=True)
    batch = np.full((3, 20, 24, 3), 7, np.uint8), np.full((3, 20, 24), 7, np.uint8)
    for iteration in range(8):
        expected = augment(image, mask, draw(0, iteration, 0), params)
        augment(image, mask, draw(0, iteration, 0), params, out=(batch[0][1], batch[1][1]))
        np.testing.assert_array_equal(batch[0][1], expected[0])
        np.testing.assert_array_equal(batch[1][1], expected[1])
    assert (batch[0][::2] == 7).all()
    assert (batch[1][::2] == 7).all()


def test_threads_of_torch_change_nothing() -> None:
    image, mask = noise(300, 400)
    options = {"photometric": {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.1}, "flip": True}
    params = recipe(crop_size=[256, 256], scale_range=[0.8, 2.0], **options)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append([augment(image, mask, draw(0, iteration, 0), params) for iteration in range(4)])
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
