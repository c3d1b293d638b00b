"""Pixels of a prepared benchmark from its own files: PNG and JPEG, decoded each time they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gald.datasets import _png
from gald.datasets._packed import Kind, Pixels
from gald.errors import DatasetError


class FileWindows:
    """An image of which windows are decoded each time they are asked for, no further down than they reach.

    Parameters
    ----------
    read : callable
        Decodes at least that many rows from the top.
    shape : (int, int, int)
        Height, width and channels.
    """

    def __init__(self, read: Callable[[int], Pixels], shape: tuple[int, int, int]) -> None:
        self._read = read
        self.shape = shape

    def __getitem__(self, window: tuple[slice, slice], /) -> Pixels:
        """Decode a window, uint8 (h, w, 3).

        Raises
        ------
        DatasetError
            The file is missing or damaged, or no longer of its size.
        """
        rows, columns = window
        return self._read(rows.indices(self.shape[0])[1])[rows, columns]


class FileSamples:
    """Pixels decoded from the prepared folder's own files; any number of threads may read them.

    Parameters
    ----------
    folder : Path
        ``data/prepared/<edition>/<dataset>``.
    rows : list of dict
        Rows of the splits' indices, see `gald.prepare.index`.
    remedy : str
        What cures a damaged folder.
    """

    def __init__(self, folder: Path, rows: list[dict[str, str]], remedy: str) -> None:
        self._folder = folder
        self._rows = rows
        self._remedy = remedy

    def image(self, i: int) -> Pixels:
        """Image of sample `i`, uint8 (h, w, 3), decoded anew each time."""
        return self._read(self._rows[i]["image"], "RGB")

    def windows(self, i: int) -> FileWindows:
        """Image of sample `i`, of which windows are decoded anew each time."""
        row = self._rows[i]
        shape = int(row["height"]), int(row["width"]), 3

        def top(rows: int) -> Pixels:
            pixels = self._read(row["image"], "RGB", rows)
            if pixels.shape[0] < rows or pixels.shape[1:] != shape[1:]:
                raise DatasetError(f"{self.where(i, 'image')} changed its size meanwhile; {self._remedy}")
            return pixels

        return FileWindows(top, shape)

    def mask(self, i: int) -> Pixels | None:
        """Mask of sample `i`, uint8 (h, w); None if it is not published."""
        return self._read(self._rows[i]["mask"], "L") if self._rows[i]["mask"] else None

    def where(self, i: int, kind: Kind) -> str:
        """Name the file of sample `i`, for a message."""
        return str(self._folder / self._rows[i][kind])

    def remedy(self) -> str:
        """Say what cures damage."""
        return self._remedy

    def _read(self, name: str, mode: str, rows: int | None = None) -> Pixels:
        path = self._folder / name
        try:
            if path.suffix == ".png" and (pixels := _png.decode(path.read_bytes(), mode, rows)) is not None:
                return pixels
            with Image.open(path) as picture:
                if picture.mode != mode:
                    raise DatasetError(f"{path}: expected mode {mode}, found {picture.mode}; {self._remedy}")
                return np.array(picture)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise DatasetError(f"{path} cannot be read ({error}); {self._remedy}") from error
