"""Pixels of a prepared benchmark from its own files: PNG and JPEG, decoded each time they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gald.datasets import _png
from gald.datasets._packed import Kind, Pixels
from gald.errors import DatasetError


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

    def mask(self, i: int) -> Pixels | None:
        """Mask of sample `i`, uint8 (h, w); None if it is not published."""
        return self._read(self._rows[i]["mask"], "L") if self._rows[i]["mask"] else None

    def where(self, i: int, kind: Kind) -> str:
        """Name the file of sample `i`, for a message."""
        return str(self._folder / self._rows[i][kind])

    def remedy(self) -> str:
        """Say what cures damage."""
        return self._remedy

    def _read(self, name: str, mode: str) -> Pixels:
        path = self._folder / name
        try:
            if path.suffix == ".png" and (pixels := _png.decode(path.read_bytes(), mode)) is not None:
                return pixels
            with Image.open(path) as picture:
                if picture.mode != mode:
                    raise DatasetError(f"{path}: expected mode {mode}, found {picture.mode}; {self._remedy}")
                return np.array(picture)
        except (OSError, SyntaxError) as error:
            raise DatasetError(f"{path} cannot be read ({error}); {self._remedy}") from error
