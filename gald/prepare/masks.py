"""Raw ids -> train ids by one lookup table per benchmark; an id that it does not list is an error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from gald.datasets._spec import UNKNOWN, DatasetSpec
from gald.errors import DatasetError

_MOST_NAMED = 10


class Lookup:
    """The table of one benchmark, applied to masks.

    Parameters
    ----------
    spec : DatasetSpec
        Holds the table: raw ids that mean a class, and raw ids that are ignored by name.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        table = spec.lookup()
        self._title = spec.title
        self._defined = table != UNKNOWN
        self._table = np.where(self._defined, table, 0).astype(np.uint8)
        self._bytes = [*self._table[:256].tolist(), *[0] * (256 - len(self._table))]  # for Pillow, one entry per byte

    def __call__(self, raw: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Look every raw id up.

        Parameters
        ----------
        raw : ndarray, shape (h, w)
            Raw ids; whole numbers of any type (MATLAB stores some as float64).

        Returns
        -------
        mask : ndarray of uint8, shape (h, w)
            Train ids, or the benchmark's ignore_index; row by row in memory.
        counts : ndarray of int64, shape (highest raw id of the table + 1,)
            Pixels of each raw id.

        Raises
        ------
        DatasetError
            An id is fractional, or the benchmark does not define it; the message lists such ids.
        """
        if raw.ndim != 2 or not raw.size:
            raise DatasetError(f"a mask has two dimensions and pixels, found shape {raw.shape}")
        if raw.dtype == np.uint8:
            return self._of_bytes(raw.astype(np.uint8, copy=False))
        ids = raw
        if not np.issubdtype(raw.dtype, np.integer):
            if not np.isfinite(raw).all() or np.abs(raw).max() >= 2**31:
                raise DatasetError("raw ids must be whole numbers, found infinite or huge ones")
            ids = raw.astype(np.int64)
            if not np.array_equal(ids, raw):
                raise DatasetError("raw ids must be whole numbers")
        if int(ids.min()) < 0 or int(ids.max()) >= len(self._table):
            self._refuse(np.unique(ids))
        counts = np.bincount(ids.ravel(), minlength=len(self._table))
        self._refuse(np.flatnonzero(counts))
        return np.ascontiguousarray(self._table[ids]), counts  # MATLAB's maps lie column by column

    def _of_bytes(self, raw: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Count and map through Pillow: a third of NumPy's time on large masks, and no wider copy of them."""
        picture = Image.fromarray(raw)
        counts = np.array(picture.histogram(), dtype=np.int64)
        self._refuse(np.flatnonzero(counts))
        padded = np.zeros(len(self._table), dtype=np.int64)
        known = min(256, len(padded))
        padded[:known] = counts[:known]
        return np.asarray(picture.point(self._bytes)), padded

    def _refuse(self, found: npt.NDArray[np.generic]) -> None:
        """Refuse ids of which one is not defined."""
        ids = [int(raw) for raw in found]
        unknown = [raw for raw in ids if not (0 <= raw < len(self._defined) and self._defined[raw])]
        if unknown:
            more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
            named = ", ".join(map(str, unknown[:_MOST_NAMED]))
            raise DatasetError(f"raw id {named}{more} is not defined by {self._title}")
