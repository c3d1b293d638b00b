from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gald._torchvision import import_with_torchvision
from gald.crops import Span, scaled_size, span
from gald.params import Box, Run, TrainParams, read_yaml
from gald.transforms import (
    CROPS_TRIED,
    PADDING_COLOUR,
    Draws,
    augment,
    draw,
    is_balanced,
    nearest,
    resize_image,
    resize_mask,
)

F: Any = import_with_torchvision("torchvision.transforms.v2.functional")
BASE = read_yaml(Path(__file__).parents[2] / "params" / "base.yaml")
STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
NEUTRAL = Draws(0.5, 0.5, 0.5, 0.9, 0.5, 0.5, 0.5, 0.5, ((0.5, 0.5),) * (CROPS_TRIED - 1))


def recipe(**changes: object) -> TrainParams:
    """Recipe that only crops to 20x24."""
    plain = {"crop_size": [20, 24], "scale_range": [1.0, 1.0], "flip": False, "photometric": STILL}
    return TrainParams.model_validate(BASE["train"] | plain | changes)


def sample(height: int = 30, width: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Coloured blocks of 5x5 pixels; the colour tells the class."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 4, (height // 5 + 1, width // 5 + 1)).repeat(5, 0).repeat(5, 1)[:height, :width]
    mask = mask.astype(np.uint8)
    return np.stack([mask * 60, 255 - mask * 60, mask * 30 + 20], axis=-1).astype(np.uint8), mask


def noise(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8), rng.integers(0, 19, (height, width)).astype(
        np.uint8
    )


def planes(image: np.ndarray) -> torch.Tensor:
    """Image as torchvision takes it: (3, H, W), or (1, H, W) of a mask."""
    return torch.from_numpy(image.copy() if image.ndim == 3 else image[..., None].copy()).permute(2, 0, 1)


def pixels(image: torch.Tensor) -> np.ndarray:
    found: np.ndarray = image.permute(1, 2, 0).numpy()
    return found[..., 0] if found.shape[2] == 1 else found


# Without AVX2, torchvision resizes bytes as floats and rounds them, which may fall to the neighbouring level.
LEVELS = 0 if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else 1


def assert_same_pixels(found: np.ndarray, expected: np.ndarray) -> None:
    """An image to the bit where the library computes in bytes too, a mask always."""
    np.testing.assert_allclose(found.astype(int), expected, rtol=0, atol=LEVELS if found.ndim == 3 else 0)


def library_crop(pixels_: np.ndarray, window: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """torchvision's crop of a window (top, left, height, width) and its resize, nearest for a mask."""
    how = F.InterpolationMode.BILINEAR if pixels_.ndim == 3 else F.InterpolationMode.NEAREST_EXACT
    return pixels(F.resized_crop(planes(pixels_), *window, list(size), interpolation=how, antialias=True))


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
        assert_same_pixels(found[shown], library_crop(whole, window, (rows.shown, columns.shown)))
    padding = np.ones(crop, bool)
    padding[shown] = False
    assert (got_mask[padding] == 255).all()
    assert (got[padding] == PADDING_COLOUR).all()


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_a_span_lies_in_its_source_and_its_crop_and_keeps_the_scale(
    source: int, scaled: int, crop: int, uniform: float
) -> None:
    found = span(source, scaled, crop, uniform)
    assert 0 <= found.start <= found.start + found.length <= source
    assert 0 <= found.place <= found.place + found.shown <= crop
    assert found.length >= 1
    assert found.shown == min(scaled, crop)
    if scaled <= crop:
        assert found.length == source
    else:  # within half a pixel of the source, or the one pixel that is the least
        assert found.length == 1 or abs(found.length - crop * source / scaled) <= 0.5
    flipped = found.flipped(crop)
    assert flipped.flipped(crop) == found
    assert flipped.place + found.place + found.shown == crop


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


def centres(start: float, length: float, shown: int) -> np.ndarray:
    """Where the centres of `shown` pixels lie in a source whose pixels have whole numbers, a window of it resized."""
    return start + (np.arange(shown) + 0.5) * length / shown - 0.5


def nearest_crop(found: Span, source: int, scaled: int) -> int:
    """First pixel of the crop of the whole resized source that comes closest to a window."""
    return min(max(0, round(found.start * scaled / source)), scaled - found.shown)


def furthest(source: int, scaled: int, crop: int) -> float:
    """Bound of how far two samplings lie apart, in pixels of the source.

    A window of the source is a whole number of its pixels, at least one; a crop of the resized source begins at a whole
    pixel of that, which is `source / scaled` wide. Each is rounded by half of its unit.
    """
    return max(0.5, 1 - crop * source / scaled) + 0.5 * source / scaled


@settings(max_examples=300)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_a_window_of_whole_pixels_samples_close_to_where_a_crop_would(
    source: int, scaled: int, crop: int, uniform: float
) -> None:
    found = span(source, scaled, crop, uniform)
    place = nearest_crop(found, source, scaled)
    ours = centres(found.start, found.length, found.shown)
    theirs = centres(0, source, scaled)[place : place + found.shown]
    bound = furthest(source, scaled, crop) if scaled > crop else 0
    assert np.abs(ours - theirs).max() <= bound + 1e-9


def test_the_bound_of_the_sampling_is_no_larger_than_it_has_to_be() -> None:
    reached = 0.0
    for source, crop in np.ndindex(60, 24):
        for scaled in (50, 71, 97):
            found = span(source + 60, scaled, crop + 1, 0.77)
            ours = centres(found.start, found.length, found.shown)
            place = nearest_crop(found, source + 60, scaled)
            theirs = centres(0, source + 60, scaled)[place : place + found.shown]
            reached = max(reached, np.abs(ours - theirs).max() / furthest(source + 60, scaled, crop + 1))
    assert 0.9 < reached <= 1


@settings(deadline=None)
@given(
    st.tuples(st.integers(40, 250), st.integers(40, 250)),
    st.tuples(st.integers(8, 60), st.integers(8, 60)),
    st.floats(0.5, 2.0),
    st.integers(0, 10**6),
)
def test_crop_before_resize_is_close_to_resize_before_crop_at_any_window(
    size: tuple[int, int], crop: tuple[int, int], scale: float, iteration: int
) -> None:
    """On a ramp, whose grey levels are positions: rows in the first channel, columns in the second."""
    image = np.stack([*np.indices(size), np.zeros(size)], axis=-1).astype(np.uint8)
    draws = draw(3, iteration, 1)
    got, _ = augment(image, image[..., 0], draws, recipe(crop_size=crop, scale_range=[scale, scale]))
    scaled = scaled_size(size, None, scale)
    whole = resize_image(image, scaled).astype(int)
    spans = [span(*axis) for axis in zip(size, scaled, crop, (draws.top, draws.left), strict=True)]
    rows, columns = (nearest_crop(found, *axis) for found, *axis in zip(spans, size, scaled, strict=True))
    theirs = whole[rows : rows + spans[0].shown, columns : columns + spans[1].shown]
    ours = got[spans[0].inside, spans[1].inside].astype(int)
    for axis, (found, source, target) in enumerate(zip(spans, size, scaled, strict=True)):
        seen = centres(found.start, found.length, found.shown)
        reach = max(1, found.length / found.shown) + 1  # of the filter: at the edge of a window it is cut off
        amid = (seen - reach >= found.start) & (seen + reach <= found.start + found.length - 1)
        positions = np.take(ours[..., axis], np.flatnonzero(amid), axis)
        along = np.moveaxis(positions, axis, -1)
        assert (np.abs(along - seen[amid]) <= 1).all()  # the image is sampled there, within a grey level
        difference = np.take(np.abs(ours - theirs)[..., axis], np.flatnonzero(amid), axis)
        assert (difference <= furthest(source, target, crop[axis]) + 1).all()  # each is rounded to half a level


@settings(deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 150), st.integers(1, 150))
def test_resizing_is_torchvisions_to_the_bit(height: int, width: int, tall: int, wide: int) -> None:
    image, mask = noise(height, width)
    for resized, whole in ((resize_image(image, (tall, wide)), image), (resize_mask(mask, (tall, wide)), mask)):
        assert_same_pixels(resized, library_crop(whole, (0, 0, height, width), (tall, wide)))


def test_masks_take_the_pixel_under_the_centre() -> None:
    for result in (20, 96, 240, 513, 769):
        for source in range(1, 1600, 7):
            twice = (2 * np.arange(result) + 1) * source  # of the centres, in units of half a result's pixel
            exact, between = twice // (2 * result), twice % (2 * result) == 0
            found = nearest(source, result)
            np.testing.assert_array_equal(found[~between], exact[~between])
            assert ((exact - found)[between] >= 0).all()  # of two that are equally near, either
            assert ((exact - found)[between] <= 1).all()


def test_image_size_comes_before_the_scale() -> None:
    image, mask = sample(90, 120)
    got, got_mask = augment(image, mask, NEUTRAL, recipe(image_size=[30, 40], crop_size=[30, 40]))
    np.testing.assert_array_equal(got, resize_image(image, (30, 40)))
    np.testing.assert_array_equal(got_mask, resize_mask(mask, (30, 40)))
    half = recipe(image_size=[60, 80], crop_size=[30, 40], scale_range=[0.5, 0.5])
    np.testing.assert_array_equal(augment(image, mask, NEUTRAL, half)[0], got)


@pytest.mark.parametrize(
    ("size", "box", "scale", "expected"),
    [
        ((512, 683), (2048, 512), 1.0, (512, 683)),  # ADE20K: mmsegmentation's (2048, 512), bounded by the short side
        ((2100, 2100), (2048, 512), 2.0, (1024, 1024)),
        ((96, 1536), (2048, 512), 1.0, (128, 2048)),  # by the long side
        ((375, 500), (520, 520), 0.5, (195, 260)),  # Pascal Context
        ((500, 375), (520, 520), 1.0, (520, 390)),
    ],
)
def test_a_box_keeps_the_ratio(
    size: tuple[int, int], box: tuple[int, int], scale: float, expected: tuple[int, int]
) -> None:
    assert scaled_size(size, Box(long_side=box[0], short_side=box[1]), scale) == expected


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
