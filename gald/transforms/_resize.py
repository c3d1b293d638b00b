"""Resizing of images and masks, as torchvision does it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gald.transforms._crops import Size

Pixels = NDArray[np.uint8]


def resize_image(image: Pixels, size: Size) -> Pixels:
    """Resize an image bilinearly, with antialiasing when it shrinks.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
        RGB image.
    size : (int, int)
        Height and width of the result.

    Returns
    -------
    uint8 array (height, width, 3)
        What torchvision's ``resize`` gives, to the bit where the processor has AVX2 and to one level elsewhere; the
        image itself where it has that size.
    """
    if size == image.shape[:2]:
        return image
    # One copy of the window, which torch would make itself, but more slowly. The shape, batch included, tells torch
    # that the memory is in channels-last order, and so it returns the result. Views are NumPy's: for each of its own,
    # torch gives up the interpreter's lock and waits for it again.
    window = np.array(image).reshape(1, *image.shape).transpose(0, 3, 1, 2)
    resized = functional.interpolate(torch.from_numpy(window), size=size, mode="bilinear", antialias=True)
    return np.asarray(resized.numpy()[0].transpose(1, 2, 0))


def resize_mask(mask: Pixels, size: Size) -> Pixels:
    """Resize a mask by nearest neighbour: each pixel of the result takes the source pixel that its centre falls into.

    Parameters
    ----------
    mask : uint8 array (H, W)
        Train ids.
    size : (int, int)
        Height and width of the result.

    Returns
    -------
    uint8 array (height, width)
        What torchvision's ``NEAREST_EXACT`` gives; the mask itself where it has that size.

    Examples
    --------
    >>> resize_mask(np.array([[0, 255], [2, 3]], np.uint8), (2, 4))
    array([[  0,   0, 255, 255],
           [  2,   2,   3,   3]], dtype=uint8)
    """
    if size == mask.shape:
        return mask
    rows, columns = nearest(mask.shape[0], size[0]), nearest(mask.shape[1], size[1])
    if size[0] < mask.shape[0]:  # the cheaper order: the second step has the rows of the first
        return np.asarray(mask.take(rows, axis=0).take(columns, axis=1))
    return np.asarray(mask.take(columns, axis=1).take(rows, axis=0))


def nearest(source: int, result: int) -> NDArray[np.intp]:
    """Source pixel under the centre of each of the result's pixels.

    In torch's own arithmetic, float32: of two source pixels that are equally near, it takes the same one.

    Examples
    --------
    >>> nearest(4, 6).tolist()
    [0, 1, 1, 2, 3, 3]
    """
    centres = (np.arange(result, dtype=np.float32) + np.float32(0.5)) * (np.float32(source) / np.float32(result))
    return np.minimum(centres.astype(np.intp), source - 1)
