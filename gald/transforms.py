"""Joint transforms of image and mask, as a function of (seed, iteration, position in the batch) and nothing else.

All randomness of a sample is drawn at once (`draw`), in an order that no option changes; applying it (`augment`) is
pure. So a batch is the same whichever worker makes it, and a resumed run sees what an unbroken one would have seen.
Image and mask share every geometric decision; masks move by nearest neighbour, and what lies outside is ignored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gald.datasets import IGNORE_INDEX
from gald.params import TrainParams

PADDING_COLOUR = (124, 116, 104)  # mean colour of ImageNet, so that padding is close to zero once normalised
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601, as PIL has it
_AUGMENTATION_STREAM = 1

Pixels = NDArray[np.uint8]
Size = tuple[int, int]


class Draws(NamedTuple):
    """Uniform random numbers in [0, 1), one for each decision about a sample."""

    scale: float
    top: float
    left: float
    flip: float
    brightness: float
    contrast: float
    saturation: float


class Window(NamedTuple):
    """Rectangle of pixels, upper bounds excluded; `augment` lets it reach beyond the image, where padding lies."""

    top: int
    left: int
    bottom: int
    right: int


def draw(seed: int, iteration: int, position: int) -> Draws:
    """Draw the random numbers of one sample.

    Parameters
    ----------
    seed : int
        Seed of the run, not negative.
    iteration : int
        Iteration, from 0.
    position : int
        Place in the batch, from 0.

    Examples
    --------
    >>> draw(0, 7, 3) == draw(0, 7, 3), draw(0, 7, 3) == draw(0, 7, 4)
    (True, False)
    """
    generator = np.random.default_rng((seed, _AUGMENTATION_STREAM, iteration, position))
    return Draws(*generator.random(len(Draws._fields)).tolist())


def augment(image: Pixels, mask: Pixels, draws: Draws, params: TrainParams) -> tuple[Pixels, Pixels]:
    """Resize, scale, crop, flip and recolour one sample.

    The resize to `params.image_size` and the random scale are one interpolation, and only the pixels that the crop
    shows are computed. Where the scaled sample is smaller than the crop, it lies at a random place within it.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
        RGB image.
    mask : uint8 array (H, W)
        Train ids, 255 where ignored.
    draws : Draws
        Random numbers of the sample.
    params : TrainParams
        `image_size`, `scale_range`, `crop_size`, `flip` and `color_jitter` are used.

    Returns
    -------
    tuple of uint8 arrays (crop height, crop width, 3) and (crop height, crop width)
        Crop of the image and of the mask; padding has the mean colour of ImageNet and is ignored.
    """
    crop_height, crop_width = params.crop_size
    height, width = scaled_size(params.image_size or (mask.shape[0], mask.shape[1]), params.scale_range, draws.scale)
    top = _offset(draws.top, height - crop_height)
    left = _offset(draws.left, width - crop_width)
    shown = Window(max(top, 0), max(left, 0), min(top + crop_height, height), min(left + crop_width, width))
    inside = np.s_[shown.top - top : shown.bottom - top, shown.left - left : shown.right - left]

    image_crop = np.full((crop_height, crop_width, 3), PADDING_COLOUR, np.uint8)
    mask_crop = np.full((crop_height, crop_width), IGNORE_INDEX, np.uint8)
    image_crop[inside] = jitter(resize_image(image, (height, width), shown), draws, params.color_jitter)
    mask_crop[inside] = resize_mask(mask, (height, width), shown)
    if params.flip and draws.flip < 0.5:
        return image_crop[:, ::-1], mask_crop[:, ::-1]
    return image_crop, mask_crop


def scaled_size(size: Size, scale_range: tuple[float, float], uniform: float) -> Size:
    """Size (height, width) after a scale drawn uniformly from `scale_range`.

    Examples
    --------
    >>> scaled_size((100, 200), (0.5, 2.0), 0.5)
    (125, 250)
    """
    low, high = scale_range
    scale = low + (high - low) * uniform
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_image(image: Pixels, size: Size, window: Window | None = None) -> Pixels:
    """Resize an image bilinearly, with antialiasing when it shrinks, and return a window of the result.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
        RGB image.
    size : (int, int)
        Height and width of the whole result.
    window : Window, optional
        Part of the result to compute; all of it by default.

    Returns
    -------
    uint8 array (window height, window width, 3)
        The same values as resizing everything and cutting the window out would give.
    """
    window = window or Window(0, 0, *size)
    if size == image.shape[:2]:
        return image[window.top : window.bottom, window.left : window.right]
    first_row, last_row, top, bottom = _source_span(window.top, window.bottom, image.shape[0], size[0])
    first_column, last_column, left, right = _source_span(window.left, window.right, image.shape[1], size[1])
    patch = Image.fromarray(np.ascontiguousarray(image[first_row:last_row, first_column:last_column]))
    shape = (window.right - window.left, window.bottom - window.top)
    return np.asarray(patch.resize(shape, Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def resize_mask(mask: Pixels, size: Size, window: Window | None = None) -> Pixels:
    """Resize a mask by nearest neighbour and return a window of the result; see `resize_image`.

    Examples
    --------
    >>> resize_mask(np.array([[0, 255], [2, 3]], np.uint8), (2, 4))
    array([[  0,   0, 255, 255],
           [  2,   2,   3,   3]], dtype=uint8)
    """
    window = window or Window(0, 0, *size)
    if size == mask.shape:
        return mask[window.top : window.bottom, window.left : window.right]
    rows = _nearest(window.top, window.bottom, mask.shape[0], size[0])
    columns = _nearest(window.left, window.right, mask.shape[1], size[1])
    return np.asarray(mask[rows[:, None], columns])


def jitter(image: Pixels, draws: Draws, strength: float) -> Pixels:
    """Change brightness, contrast and saturation by factors drawn from [1 - strength, 1 + strength].

    Parameters
    ----------
    image : uint8 array (H, W, 3)
        RGB image.
    draws : Draws
        `brightness`, `contrast` and `saturation` are used.
    strength : float
        Largest relative change, in [0, 1]; at 0 the image is returned as it is.

    Returns
    -------
    uint8 array (H, W, 3)
        Contrast is about the mean grey of the image, saturation about each pixel's own grey.
    """
    if strength == 0:
        return image
    brightness, contrast, saturation = (
        np.float32(1 + strength * (2 * uniform - 1)) for uniform in (draws.brightness, draws.contrast, draws.saturation)
    )
    colours = image.astype(np.float32)
    # No BLAS product: it may use several threads, and then sum in another order.
    grey = _GREY[0] * colours[..., 0] + _GREY[1] * colours[..., 1] + _GREY[2] * colours[..., 2]
    mean = np.float32(grey.mean(dtype=np.float64))
    colours = grey[..., None] + saturation * (colours - grey[..., None])
    colours = brightness * (mean + contrast * (colours - mean))
    return np.asarray(np.clip(np.rint(colours), 0, 255).astype(np.uint8))


def _offset(uniform: float, free: int) -> int:
    """Start of the crop in the scaled sample; negative where the sample is the smaller one and is padded."""
    sign = 1 if free >= 0 else -1
    return sign * int(uniform * (abs(free) + 1))


def _source_span(start: int, stop: int, source: int, result: int) -> tuple[int, int, float, float]:
    """Source pixels that the result's pixels [start, stop) need, and where those lie within them."""
    step = source / result
    reach = max(1.0, step) + 1  # of the triangle filter on either side, and one for rounding
    first = max(0, int(start * step - reach))
    last = min(source, int(stop * step + reach) + 1)
    return first, last, start * step - first, min(stop * step - first, last - first)


def _nearest(start: int, stop: int, source: int, result: int) -> NDArray[np.intp]:
    """Source pixel below the centre of each of the result's pixels [start, stop)."""
    centres = (2 * np.arange(start, stop) + 1) * source // (2 * result)
    return centres.astype(np.intp)
