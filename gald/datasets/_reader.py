"""Prepared folder -> samples: uint8 image and trainId mask, with numpy and Pillow only."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from gald.errors import DatasetError
from gald.files import sha256


class Sample(NamedTuple):
    """One image and its mask.

    Attributes
    ----------
    id : str
        Unique within its split.
    image : ndarray of uint8, shape (h, w, 3)
        RGB.
    mask : ndarray of uint8, shape (h, w)
        Train ids, or the manifest's ignore_index.
    """

    id: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


class PreparedSplit:
    """One or several splits of a prepared benchmark, as a sequence of samples.

    Parameters
    ----------
    folder : Path
        ``data/prepared/<edition>/<dataset>``.
    splits : iterable of str
        Splits, one after another in the order given.

    Raises
    ------
    DatasetError
        The folder was not prepared, or has no such split.
    """

    def __init__(self, folder: Path, splits: Iterable[str]) -> None:
        self.folder = folder
        self.splits = tuple(splits)
        self._rows: list[dict[str, str]] = []
        for split in self.splits:
            self._rows += self._index(split)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The folder's manifest.json."""
        path = self.folder / "manifest.json"
        try:
            manifest: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise DatasetError(f"{path} is missing; {self._remedy.replace('again', 'first')}") from error
        except ValueError as error:
            raise DatasetError(f"{path} is damaged ({error}); {self._remedy}") from error
        if not isinstance(manifest.get("splits"), dict):
            raise DatasetError(f"{path} lists no splits; {self._remedy}")
        return manifest

    def _index(self, split: str) -> list[dict[str, str]]:
        known = self.manifest["splits"]
        if split not in known:
            raise DatasetError(f"{self.folder}: no split is called {split!r}; it has {', '.join(known)}")
        path = self.folder / known[split]["index"]
        if not path.is_file() or sha256(path) != known[split]["sha256"]:
            raise DatasetError(f"{path} is not what the manifest beside it promises; {self._remedy}")
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def _remedy(self) -> str:
        edition, dataset = self.folder.parts[-2:]
        return f"run `gald prepare {edition}/{dataset}` again"

    @property
    def ids(self) -> list[str]:
        """Ids in the order of the samples."""
        return [row["id"] for row in self._rows]

    def size(self, i: int) -> tuple[int, int]:
        """Height and width in pixels of sample `i`, without reading it."""
        return int(self._rows[i]["height"]), int(self._rows[i]["width"])

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._rows)

    def __getitem__(self, i: int) -> Sample:
        """Read sample `i`.

        Raises
        ------
        DatasetError
            A file is missing or damaged.
        """
        row = self._rows[i]
        return Sample(row["id"], self._read(row["image"], "RGB"), self._read(row["mask"], "L"))

    def __iter__(self) -> Iterator[Sample]:
        """Read the samples in order."""
        return (self[i] for i in range(len(self)))

    def _read(self, name: str, mode: str) -> npt.NDArray[np.uint8]:
        path = self.folder / name
        try:
            with Image.open(path) as picture:
                if picture.mode != mode:
                    raise DatasetError(f"{path}: expected mode {mode}, found {picture.mode}; run `gald prepare` again")
                return np.array(picture)
        except (OSError, SyntaxError) as error:
            raise DatasetError(f"{path} cannot be read ({error}); run `gald prepare` again") from error
