"""Change the colours of an image in place: brightness, contrast, saturation, hue, always in this order.

Each step is torchvision's function of that name on 8-bit images, its rounding included, and leaves 8-bit values. The
work is done in strips of a few rows, whose intermediate values stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_STRIP_ROWS = 32
_LUMA = (0.2989, 0.587, 0.114)  # torchvision's, close to ITU-R BT.601
_MOST = 255.0


class Changes(NamedTuple):
    """How the colours of one image change.

    Attributes
    ----------
    brightness, contrast, saturation : float
        Factors, not negative; 1 changes nothing.
    hue : float
        Turns of the colour circle in [-0.5, 0.5]; 0 changes nothing.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


def distort(image: NDArray[np.uint8], changes: Changes) -> None:
    """Change the colours of an image in place.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
        RGB image, writable.
    changes : Changes
        What to do; a step that changes nothing is left out.
    """
    if changes == Changes():
        return
    strips = torch.split(torch.from_numpy(image), _STRIP_ROWS)
    if changes.brightness != 1:
        _change(strips, lambda strip: strip.mul(changes.brightness))
    if changes.contrast != 1:
        # Of whole numbers in double precision: exact, so in whatever order it is summed.
        total = sum(float(_grey(strip).sum(dtype=torch.float64)) for strip in strips)
        mean = total / (image.shape[0] * image.shape[1])
        _change(strips, lambda strip: strip.mul(changes.contrast).add_(mean * (1 - changes.contrast)))
    if changes.saturation != 1:
        _change(strips, lambda strip: _saturated(strip, changes.saturation))
    if changes.hue != 0:
        _change(strips, lambda strip: _turned(strip, changes.hue))


def _change(strips: tuple[Tensor, ...], change: Callable[[Tensor], Tensor]) -> None:
    for strip in strips:
        strip.copy_(change(strip).clamp_(0, _MOST))  # the conversion to 8 bits cuts decimals off, as torchvision does


def _grey(strip: Tensor) -> Tensor:
    """Grey of each pixel (H, W), a whole number as float32."""
    red, green, blue = strip.unbind(-1)
    return red.mul(_LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2]).floor_()


def _saturated(strip: Tensor, factor: float) -> Tensor:
    return strip.mul(factor).add_(_grey(strip).unsqueeze(-1), alpha=1 - factor)


def _turned(strip: Tensor, turns: float) -> Tensor:
    """Rotate hues: a channel is the largest one less the range times a trapezoid of the hue.

    The trapezoids of red, green and blue are 5, 3 and 1 sixths of a turn ahead. torchvision's conversions to and from
    HSV are the same function, branch by branch; so is its last step, from [0, 1] to whole levels.
    """
    planes = strip.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    red, green, blue = planes
    most = torch.maximum(torch.maximum(red, green), blue)
    extent = most - torch.minimum(torch.minimum(red, green), blue)
    divisor = extent.clamp(min=1)
    sixths = torch.where(
        most == red,
        (green - blue).div_(divisor),
        torch.where(most == green, (blue - red).div_(divisor).add_(2), (red - green).div_(divisor).add_(4)),
    ).add_(6 * turns)
    for channel, ahead in enumerate((5, 3, 1)):
        place = sixths + ahead
        place.sub_(place.mul(1 / 6).floor_(), alpha=6)  # the remainder by 6
        trapezoid = torch.minimum(place, 4 - place).clamp_(0, 1)
        torch.sub(most, trapezoid.mul_(extent), out=planes[channel])
    return planes.mul_((_MOST + 1 - 1e-3) / _MOST).permute(1, 2, 0)
