"""The index of a prepared split: one CSV row per sample, sorted by id, with paths, size and digests."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

FIELDS = ("id", "image", "mask", "height", "width", "image_sha256", "mask_sha256")


def render(rows: Iterable[Mapping[str, str | int]]) -> str:
    r"""Spell an index.

    Examples
    --------
    >>> row = dict.fromkeys(FIELDS, "x") | {"id": "a", "height": 2, "width": 3}
    >>> render([row])
    'id,image,mask,height,width,image_sha256,mask_sha256\na,x,x,2,3,x,x\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
