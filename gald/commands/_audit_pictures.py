"""Pictures of the page: which samples are shown, and their images and masks as data that lies in the page itself."""

from __future__ import annotations

import base64
import io
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gald.commands._audit_benchmark import Benchmark
from gald.commands._audit_counts import colour, percent
from gald.commands._audit_duplicates import Member

_SHOWN = 12  # samples spread over the splits; the worst cases come on top
_BOX, _SMALL_BOX = (320, 280), (200, 160)  # pixels, width and height; larger pictures are reduced
_OPACITY = 0.62  # of the classes over the image
_IGNORED, _STRIPE = (112, 118, 124), (225, 228, 231)
_QUALITY = 80


class Pictures:
    """Reads samples of one benchmark and draws them.

    Parameters
    ----------
    benchmark : Benchmark
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self._palette = np.full((256, 3), _IGNORED, dtype=np.uint8)
        self._palette[: len(benchmark.manifest["palette"])] = benchmark.manifest["palette"]
        self._seen: set[int] = set()

    def samples(self) -> list[dict[str, Any]]:
        """Draw the chosen samples: image and overlay, and why each was chosen."""
        return [self._card(member, reasons) for member, reasons in self._chosen.items()]

    def legend(self) -> list[tuple[str, str]]:
        """Classes that occur in the samples drawn so far, with their colours, in train id order."""
        names = self.benchmark.manifest["classes"]
        return [(name, colour(self._palette[k])) for k, name in enumerate(names) if k in self._seen]

    @property
    def ignored_seen(self) -> bool:
        """Whether a sample drawn so far has ignored pixels."""
        return int(self.benchmark.manifest["ignore_index"]) in self._seen

    def thumbnail(self, member: Member) -> dict[str, str]:
        """Draw one sample small, with what names it."""
        image = _reduced(Image.fromarray(self._image(member)), _SMALL_BOX, Image.Resampling.LANCZOS)
        return {"split": member.split, "id": self._row(member)["id"], "image": _data(image)}

    @cached_property
    def _chosen(self) -> dict[Member, list[str]]:
        """Choose samples by a fixed rule: evenly over each split, then worst cases."""
        rows = self.benchmark.rows
        each = max(2, _SHOWN // max(1, len(rows)))
        chosen: dict[Member, list[str]] = {
            Member(split, index): [] for split in rows for index in spread(len(rows[split]), each)
        }
        for split, shares in self.benchmark.ignored_shares.items():
            if any(shares):
                chosen.setdefault(Member(split, shares.index(max(shares))), []).append(
                    f"largest ignored share of {split}"
                )
        every = [Member(split, index) for split in rows for index in range(len(rows[split]))]
        if len({self._area(member) for member in every}) > 1:
            chosen.setdefault(min(every, key=self._area), []).append("smallest size")
            chosen.setdefault(max(every, key=self._area), []).append("largest size")
        return chosen

    def _card(self, member: Member, reasons: list[str]) -> dict[str, Any]:
        row = self._row(member)
        card = {"split": member.split, "id": row["id"], "reasons": reasons, "overlay": "", "ignored": ""}
        card["size"] = f"{row['width']} × {row['height']}"  # noqa: RUF001
        labelled = member.split in self.benchmark.labelled
        sample = self.benchmark.readers[member.split][member.position] if labelled else None
        pixels = self._image(member) if sample is None else sample.image
        image = _reduced(Image.fromarray(pixels), _BOX, Image.Resampling.LANCZOS)
        card["image"] = _data(image)
        if sample is not None:
            mask = sample.mask
            self._seen |= set(np.unique(mask).tolist())
            ignore_index = self.benchmark.manifest["ignore_index"]
            card["ignored"] = percent(int(np.count_nonzero(mask == ignore_index)), mask.size)
            small = np.asarray(_reduced(Image.fromarray(mask), _BOX, Image.Resampling.NEAREST))
            card["overlay"] = _data(Image.fromarray(overlay(np.asarray(image), small, self._palette, ignore_index)))
        return card

    def _image(self, member: Member) -> npt.NDArray[np.uint8]:
        return self.benchmark.readers[member.split].image(member.position)

    def _row(self, member: Member) -> dict[str, str]:
        return self.benchmark.rows[member.split][member.position]

    def _area(self, member: Member) -> int:
        row = self._row(member)
        return int(row["height"]) * int(row["width"])


def spread(count: int, wanted: int) -> list[int]:
    """Choose positions spread evenly over a sequence, both ends included.

    Examples
    --------
    >>> spread(10, 4), spread(3, 5), spread(0, 4)
    ([0, 3, 6, 9], [0, 1, 2], [])
    """
    if count <= wanted:
        return list(range(count))
    return [round(step * (count - 1) / (wanted - 1)) for step in range(wanted)]


def overlay(
    image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8], ignore_index: int
) -> npt.NDArray[np.uint8]:
    """Lay the colours of the classes over an image; ignored pixels are grey with light diagonal stripes.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    mask : ndarray of uint8, shape (h, w)
        Train ids, or `ignore_index`.
    palette : ndarray of uint8, shape (256, 3)
        Colour of each train id.
    ignore_index : int

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
    """
    colours = palette[mask]
    y, x = np.indices(mask.shape)
    colours[(mask == ignore_index) & ((x + y) % 7 < 2)] = _STRIPE
    mixed = _OPACITY * colours + (1 - _OPACITY) * image
    return np.rint(mixed).astype(np.uint8)


def _reduced(picture: Image.Image, box: tuple[int, int], how: Image.Resampling) -> Image.Image:
    scale = min(1.0, box[0] / picture.width, box[1] / picture.height)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), how)


def _data(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
