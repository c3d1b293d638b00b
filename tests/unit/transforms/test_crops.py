import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gald.params import Box
from gald.transforms._augment import augment, draw
from gald.transforms._crops import Span, scaled_size, span
from gald.transforms._resize import resize_image
from tests.unit.transforms.samples import recipe


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
