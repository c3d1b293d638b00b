"""An image file of any kind -> 8-bit RGB, and what was odd about it.

Photographs come as grayscale, CMYK or with a palette, an alpha channel, 16 bits, or a note that a viewer should turn
them. What is prepared is RGB of 8 bits without any such note, so that no reader has to know.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

KINDS = ("grayscale", "palette", "cmyk", "alpha", "16-bit", "exif-rotated", "other")
"""Why an image was converted, in the order in which a manifest lists them."""

_AS_IT_IS = {"PNG": ".png", "JPEG": ".jpg"}
"""Formats every reader knows; a plain RGB file of these is linked, anything else becomes an RGB PNG."""
_MODE_KINDS = {
    "1": ("grayscale",),
    "L": ("grayscale",),
    "LA": ("grayscale", "alpha"),
    "La": ("grayscale", "alpha"),
    "P": ("palette",),
    "PA": ("palette", "alpha"),
    "RGBA": ("alpha",),
    "RGBa": ("alpha",),
    "CMYK": ("cmyk",),
    "RGB": (),
}
_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MOST_BYTES = 512 << 20
_DEPTH_AT = 24  # offset of the bit depth in a PNG's header


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes
    ----------
    image : Image
        RGB, the pixels as stored in the file, whatever its orientation says.
    kinds : tuple of str
        Those of `KINDS` that apply; empty if the file can be used as it is.
    suffix : str
        Of the prepared file.
    orientation : int
        EXIF's number, 1 to 8; 1 is upright.
    content : bytes
        The file.
    """

    image: Image.Image
    kinds: tuple[str, ...]
    suffix: str
    orientation: int
    content: bytes

    def fitted(self, size: tuple[int, int] | None) -> Image.Image | None:
        """Choose between the stored and the turned pixels by the size (width, height) that the mask has.

        Labels are drawn on either, and nothing but the mask's size tells on which: stored pixels win where both fit,
        as they do where nothing is known.

        Returns
        -------
        Image or None
            None if neither fits.
        """
        if size is None or self.image.size == size:
            return self.image
        if self.orientation in _TURNS and self.orientation >= 5 and self.image.size == size[::-1]:
            return self.upright()
        return None

    def upright(self) -> Image.Image:
        """Turn the stored pixels as the file asks its viewers to."""
        turn = _TURNS.get(self.orientation)
        return self.image if turn is None else self.image.transpose(turn)


@contextmanager
def bounded() -> Iterator[None]:
    """Let an image that is too large to be a photograph fail before it is decoded, where Pillow only warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(content: bytes) -> Picture:
    """Decode a whole image.

    Gray values of 16 bits are divided by 257 and rounded. Colours of 16 bits lose their lower byte, which Pillow does
    not read. Transparency is dropped: the colours beneath it are kept.

    Parameters
    ----------
    content : bytes
        A file of any format that Pillow reads; of several frames the first counts.

    Raises
    ------
    OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning
        Not an image, damaged, too large, or of a kind that no photograph has. Pillow raises others for some damage.
    """
    with bounded(), Image.open(io.BytesIO(content)) as image:
        form = image.format or ""
        deep = form == "PNG" and content[_DEPTH_AT] == 16
        image.load()
        kinds = list(_MODE_KINDS.get(image.mode, ()))
        if image.mode in _SIXTEEN_BITS:
            kinds, rgb = ["grayscale", "16-bit"], _from_sixteen_bits(image)
        elif image.mode in _MODE_KINDS or image.mode in ("YCbCr", "LAB", "HSV", "RGBX"):
            rgb = _to_rgb(image)
        else:
            raise ValueError(f"mode {image.mode} is not a photograph's")
        if "transparency" in image.info:
            kinds.append("alpha")
        if deep:
            kinds.append("16-bit")
        orientation = _orientation(image)
        if orientation != 1:
            kinds.append("exif-rotated")
    if not kinds and form in _AS_IT_IS and image.mode == "RGB":
        return Picture(rgb, (), _AS_IT_IS[form], 1, content)
    found = tuple(kind for kind in KINDS if kind in kinds) or ("other",)
    return Picture(rgb, found, ".png", orientation, content)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert; a palette with transparency takes the way that Pillow does not warn of."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert("RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255."""
    values = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise ValueError(f"gray values from {values.min()} to {values.max()} are not 16-bit")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def read(path: Path) -> bytes:
    """Read a file, unless that alone would take more memory than any decoded image may.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is too large.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES} bytes")
    return content


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 where there is none or its block is damaged, which harms no pixel."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow has many ways to say that
        return 1
    return found if found in _TURNS else 1


def reason(error: BaseException) -> str:
    """Say what is wrong with a file: the first line of its error, without the path that a message begins with."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).splitlines()[0]
