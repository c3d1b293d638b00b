"""Compressed run-length masks as COCO and its relatives store them, read and written without pycocotools.

Runs alternate between zeros and ones, zeros first, down the columns. A run is a variable-length integer in groups of 5
bits, low group first, each a character from "0" on; bit 5 says that more follow, bit 4 of the last group is the sign.
From the fourth run on, the difference to the run two places before is stored.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gald.errors import DatasetError


def decode(counts: str, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode a mask.

    Parameters
    ----------
    counts : str
        The runs.
    size : tuple of int
        Height and width.

    Returns
    -------
    ndarray of bool, shape (height, width)

    Raises
    ------
    DatasetError
        The string is cut off, or its runs do not fill the size.

    Examples
    --------
    >>> decode("122", (2, 3)).astype(int)  # 1 zero, 2 ones, 2 zeros: one short
    Traceback (most recent call last):
    gald.errors.DatasetError: a run-length mask of 5 pixels in an image of 6
    >>> decode("123", (2, 3)).astype(int)
    array([[0, 1, 0],
           [1, 0, 0]])
    """
    height, width = size
    runs = _runs(counts)
    if sum(runs) != height * width:
        raise DatasetError(f"a run-length mask of {sum(runs)} pixels in an image of {height * width}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def _runs(counts: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode():
        group = character - 48
        if not 0 <= group < 64:
            raise DatasetError(f"a run-length mask with the character {chr(character)!r}")
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            raise DatasetError("a run-length mask with a negative run")
        runs.append(value)
        value = shift = 0
    if shift:
        raise DatasetError("a run-length mask that is cut off")
    return runs


def encode(mask: npt.NDArray[np.bool_]) -> str:
    """Encode a mask of shape (height, width); the inverse of `decode`.

    Examples
    --------
    >>> encode(np.array([[0, 1, 0], [1, 0, 0]], dtype=bool))
    '123'
    """
    flat = np.concatenate(([False], mask.T.ravel()))
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate(([0], edges, [mask.size]))).tolist()
    characters = []
    for position, run in enumerate(runs):
        value = run - runs[position - 2] if position > 2 else run
        more = True
        while more:
            group = value & 0x1F
            value >>= 5
            more = value != (-1 if group & 0x10 else 0)
            characters.append(chr(48 + (group | 0x20 if more else group)))
    return "".join(characters)
