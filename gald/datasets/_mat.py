"""Look at a MATLAB file before SciPy reads it, whom numbers of a type that does not exist crash with the whole process.

MAT-File Format, version 5: elements, each a tag (type and bytes) and its data; a variable is an element of elements
(flags, dimensions, name, numbers), compressed or not. Files of other versions are left to SciPy, which refuses or reads
them safely.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Literal

from gald.errors import DatasetError

_HEADER = 128
_VERSION = (b"\x00\x01", b"\x01\x00")  # in either order of bytes
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC_CLASSES = range(6, 16)  # mxDOUBLE_CLASS to mxUINT64_CLASS
_NUMERIC_TYPES = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13)  # miINT8 to miUINT64
_FLAGS = (6, 8, 16)  # the first element of a variable: numbers of 32 bits, of which there are two
_COMPLEX = 0x800  # a flag; a second element of numbers follows
_BEGINNING = 4096  # bytes of a variable that hold its name


def check(content: bytes, field: str) -> None:
    """Refuse a damaged variable.

    Parameters
    ----------
    content : bytes
        The whole file.
    field : str
        Name of the variable; all others are passed over.

    Raises
    ------
    DatasetError
        Its numbers are complex, as those of no map are.
    ValueError
        Its numbers are of a type that does not exist, or what is compressed is cut off.
    zlib.error
        What is compressed is damaged.
    """
    if content[124:126] not in _VERSION:
        return
    order: Literal["little", "big"] = "little" if content[126:_HEADER] == b"IM" else "big"
    for kind, start, end in _elements(content, _HEADER, order):
        if kind not in (_MATRIX, _COMPRESSED):
            continue
        variable, stream = content[start : min(end, start + _BEGINNING)], zlib.decompressobj()
        if kind == _COMPRESSED:
            variable = stream.decompress(content[start:end], _BEGINNING)[8:]  # without the tag of the matrix within
        parts = list(islice(_elements(variable, 0, order), 4))
        if len(parts) < 3 or parts[0] != _FLAGS:
            raise ValueError("a variable without flags or name")
        if variable[parts[2][1] : parts[2][2]] != field.encode():
            continue
        flags = int.from_bytes(variable[8:12], order)
        numbers = parts[3][0] if len(parts) > 3 else None
        if flags & 0xFF in _NUMERIC_CLASSES and numbers not in _NUMERIC_TYPES:
            raise ValueError(f"numbers of type {numbers}, which does not exist")
        if flags & _COMPLEX:
            raise DatasetError(f"field {field} must be a map of numbers, found complex ones")
        if kind == _COMPRESSED and not _ends(stream):
            raise ValueError("cut off")


def _elements(content: bytes, start: int, order: Literal["little", "big"]) -> Iterator[tuple[int, int, int]]:
    """Yield type, start and end of the data of each element; of small ones the tag holds the data, too."""
    while start + 8 <= len(content):
        kind, size = (int.from_bytes(content[first : first + 4], order) for first in (start, start + 4))
        if kind >> 16:
            yield kind & 0xFFFF, start + 4, start + 4 + (kind >> 16)
            start += 8
        else:
            yield kind, start + 8, start + 8 + size
            start += 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)


def _ends(stream: zlib._Decompress) -> bool:
    """Decompress the rest, for the sake of its checksum."""
    while stream.unconsumed_tail and not stream.eof:
        stream.decompress(stream.unconsumed_tail, 1 << 20)
    return stream.eof
