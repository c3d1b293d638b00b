"""Resizing of images and masks, as torchvision does it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gald.transforms._crops import Size

Pixels = NDArray[np.uint8]


def resize_image(image: Pixels, size: Size, *, out: Pixels | None = None) -> Pixels:
    """Resize an image bilinearly, with antialiasing when it shrinks.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
        RGB image.
    size : (int, int)
        Height and width of the result.
    out : uint8 array (height, width, 3), optional
        Where to write the result, contiguous.

    Returns
    -------
    uint8 array (height, width, 3)
        What torchvision's ``resize`` gives, to the bit where the processor has AVX2 and to one level elsewhere; without
        `out` the image itself where it has that size.
    """
    if size == image.shape[:2]:
        if out is None:
            return image
        out[:] = image
        return out
    # One copy of the window, which torch would make itself, but more slowly.
    window, resized = np.array(image), np.empty((*size, 3), np.uint8) if out is None else out
    # The operator behind `interpolate`, which alone takes a place for the result.
    torch.ops.aten._upsample_bilinear2d_aa.out(_planes(window), size, False, None, None, out=_planes(resized))
    return resized


def _planes(image: Pixels) -> Tensor:
    """Show an image as (1, 3, H, W): by this shape, batch included, torch knows memory in channels-last order."""
    # Views are NumPy's: for each of its own, torch gives up the interpreter's lock and waits for it again.
    return torch.from_numpy(image[None].transpose(0, 3, 1, 2))


def resize_mask(mask: Pixels, size: Size, *, mirrored: bool = False, out: Pixels | None = None) -> Pixels:
    """Resize a mask by nearest neighbour: each pixel of the result takes the source pixel that its centre falls into.

    Parameters
    ----------
    mask : uint8 array (H, W)
        Train ids.
    size : (int, int)
        Height and width of the result.
    mirrored : bool
        Whether the result is flipped from left to right.
    out : uint8 array (height, width), optional
        Where to write the result.

    Returns
    -------
    uint8 array (height, width)
        What torchvision's ``NEAREST_EXACT`` gives; without `out` the mask itself where nothing changes.

    Examples
    --------
    >>> resize_mask(np.array([[0, 255], [2, 3]], np.uint8), (2, 4))
    array([[  0,   0, 255, 255],
           [  2,   2,   3,   3]], dtype=uint8)
    """
    if size == mask.shape:
        same = flip(mask) if mirrored else mask
        if out is None:
            return same
        out[:] = same
        return out
    rows, columns = nearest(mask.shape[0], size[0]), nearest(mask.shape[1], size[1])
    if mirrored:
        columns = columns[::-1]
    # All of them exist, so what is done about those that do not ("wrap") is the quickest there is.
    if size[0] < mask.shape[0]:  # the cheaper order: the second step has the rows of the first
        return np.asarray(mask.take(rows, axis=0, mode="wrap").take(columns, axis=1, mode="wrap", out=out))
    return np.asarray(mask.take(columns, axis=1, mode="wrap").take(rows, axis=0, mode="wrap", out=out))


def nearest(source: int, result: int) -> NDArray[np.intp]:
    """Source pixel under the centre of each of the result's pixels.

    In torch's own arithmetic, float32. Of two source pixels that are equally near, torch itself may take one for a
    small result and the other for a larger one.

    Examples
    --------
    >>> nearest(4, 6).tolist()
    [0, 1, 1, 2, 3, 3]
    """
    centres = (np.arange(result, dtype=np.float32) + np.float32(0.5)) * (np.float32(source) / np.float32(result))
    pixels = centres.astype(np.intp)
    return np.minimum(pixels, source - 1, out=pixels)


def flip(pixels: Pixels) -> Pixels:
    """Flip an image or a mask from left to right."""
    # NumPy moves the bytes of a mirrored image one by one, which takes longer than the resize.
    writable = pixels if pixels.flags.writeable else pixels.copy()
    return np.asarray(torch.from_numpy(writable).flip(1).numpy())
