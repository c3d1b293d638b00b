"""What a sample is: an image and its mask, or windows of an image that is read no further than they reach."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gald.datasets._packed import Pixels


class Sample(NamedTuple):
    """One image and its mask.

    Attributes
    ----------
    id : str
        Unique within its split.
    image : ndarray of uint8, shape (h, w, 3)
        RGB.
    mask : ndarray of uint8, shape (h, w)
        Train ids, or the manifest's ignore_index.
    """

    id: str
    image: Pixels
    mask: Pixels


class Windows(Protocol):
    """An image that need not be read as a whole: an array, or a file that is decoded as far as a window reaches."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        ...

    def __getitem__(self, window: tuple[slice, slice], /) -> Pixels:
        """Read a window, uint8 (h, w, 3)."""
        ...


class WindowedSample(NamedTuple):
    """One image, of which a crop needs a window, and its mask; a `Sample` is one, too."""

    id: str
    image: Windows
    mask: Pixels
