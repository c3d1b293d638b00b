"""Where a crop lies in a scaled sample, and which pixels of the source it shows: sizes and places, no pixels."""

from __future__ import annotations

from typing import NamedTuple

from gald.params import Box

Size = tuple[int, int]


class Span(NamedTuple):
    """One axis of a crop: which pixels of the source are shown, and where in the crop.

    Attributes
    ----------
    start, length : int
        First pixel and number of pixels of the source.
    place, shown : int
        First pixel and number of pixels of the crop that they become; the rest of the crop is padding.
    """

    start: int
    length: int
    place: int
    shown: int

    @property
    def window(self) -> slice:
        """Part of the source."""
        return slice(self.start, self.start + self.length)

    @property
    def inside(self) -> slice:
        """Part of the crop."""
        return slice(self.place, self.place + self.shown)

    def flipped(self, crop: int) -> Span:
        """Show the same pixels in a crop of that many pixels that is seen in a mirror."""
        return self._replace(place=crop - self.place - self.shown)


def scaled_size(size: Size, image_size: Size | Box | None, scale: float = 1.0) -> Size:
    """Size of an image that is resized to `image_size` and then scaled, rounded once.

    Parameters
    ----------
    size : (int, int)
        Height and width of the image.
    image_size : (int, int), Box or None
        Height and width that it is resized to; or the sides that it is made as large as they allow, its ratio kept
        (mmsegmentation's ``keep_ratio``, which rounds the sides of the box before); None for none of this.
    scale : float
        Above 0.

    Examples
    --------
    >>> scaled_size((480, 640), None, 0.5), scaled_size((480, 640), (180, 240), 0.5)
    ((240, 320), (90, 120))
    >>> scaled_size((480, 640), Box(long_side=2048, short_side=512)), scaled_size((1024, 64), Box(long_side=512, short_side=512))
    ((512, 683), (512, 32))
    """  # noqa: E501 - what is compared stands on one line
    if isinstance(image_size, Box):
        scale *= min(image_size.long_side / max(size), image_size.short_side / min(size))
    base = image_size if isinstance(image_size, tuple) else size
    return max(1, round(base[0] * scale)), max(1, round(base[1] * scale))


def span(source: int, scaled: int, crop: int, uniform: float) -> Span:
    """Choose what a crop shows of one axis.

    Parameters
    ----------
    source : int
        Pixels of the source.
    scaled : int
        Pixels that the whole source would have after scaling.
    crop : int
        Pixels of the crop.
    uniform : float
        Random number in [0, 1): which of the possible places.

    Examples
    --------
    >>> span(source=100, scaled=200, crop=50, uniform=0.5)
    Span(start=38, length=25, place=0, shown=50)
    >>> span(source=100, scaled=40, crop=50, uniform=0.5)
    Span(start=0, length=100, place=5, shown=40)
    """
    if scaled <= crop:
        return Span(0, source, int(uniform * (crop - scaled + 1)), scaled)
    length = max(1, round(crop * source / scaled))
    return Span(int(uniform * (source - length + 1)), length, 0, crop)
