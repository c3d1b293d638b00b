"""Decode the two kinds of PNG that prepared folders hold, in a fraction of the time that Pillow takes.

Most of the time that training from files takes goes into PNG. Three things shorten it: an image is decoded no further
than the last row that is asked for; masks are written without filters (`encode_mask`), so that to inflate them is all
there is to do; and libraries that are quicker than Pillow do the work. Pixels are the same either way; whatever is of
another kind, or damaged, is left to Pillow, whose errors say what is the matter.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33  # signature 8, then the IHDR chunk: length 4, name 4, data 13, checksum 4
_KINDS = {b"\x08\x02": "RGB", b"\x08\x00": "L"}  # bit depth and colour type
_PEEKED_ROWS = 8
_LEVEL = 6
_MOST_INFLATED = 1032  # times its size, by the format of deflate


class _Header(NamedTuple):
    """What the first chunk of a file says."""

    width: int
    height: int
    mode: str | None
    interlaced: bool

    @property
    def stride(self) -> int:
        """Bytes of a row: the filter's number, then the pixels."""
        return 1 + self.width * (3 if self.mode == "RGB" else 1)


def decode(content: bytes, mode: str, rows: int | None = None) -> NDArray[np.uint8] | None:
    """Decode a PNG.

    Parameters
    ----------
    content : bytes
        The whole file.
    mode : str
        Pillow's name of the kind that is expected, ``RGB`` or ``L``.
    rows : int, optional
        Decode that many rows from the top, in as much less time; damage further down goes unnoticed.

    Returns
    -------
    uint8 array (H, W, 3) or (H, W), or None
        The pixels, H being `rows` at the most; None where Pillow must look at the file: it is of another kind, or
        damaged.
    """
    header = _header(content)
    if header is None or header.mode != mode:
        return None
    if _transparent(content):  # which Pillow leaves as it is
        return None
    if header.height * header.stride > _MOST_INFLATED * len(content):  # no memory for what cannot be there
        return None
    if header.interlaced or rows is None or rows >= header.height:
        return _unfiltered(content, header) if mode == "L" and not header.interlaced else _whole(content)
    return _top(content, rows)


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """Encode train ids or raw ids, uint8 (H, W), as a PNG of 8 bits grey.

    Without filters, which predict grey levels and are of no use for ids: the file is smaller than with those that
    encoders choose by themselves, is written in a quarter of the time, and `decode` only has to inflate it.

    Examples
    --------
    >>> mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    >>> decode(encode_mask(mask), "L").tolist()
    [[0, 1, 2], [3, 4, 5]]
    >>> decode(encode_mask(mask.T), "L").tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    import imagecodecs

    png = imagecodecs.PNG
    rows = np.ascontiguousarray(mask)  # MATLAB's masks come column by column
    return bytes(imagecodecs.png_encode(rows, _LEVEL, strategy=png.STRATEGY.RLE, filter=png.FILTER.NONE))


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an RGB image, or grey levels, as a PNG of the pixels and nothing else that an image may carry."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _header(content: bytes) -> _Header | None:
    """Read the header, whose checksum must be right; None if there is none."""
    chunk = content[12:29]
    if not content.startswith(_SIGNATURE) or len(content) < _HEADER_END or chunk[:4] != b"IHDR":
        return None
    if zlib.crc32(chunk) != int.from_bytes(content[29:_HEADER_END], "big"):
        return None
    width, height = (int.from_bytes(chunk[first : first + 4], "big") for first in (4, 8))
    return _Header(width, height, _KINDS.get(chunk[12:14]), chunk[16] != 0)


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the data of each chunk behind the header."""
    start = _HEADER_END
    while start + 8 <= len(content):
        length, name = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
        yield name, start + 8, start + 8 + length
        start += 12 + length


def _transparent(content: bytes) -> bool:
    """Whether a colour is told to be transparent, which counts before the pixels alone."""
    before = takewhile(lambda name: name != b"IDAT", (name for name, _, _ in _chunks(content)))
    return b"tRNS" in before


def _whole(content: bytes) -> NDArray[np.uint8] | None:
    import imagecodecs

    try:
        pixels: NDArray[np.uint8] = imagecodecs.png_decode(content)
    except (imagecodecs.PngError, ValueError):  # a damaged header may break its own message
        return None
    return pixels


def _top(content: bytes, rows: int) -> NDArray[np.uint8] | None:
    """Decode the first rows: the file as it would be with a header that promises no more of them."""
    import imagecodecs

    chunk = content[12:20] + rows.to_bytes(4, "big") + content[24:29]
    header = content[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    try:  # unlike libpng, which inflates the rest too, and grumbles
        pixels: NDArray[np.uint8] = imagecodecs.spng_decode(header + content[_HEADER_END:])
    except (imagecodecs.SpngError, ValueError):
        return None
    return pixels


def _unfiltered(content: bytes, header: _Header) -> NDArray[np.uint8] | None:
    """Decode a grey file; one without filters is inflated, any other is left to libpng."""
    import imagecodecs

    stride, stream = header.stride, _stream(content)
    try:
        first = zlib.decompressobj().decompress(stream, _PEEKED_ROWS * stride)
        if any(first[::stride]):
            return _whole(content)
        inflated = imagecodecs.deflate_decode(stream, raw=False, out=header.height * stride)
    except (zlib.error, imagecodecs.DeflateError, ValueError):
        return None
    if len(inflated) != header.height * stride:
        return None
    lines = np.frombuffer(inflated, np.uint8).reshape(header.height, stride)
    return _whole(content) if lines[:, 0].any() else lines[:, 1:].copy()


def _stream(content: bytes) -> bytes:
    """Join the compressed data, which may lie in several chunks."""
    parts: list[bytes] = []
    for name, start, end in _chunks(content):
        if name == b"IDAT":
            parts.append(content[start:end])
        elif parts:
            break
    return b"".join(parts)
