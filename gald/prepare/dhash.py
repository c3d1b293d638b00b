"""A perceptual hash of an image: near-duplicates differ in few of its 64 bits, whatever their size or file format.

References
----------
N. Krawetz, "Kind of like that", 2013: the difference hash.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_WIDTH, _HEIGHT = 9, 8  # nine columns have eight differences


def dhash(image: Image.Image) -> str:
    """Hash the signs of brightness differences between neighbours in a row, after shrinking to 9 x 8 pixels.

    Parameters
    ----------
    image : Image
        RGB, of any size.

    Returns
    -------
    str
        16 hex digits, a bit per difference, row by row from the top left, highest first; it is set where brightness
        grows to the right.

    Examples
    --------
    >>> dhash(Image.new("RGB", (90, 80), (9, 9, 9)))
    '0000000000000000'
    >>> dhash(Image.linear_gradient("L").rotate(90).convert("RGB"))
    'ffffffffffffffff'
    """
    small = np.asarray(image.convert("L").resize((_WIDTH, _HEIGHT), Image.Resampling.BOX))
    return np.packbits(small[:, :-1] < small[:, 1:]).tobytes().hex()
