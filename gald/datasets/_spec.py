"""What a benchmark is: its classes, its raw ids, its splits and archives, and how its native files are read.

One file per benchmark exposes one `DatasetSpec` as ``SPEC``; nothing else in the project tests a dataset's name. Raw
ids become train ids by one lookup table, in which every id that may occur is listed, mapped or ignored by name: an id
that is in neither list is an error, never silently ignored.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gald.datasets import IGNORE_INDEX

if TYPE_CHECKING:  # numpy is imported where arrays are made, so that a SPEC is cheap to import
    import numpy as np
    import numpy.typing as npt

UNKNOWN = -1
"""Entry of the lookup table for a raw id that the benchmark does not define."""

_CLASSES = Path(__file__).parent / "classes"


@dataclass(frozen=True)
class ClassInfo:
    """One class: its name, its colour in plots, and the raw ids that mean it."""

    name: str
    colour: tuple[int, int, int]
    raw_ids: tuple[int, ...]


@dataclass(frozen=True)
class Archive:
    """A file the benchmark is published in.

    Attributes
    ----------
    name : str
        File name, in a mirror and in the ``archives`` folder alike.
    urls : tuple of str
        Where it can be had without a login; empty if it cannot.
    members : str
        Regular expression that a member's path, after `strip`, must match as a whole to be unpacked.
    strip : str
        Regular expression of the leading part of a member's path to be cut off, for example a top folder.
    digests : mapping from str to str
        Known checksums: algorithm (sha256, sha1 or md5) to hex digits. Empty if none is published.
    size : int or None
        Known size in bytes.
    page : str
        Where a person gets it, or reads about it.
    """

    name: str
    urls: tuple[str, ...] = ()
    members: str = ".*"
    strip: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    page: str = ""


@dataclass(frozen=True)
class Segment:
    """One entry of a run-length encoded mask: `raw_id` where `counts` says, in a map of (height, width)."""

    raw_id: int
    size: tuple[int, int]
    counts: str


@dataclass(frozen=True)
class RawSample:
    """One image and its annotation as unpacked: a mask file, or segments painted in order on a map of `size`."""

    id: str
    image: Path
    mask: Path
    segments: tuple[Segment, ...] = ()
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """One benchmark.

    Attributes
    ----------
    name, title : str
        Name of the file, and as printed.
    classes : tuple of ClassInfo
        In train id order.
    ignored : mapping from int to str
        Raw ids excluded from loss and metric, with their names.
    train_splits : tuple of str
        Splits the literature trains on for the published number.
    eval_split : str
        Split that number is reported on.
    counts : mapping from str to int
        Samples of each split in the real benchmark; prepare makes every split named here.
    archives : tuple of Archive
        What download fetches.
    licence : str
        Terms, in one line.
    index : callable
        Unpacked folder -> samples of each split. Raises `DatasetError`.
    read_mask : callable
        Sample -> raw ids, an integer array of shape (h, w).
    tree_sha256 : str or None
        Known digest of the unpacked files (`gald.files.tree_digest`).
    """

    name: str
    title: str
    classes: tuple[ClassInfo, ...]
    ignored: Mapping[int, str]
    train_splits: tuple[str, ...]
    eval_split: str
    counts: Mapping[str, int]
    archives: tuple[Archive, ...]
    licence: str
    index: Callable[[Path], dict[str, list[RawSample]]]
    read_mask: Callable[[RawSample], npt.NDArray[np.generic]]
    tree_sha256: str | None = None
    ignore_index: int = IGNORE_INDEX

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in train id order."""
        return tuple(info.name for info in self.classes)

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colours in train id order."""
        return tuple(info.colour for info in self.classes)

    def train_ids(self) -> dict[int, int]:
        """Return the whole map: each defined raw id -> its train id, or `ignore_index`."""
        mapped = {raw: train_id for train_id, info in enumerate(self.classes) for raw in info.raw_ids}
        return mapped | dict.fromkeys(self.ignored, self.ignore_index)

    def lookup(self) -> npt.NDArray[np.int16]:
        """Return the map as a table indexed by raw id; `UNKNOWN` where the benchmark defines no such id.

        Returns
        -------
        ndarray of int16, shape (highest raw id + 1,)
        """
        import numpy as np

        known = self.train_ids()
        table = np.full(max(known) + 1, UNKNOWN, dtype=np.int16)
        table[list(known)] = list(known.values())
        return table


def read_classes(name: str) -> tuple[ClassInfo, ...]:
    """Read ``classes/<name>.csv``: index, name, red, green, blue, raw_ids (separated by blanks).

    Returns
    -------
    tuple of ClassInfo
        In train id order.
    """
    with (_CLASSES / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(len(rows))), f"classes/{name}.csv: indices out of order"
    return tuple(
        ClassInfo(
            row["name"],
            (int(row["red"]), int(row["green"]), int(row["blue"])),
            tuple(int(raw) for raw in row["raw_ids"].split()),
        )
        for row in rows
    )


def pair(images: Mapping[str, Path], masks: Mapping[str, Path], where: str) -> list[RawSample]:
    """Pair images and masks that bear the same id, never by their order.

    Raises
    ------
    DatasetError
        Some have no partner; the message names them.
    """
    from gald.errors import DatasetError

    alone = sorted(images.keys() ^ masks.keys())
    if alone:
        named = ", ".join(f"{name} ({'no mask' if name in images else 'no image'})" for name in alone[:20])
        raise DatasetError(f"{where}: {len(alone)} without a partner: {named}; run `gald download` again")
    return [RawSample(name, images[name], masks[name]) for name in sorted(images)]


def read_list(path: Path) -> list[str]:
    """Read the lines of a list of the benchmark, without blank ones.

    Raises
    ------
    DatasetError
        The list is missing.
    """
    from gald.errors import DatasetError

    if not path.is_file():
        raise DatasetError(f"{path} is missing; run `gald download` again")
    return [line for line in path.read_text().splitlines() if line.strip()]


def read_png_ids(sample: RawSample) -> npt.NDArray[np.generic]:
    """Read a mask stored as a single-channel PNG of raw ids.

    Returns
    -------
    ndarray of uint8, shape (h, w)

    Raises
    ------
    DatasetError
        The PNG has colours or 16 bits: ids would be lost by a conversion.
    OSError
        The file is absent or damaged.
    """
    import numpy as np
    from PIL import Image

    from gald.errors import DatasetError

    with Image.open(sample.mask) as picture:
        if picture.mode not in ("L", "P"):
            raise DatasetError(f"{sample.mask}: a mask of raw ids has mode L or P, found {picture.mode}")
        return np.asarray(picture)
