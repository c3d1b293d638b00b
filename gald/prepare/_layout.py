"""What goes where in a packed store: a function of the prepared indices alone, and of no pixel."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gald import paths
from gald.datasets._packed import ALIGNMENT, FIELDS, Pixels
from gald.datasets._reader import PreparedSplit
from gald.files import digest, sha256

SHARD_BYTES = 4 << 30
"""Largest shard: few files, yet little to write again after a kill or a fault. Only a larger sample exceeds it."""


@dataclass(frozen=True)
class Placed:
    """One sample's place in its shard.

    Attributes
    ----------
    split : str
        Its split.
    position : int
        Its row in the split's index.
    image, mask : int or None
        Offsets in bytes; None for a mask that is not published.
    """

    split: str
    position: int
    image: int
    mask: int | None


@dataclass(frozen=True)
class Shard:
    """One file of the store.

    Attributes
    ----------
    name : str
        File name.
    bytes : int
        Its size.
    samples : tuple of Placed
        What it holds, in order.
    """

    name: str
    bytes: int
    samples: tuple[Placed, ...]


@dataclass(frozen=True)
class Layout:
    """The store that a prepared folder asks for.

    Attributes
    ----------
    edition, dataset : str
        The benchmark.
    manifest_sha256 : str
        Digest of the prepared folder's manifest.
    splits : dict of PreparedSplit
        Where pixels are read from.
    shards : tuple of Shard
        Split by split.
    """

    edition: str
    dataset: str
    manifest_sha256: str
    splits: dict[str, PreparedSplit]
    shards: tuple[Shard, ...]

    @classmethod
    def of(cls, edition: str, dataset: str) -> Layout:
        """Lay out a prepared benchmark.

        Raises
        ------
        DatasetError
            It was not prepared, or an index is damaged.
        """
        folder = paths.prepared(edition, dataset)
        names = PreparedSplit(folder, (), store="files").manifest["splits"]
        manifest_sha256 = sha256(paths.manifest(edition, dataset))
        splits = {name: PreparedSplit(folder, (name,), store="files") for name in names}
        shards = [shard for name, split in splits.items() for shard in place(name, split)]
        return cls(edition, dataset, manifest_sha256, splits, tuple(shards))

    @property
    def name(self) -> str:
        """Edition and dataset, as on the command line."""
        return f"{self.edition}/{self.dataset}"

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    @cached_property
    def indices(self) -> dict[str, str]:
        """Text of each split's index, by split."""
        return {name: self._index(name) for name in self.splits}

    def _index(self, name: str) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for shard in self.shards:
            for sample in shard.samples:
                if sample.split == name:
                    offsets = {"shard": shard.name, "image_offset": sample.image, "mask_offset": sample.mask}
                    writer.writerow(self.splits[name].rows[sample.position] | offsets)
        return text.getvalue()

    def read(self, sample: Placed) -> tuple[Pixels, Pixels | None]:
        """Decode a sample and compare its pixels with the prepared digests."""
        return self.splits[sample.split].verified_pixels(sample.position)

    def record(self, digests: dict[str, str]) -> dict[str, Any]:
        """Spell store.json, given the sha256 of each shard by name."""
        return {
            "edition": self.edition,
            "dataset": self.dataset,
            "manifest_sha256": self.manifest_sha256,
            "bytes": self.bytes,
            "splits": {
                name: {
                    "count": len(self.splits[name]),
                    "index": f"{name}.csv",
                    "sha256": hashlib.sha256(text.encode()).hexdigest(),
                }
                for name, text in self.indices.items()
            },
            "shards": [
                {"name": shard.name, "bytes": shard.bytes, "sha256": digests.get(shard.name)} for shard in self.shards
            ],
        }

    def fits(self, record: dict[str, Any]) -> bool:
        """Whether a store's record is of this layout, whatever its shards' digests."""
        digests = {shard["name"]: shard["sha256"] for shard in record["shards"]}
        return self.record(digests) == record

    @property
    def digest(self) -> str:
        """Digest of data and layout, to know the rests of an earlier attempt by."""
        return digest(self.record({}))


def place(name: str, split: PreparedSplit) -> list[Shard]:
    """Fill shards with the samples of a split, in its order; a sample never spans two."""
    shards: list[Shard] = []
    samples: list[Placed] = []
    end = 0

    def close() -> None:
        if samples:
            shards.append(Shard(f"{name}-{len(shards):05d}.bin", end, tuple(samples)))
            samples.clear()

    for position, row in enumerate(split.rows):
        height, width = split.size(position)
        offsets = _offsets(end, height * width, labelled=bool(row["mask"]))
        if offsets[-1] > SHARD_BYTES:
            close()
            offsets = _offsets(0, height * width, labelled=bool(row["mask"]))
        image, mask, end = offsets
        samples.append(Placed(name, position, image, mask))
    close()
    return shards


def _offsets(end: int, pixels: int, *, labelled: bool) -> tuple[int, int | None, int]:
    """Offsets of the next image and mask after byte `end`, and the byte after them.

    Examples
    --------
    >>> _offsets(0, 30, labelled=True), _offsets(158, 30, labelled=False)
    ((0, 128, 158), (192, None, 282))
    """
    image = _aligned(end)
    if not labelled:
        return image, None, image + 3 * pixels
    mask = _aligned(image + 3 * pixels)
    return image, mask, mask + pixels


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
