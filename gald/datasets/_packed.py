"""Packed store of a prepared benchmark: decoded pixels in a few flat files, mapped into memory.

A shard holds sample after sample: the image's rows, then the mask's, each begun at a multiple of `ALIGNMENT` bytes. An
index per split says where they lie. Any crop is a view of the map; only the pages it touches are read from disk, and
the system's page cache keeps them for all processes. ``gald pack`` makes the store, ``store.json`` is written last.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from gald.datasets._shards import check, open_shard
from gald.errors import DatasetError
from gald.files import sha256

ALIGNMENT = 64
"""Bytes; a line of the processor's cache, and more than any vector load asks for."""
FIELDS = ("id", "shard", "image_offset", "mask_offset", "height", "width", "image_sha256", "mask_sha256")
"""Fields of an index row; offsets in bytes, that of the mask empty where the labels are not published."""
STORE = "store.json"

Pixels: TypeAlias = npt.NDArray[np.uint8]
Kind: TypeAlias = Literal["image", "mask"]


class Place(NamedTuple):
    """Where one sample lies.

    Attributes
    ----------
    id : str
        The sample.
    shard : str
        File name of its shard.
    image, mask : int or None
        Offsets in bytes; None for a mask that is not published.
    height, width : int
        Pixels.
    """

    id: str
    shard: str
    image: int
    mask: int | None
    height: int
    width: int


def pixels_sha256(pixels: Pixels) -> str:
    """Sha256 of decoded pixels in row order, whatever file or store they come from.

    Examples
    --------
    >>> pixels_sha256(np.zeros((1, 2), np.uint8)) == hashlib.sha256(bytes(2)).hexdigest()
    True
    """
    return hashlib.sha256(np.ascontiguousarray(pixels).reshape(-1).data).hexdigest()


def read_store(folder: Path) -> dict[str, Any] | None:
    """Read a store's record.

    Parameters
    ----------
    folder : Path
        ``data/packed/<edition>/<dataset>``.

    Returns
    -------
    dict or None
        None if there is no store.

    Raises
    ------
    DatasetError
        store.json is damaged.
    """
    path = folder / STORE
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        shards, splits = record["shards"], record["splits"].values()
        words = [record["manifest_sha256"], *(shard[key] for shard in shards for key in ("name", "sha256"))]
        words += [split[key] for split in splits for key in ("index", "sha256")]
        sizes = [shard["bytes"] for shard in shards]
        readable = all(isinstance(word, str) for word in words) and all(isinstance(size, int) for size in sizes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is damaged ({error!r}); {again(folder)}") from error
    if not readable:
        raise DatasetError(f"{path} is damaged (an entry is of another type); {again(folder)}")
    return record


def again(folder: Path) -> str:
    """Say what cures a damaged store."""
    edition, dataset = folder.absolute().parts[-2:]
    return f"run `gald pack {edition}/{dataset}` again"


class PackedSamples:
    """Pixels of one or several splits of a packed store; any number of threads may read them.

    The shards are mapped at once, so that all pixels are of one store, whatever becomes of its folder. The maps are
    copy-on-write: what is written into an array stays in this process and never reaches the disk.

    Parameters
    ----------
    folder : Path
        ``data/packed/<edition>/<dataset>``.
    splits : iterable of str
        Splits, one after another in the order given.
    record : dict
        The folder's store.json, see `read_store`.

    Raises
    ------
    DatasetError
        A shard is missing or has another size than was packed, or an index is not the one that was.
    """

    def __init__(self, folder: Path, splits: Iterable[str], record: dict[str, Any]) -> None:
        self.folder = folder
        self._places = [place for split in splits for place in self._index(record, split)]
        used = {place.shard for place in self._places}
        unlisted = used.difference(shard["name"] for shard in record["shards"])
        if unlisted:
            raise DatasetError(f"{folder / STORE} is damaged (it lists no {min(unlisted)}); {again(folder)}")
        self._shards = {
            shard["name"]: open_shard(folder / shard["name"], shard["bytes"], shard["sha256"], remedy=again(folder))
            for shard in record["shards"]
            if shard["name"] in used
        }

    def _index(self, record: dict[str, Any], split: str) -> list[Place]:
        known = record["splits"].get(split)
        if known is None:
            raise DatasetError(f"{self.folder / STORE} has no split {split!r}; {again(self.folder)}")
        path = self.folder / known["index"]
        if not path.is_file() or sha256(path) != known["sha256"]:
            raise DatasetError(f"{path} is not what {STORE} beside it promises; {again(self.folder)}")
        with path.open(newline="", encoding="utf-8") as file:
            return [_place(row) for row in csv.DictReader(file)]

    def check(self, pulse: Callable[[], None]) -> None:
        """Hold the shards against their digests, once for each state of a file; `pulse` may raise to stop.

        Raises
        ------
        DatasetError
            A shard does not hold what was packed; the message names it.
        """
        edition, dataset = self.folder.absolute().parts[-2:]
        check(self._shards.values(), (edition, dataset), remedy=again(self.folder), pulse=pulse)

    def image(self, i: int) -> Pixels:
        """Image of sample `i`, uint8 (h, w, 3): a view, nothing is copied."""
        place = self._places[i]
        return self._view(place.shard, place.image, (place.height, place.width, 3))

    def windows(self, i: int) -> Pixels:
        """Image of sample `i` for windows of it: the view reads no more than these."""
        return self.image(i)

    def mask(self, i: int) -> Pixels | None:
        """Mask of sample `i`, uint8 (h, w): a view; None if it is not published."""
        place = self._places[i]
        return None if place.mask is None else self._view(place.shard, place.mask, (place.height, place.width))

    def where(self, i: int, kind: Kind) -> str:
        """Name the place of sample `i` and the remedy for its damage, for a message."""
        place = self._places[i]
        return f"{self.folder / place.shard}: the {kind} of {place.id} at byte {getattr(place, kind)}"

    def remedy(self) -> str:
        """Say what cures damage."""
        return again(self.folder)

    def _view(self, shard: str, offset: int, shape: tuple[int, ...]) -> Pixels:
        size = int(np.prod(shape))
        return self._shards[shard].content[offset : offset + size].reshape(shape)


def _place(row: dict[str, str]) -> Place:
    mask = int(row["mask_offset"]) if row["mask_offset"] else None
    return Place(row["id"], row["shard"], int(row["image_offset"]), mask, int(row["height"]), int(row["width"]))
