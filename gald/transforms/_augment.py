"""One sample of a batch: scaled, cropped, mirrored and recoloured by random numbers drawn beforehand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from gald.datasets import IGNORE_INDEX
from gald.datasets._samples import Windows
from gald.params import TrainParams
from gald.transforms._crops import Span, scaled_size, span
from gald.transforms._photometric import Changes, distort
from gald.transforms._resize import Pixels, resize_image, resize_mask

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
    rows, columns, mask_shown = _shown(mask, draws, params)
    image_shown = resize_image(image[rows.window, columns.window], (rows.shown, columns.shown))
    if params.flip and draws.flip < 0.5:
        columns = columns.flipped(size[1])
        image_shown, mask_shown = _mirrored(image_shown), _mirrored(mask_shown)
    if (rows.shown, columns.shown) != size:
        image_crop[0], mask_crop[:] = PADDING_COLOUR, IGNORE_INDEX
        image_crop[1:] = image_crop[0]  # whole rows are copied quickly, pixels of three bytes are not
    image_crop[rows.inside, columns.inside] = image_shown
    mask_crop[rows.inside, columns.inside] = mask_shown
    distort(image_crop[rows.inside, columns.inside], _changes(draws, params))
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


def _shown(mask: Pixels, draws: Draws, params: TrainParams) -> tuple[Span, Span, Pixels]:
    """Rows, columns and resized mask of the first crop that is balanced enough, or of the last one."""
    low, high = params.scale_range
    scale = low + (high - low) * draws.scale
    height, width = scaled_size((mask.shape[0], mask.shape[1]), params.image_size, scale)
    crop_height, crop_width = params.crop_size
    for top, left in ((draws.top, draws.left), *draws.others):
        rows = span(mask.shape[0], height, crop_height, top)
        columns = span(mask.shape[1], width, crop_width, left)
        resized = resize_mask(mask[rows.window, columns.window], (rows.shown, columns.shown))
        if params.max_class_ratio == 1 or is_balanced(resized, params.max_class_ratio):
            break
    return rows, columns, resized


def _mirrored(pixels: Pixels) -> Pixels:
    # NumPy moves the bytes of a mirrored image one by one, which takes longer than the resize.
    writable = pixels if pixels.flags.writeable else pixels.copy()
    return np.asarray(torch.from_numpy(writable).flip(1).numpy())


def _changes(draws: Draws, params: TrainParams) -> Changes:
    most = params.photometric
    return Changes(
        brightness=1 + most.brightness * (2 * draws.brightness - 1),
        contrast=1 + most.contrast * (2 * draws.contrast - 1),
        saturation=1 + most.saturation * (2 * draws.saturation - 1),
        hue=most.hue * (2 * draws.hue - 1),
    )
