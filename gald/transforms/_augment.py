"""One sample of a batch: scaled, cropped, mirrored and recoloured by random numbers drawn beforehand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gald.datasets import IGNORE_INDEX
from gald.datasets._samples import Windows
from gald.params import TrainParams
from gald.transforms._crops import Span, scaled_size, span
from gald.transforms._photometric import Changes, distort
from gald.transforms._resize import Pixels, flip, resize_image, resize_mask

PADDING_COLOUR = (124, 116, 104)  # mean colour of ImageNet, so that padding is close to zero once normalised
CROPS_TRIED = 10  # at most, where `max_class_ratio` bounds the share of one class
_AUGMENTATION_STREAM = 1


class Draws(NamedTuple):
    """Uniform random numbers in [0, 1), one for each decision about a sample.

    `others` holds (top, left) of the further crops that `max_class_ratio` may ask for.
    """

    scale: float
    top: float
    left: float
    flip: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    others: tuple[tuple[float, float], ...]


def draw(seed: int, iteration: int, index: int) -> Draws:
    """Draw the random numbers of one sample.

    Parameters
    ----------
    seed : int
        Seed of the run, not negative.
    iteration : int
        Iteration, from 0.
    index : int
        Which sample of the split, from 0.

    Examples
    --------
    >>> draw(0, 7, 3) == draw(0, 7, 3), draw(0, 7, 3) == draw(0, 7, 4)
    (True, False)
    """
    single = len(Draws._fields) - 1
    generator = np.random.default_rng((seed, _AUGMENTATION_STREAM, iteration, index))
    numbers = generator.random(single + 2 * (CROPS_TRIED - 1)).tolist()
    others = tuple(zip(numbers[single::2], numbers[single + 1 :: 2], strict=True))
    return Draws._make((*numbers[:single], others))


def augment(
    image: Windows, mask: Pixels, draws: Draws, params: TrainParams, *, out: tuple[Pixels, Pixels] | None = None
) -> tuple[Pixels, Pixels]:
    """Scale, crop, flip and recolour one sample, in this order.

    The resize to `params.image_size` and the random scale are one interpolation of the window that is shown; a window
    of the size of its place is copied. Where the scaled sample is smaller than the crop, it lies at a random place
    within it. Padding keeps its colour: `photometric` changes what is shown of the image.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
        RGB image, or what gives windows of one; a view of a file mapped into memory is read where the window lies, and
        nowhere else.
    mask : uint8 array (H, W)
        Train ids, 255 where ignored.
    draws : Draws
        Random numbers of the sample.
    params : TrainParams
        `image_size`, `scale_range`, `crop_size`, `flip`, `photometric` and `max_class_ratio` are used.
    out : tuple of uint8 arrays, optional
        Where to write the crops, for example their places in a batch.

    Returns
    -------
    tuple of uint8 arrays (crop height, crop width, 3) and (crop height, crop width)
        Crop of the image and of the mask; padding has the mean colour of ImageNet and is ignored.
    """
    size = params.crop_size
    image_crop, mask_crop = out or (np.empty((*size, 3), np.uint8), np.empty(size, np.uint8))
    mirrored = params.flip and draws.flip < 0.5
    rows, columns = _crop_mask(mask, draws, params, mask_crop, mirrored=mirrored)
    window, shown = image[rows.window, columns.window], (rows.shown, columns.shown)
    columns = columns.flipped(size[1]) if mirrored else columns
    if shown != size:
        _pad(image_crop, rows, columns)
    place = image_crop[rows.inside, columns.inside]
    resized = resize_image(window, shown, out=place if place.flags.c_contiguous else None)
    if mirrored:
        resized = flip(resized)
    if resized is not place:
        place[:] = resized
    distort(place, _changes(draws, params))
    return image_crop, mask_crop


def is_balanced(mask: Pixels, max_ratio: float) -> bool:
    """Tell whether a mask shows several classes, none of which has more than a ratio of the pixels not ignored.

    mmsegmentation's rule for ``cat_max_ratio``, except that there a share of exactly the ratio is too much.

    Examples
    --------
    >>> is_balanced(np.array([[0, 0, 0, 1, 255, 255]], np.uint8), 0.75)
    True
    >>> is_balanced(np.array([[0, 0, 0, 0, 255, 255]], np.uint8), 0.75)
    False
    """
    counts = np.bincount(mask.ravel(), minlength=256)[:IGNORE_INDEX]
    return bool(np.count_nonzero(counts) > 1 and counts.max() <= max_ratio * counts.sum())


def _crop_mask(mask: Pixels, draws: Draws, params: TrainParams, crop: Pixels, *, mirrored: bool) -> tuple[Span, Span]:
    """Fill the crop of the mask, the first that is balanced enough or the last; return its rows and columns."""
    low, high = params.scale_range
    scale = low + (high - low) * draws.scale
    height, width = scaled_size((mask.shape[0], mask.shape[1]), params.image_size, scale)
    for top, left in ((draws.top, draws.left), *draws.others):
        rows = span(mask.shape[0], height, crop.shape[0], top)
        columns = span(mask.shape[1], width, crop.shape[1], left)
        shown = rows.shown, columns.shown
        if shown != crop.shape:
            crop[:] = IGNORE_INDEX
        place = crop[rows.inside, (columns.flipped(crop.shape[1]) if mirrored else columns).inside]
        resize_mask(mask[rows.window, columns.window], shown, mirrored=mirrored, out=place)
        if params.max_class_ratio == 1 or is_balanced(place, params.max_class_ratio):
            break
    return rows, columns


def _pad(crop: Pixels, rows: Span, columns: Span) -> None:
    """Colour what lies around the place of the image."""
    line = np.empty_like(crop[0])  # rows and their parts are copied quickly, pixels of three bytes are not
    line[:] = PADDING_COLOUR
    crop[: rows.place], crop[rows.inside.stop :] = line, line
    beside, left, right = crop[rows.inside], columns.place, columns.inside.stop
    beside[:, :left], beside[:, right:] = line[:left], line[right:]


def _changes(draws: Draws, params: TrainParams) -> Changes:
    most = params.photometric
    return Changes(
        brightness=1 + most.brightness * (2 * draws.brightness - 1),
        contrast=1 + most.contrast * (2 * draws.contrast - 1),
        saturation=1 + most.saturation * (2 * draws.saturation - 1),
        hue=most.hue * (2 * draws.hue - 1),
    )
