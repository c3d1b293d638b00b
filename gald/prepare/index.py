"""The index of a prepared split: one CSV row per sample, sorted by id.

``image`` and ``mask`` are paths below the prepared folder, the mask's empty in a split whose labels are not published.
``height`` and ``width`` are pixels. ``image_sha256`` and ``mask_sha256`` are digests of the decoded uint8 pixels in row
order, (h, w, 3) and (h, w), so that they hold for every way to store them. ``dhash`` is a perceptual hash of the image.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

FIELDS = ("id", "image", "mask", "height", "width", "image_sha256", "mask_sha256", "dhash")


def render(rows: Iterable[Mapping[str, str | int]]) -> str:
    r"""Spell an index.

    Examples
    --------
    >>> row = dict.fromkeys(FIELDS, "x") | {"id": "a", "height": 2, "width": 3}
    >>> render([row])
    'id,image,mask,height,width,image_sha256,mask_sha256,dhash\na,x,x,2,3,x,x,x\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read(path: Path) -> list[dict[str, str]]:
    """Read an index."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
