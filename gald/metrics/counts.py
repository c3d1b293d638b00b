"""What is counted of each image, and the table of all images' counts from which every score follows.

Counts add up over images, so resuming, several processes, resampling and comparison need no network again.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gald.datasets import IGNORE_INDEX
from gald.errors import StaleMetrics
from gald.metrics._tally import Counts, Mask, tally
from gald.metrics.border import BORDER, border_zones
from gald.metrics.boundary import boundary_f, boundary_iou, boundary_rings
from gald.metrics.confusion import check_ids
from gald.metrics.objects import objects
from gald.params import WIDTHS

_FORMAT = 1
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file knows; the clock must not enter the bytes
_PARTS = ("indptr", "indices", "data")


@dataclass(frozen=True)
class Layout:
    """What the counts of an image are.

    Attributes
    ----------
    num_classes : int
        Classes K, 1 to 255.
    area_edges : tuple of int
        Three ascending areas in pixels that part objects into four bins, fixed for a benchmark; see `area_edges` of
        `gald.metrics`. An object of area a is in bin ``searchsorted(area_edges, a, side="left")``.

    Raises
    ------
    ValueError
        There are too few or too many classes, or the areas are not three, or do not ascend.
    """

    num_classes: int
    area_edges: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be counted."""
        if not 1 <= self.num_classes <= IGNORE_INDEX:
            raise ValueError(f"{self.num_classes} classes cannot be counted, only 1 to {IGNORE_INDEX}")
        if len(self.area_edges) != 3 or sorted(self.area_edges) != list(self.area_edges):
            raise ValueError(f"area_edges must be three ascending areas, found {self.area_edges}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each family of counts.

        Returns
        -------
        dict
            ``rings`` (6, K, K): confusion in disjoint rings of distance to a boundary of the truth, between `WIDTHS`,
            the last farther than all. Their sum is the confusion matrix, the sum of the first i + 1 that of the trimap
            of width WIDTHS[i].
            ``boundary_iou`` (5, K, 2): intersection and union, see there.
            ``boundary_f`` (5, K, 4): predicted boundary pixels matched, predicted, true ones matched, true.
            ``objects`` (4, K, 4): pixels right, pixels, objects found, objects, by area.
            ``border`` (4, K, K): confusion in zones of distance to the image's border, the nearest first.
        """
        k = self.num_classes
        return {
            "rings": (len(WIDTHS) + 1, k, k),
            "boundary_iou": (len(WIDTHS), k, 2),
            "boundary_f": (len(WIDTHS), k, 4),
            "objects": (len(self.area_edges) + 1, k, 4),
            "border": (len(BORDER) + 1, k, k),
        }


def count_image(truth: Mask, prediction: Mask, layout: Layout) -> dict[str, Counts]:
    """Count one image.

    Parameters
    ----------
    truth : uint8 array (H, W)
        Train ids; 255 is ignored.
    prediction : uint8 array (H, W)
        Train ids in [0, K).
    layout : Layout
        What to count.

    Returns
    -------
    dict
        An int64 array of each of `Layout.shapes`. Exact, and the same for any number of threads.

    Raises
    ------
    ValueError
        Shapes differ, or an id lies outside its range.
    """
    k = layout.num_classes
    check_ids(truth, prediction, k)
    truth = np.ascontiguousarray(truth)
    prediction = np.where(truth == IGNORE_INDEX, np.uint8(IGNORE_INDEX), prediction)
    true_rings, predicted_rings = boundary_rings(truth), boundary_rings(prediction)
    near = (truth, prediction, true_rings, predicted_rings, k)
    return {
        "rings": tally((true_rings, truth, prediction), layout.shapes()["rings"]),
        "boundary_iou": boundary_iou(*near),
        "boundary_f": boundary_f(*near),
        "objects": objects(truth, prediction, layout.area_edges, k),
        "border": border_zones(truth, prediction, k),
    }


class CountTable:
    """The counts of all images of a split, one row each, sparse because an image holds few of the classes.

    Attributes
    ----------
    ids : tuple of str
        The images, in the order of the rows.
    layout : Layout
        What was counted.
    """

    def __init__(self, ids: Iterable[str], layout: Layout, families: Mapping[str, csr_array]) -> None:
        self.ids = tuple(ids)
        self.layout = layout
        self._families = dict(families)

    @classmethod
    def of(cls, ids: Iterable[str], layout: Layout, images: Iterable[Mapping[str, Counts]]) -> CountTable:
        """Collect the counts of images, see `count_image`, keeping only what is not zero.

        Raises
        ------
        ValueError
            There are not as many images as ids.
        """
        ids = tuple(ids)
        shapes = layout.shapes()
        rows: dict[str, list[tuple[NDArray[np.intp], Counts]]] = {name: [] for name in shapes}
        for image in images:
            for name, shape in shapes.items():
                flat = image[name].reshape(math.prod(shape))
                places = np.flatnonzero(flat)
                rows[name].append((places, flat[places]))
        found = len(rows["rings"])
        if found != len(ids):
            raise ValueError(f"there are {len(ids)} ids, but the counts of {found} images")
        return cls(ids, layout, {name: _stacked(rows[name], math.prod(shapes[name])) for name in shapes})

    def family(self, name: str) -> csr_array:
        """Counts of all images, int64 (images, product of the family's shape)."""
        return self._families[name]

    def total(self, name: str) -> Counts:
        """Counts of the whole split, int64 of the family's shape."""
        return np.asarray(self._families[name].sum(axis=0), np.int64).reshape(self.layout.shapes()[name])

    def confusions(self) -> csr_array:
        """Confusion matrix of each image, int64 (images, K * K), rows of the truth one after another."""
        rings, cells = self._families["rings"], self.layout.num_classes**2
        confusions = csr_array(
            (rings.data.copy(), rings.indices % cells, rings.indptr.copy()), shape=(len(self.ids), cells)
        )
        confusions.sum_duplicates()
        return confusions

    def per_class(self) -> Counts:
        """Pixels of each image and class, int64 (images, K, 3): right, in the truth, in the prediction."""
        confusions, k = self.confusions().tocoo(), self.layout.num_classes
        truth, prediction = np.divmod(confusions.coords[1], k)
        right = truth == prediction
        counts = np.zeros((len(self.ids), k, 3), np.int64)
        np.add.at(counts[..., 0], (confusions.coords[0][right], truth[right]), confusions.data[right])
        np.add.at(counts[..., 1], (confusions.coords[0], truth), confusions.data)
        np.add.at(counts[..., 2], (confusions.coords[0], prediction), confusions.data)
        return counts

    def packed(self) -> bytes:
        """Spell the table as an .npz: the same counts give the same bytes."""
        head = {
            "format": _FORMAT,
            "ids": list(self.ids),
            "num_classes": self.layout.num_classes,
            "area_edges": list(self.layout.area_edges),
            "widths": list(WIDTHS),
            "border": list(BORDER),
        }
        arrays = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
        for name, table in self._families.items():
            arrays |= {f"{name}.{part}": _narrow(getattr(table, part)) for part in _PARTS}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                spelled = io.BytesIO()
                np.save(spelled, array, allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy", _DATE), spelled.getvalue(), zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    @classmethod
    def read(cls, source: Path | bytes) -> CountTable:
        """Read a table that `packed` spelled.

        Raises
        ------
        StaleMetrics
            It is missing, damaged, or was counted at other widths or zones than this version's.
        """
        name = "the table of counts" if isinstance(source, bytes) else str(source)
        try:
            content = source if isinstance(source, bytes) else source.read_bytes()
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls._unpacked({key: arrays[key] for key in arrays.files})
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise StaleMetrics(f"{name} cannot be read ({error}): evaluate the run again") from error

    @classmethod
    def _unpacked(cls, arrays: dict[str, NDArray[Any]]) -> CountTable:
        head = json.loads(arrays["head"].tobytes())
        for key, expected in (("format", _FORMAT), ("widths", list(WIDTHS)), ("border", list(BORDER))):
            if head[key] != expected:
                raise ValueError(f"{key} is {head[key]}, this version counts with {expected}")
        ids, layout = tuple(head["ids"]), Layout(head["num_classes"], tuple(head["area_edges"]))
        families = {}
        for name, shape in layout.shapes().items():
            indptr, indices, data = (arrays[f"{name}.{part}"].astype(np.int64) for part in _PARTS)
            families[name] = csr_array((data, indices, indptr), shape=(len(ids), math.prod(shape)))
            families[name].check_format(full_check=True)
        return cls(ids, layout, families)


def _stacked(rows: list[tuple[NDArray[np.intp], Counts]], columns: int) -> csr_array:
    """One sparse row per image from places and counts."""
    indptr = np.cumsum([0, *(len(places) for places, _ in rows)])
    empty = np.zeros(0, np.int64)
    places = np.concatenate([empty, *(places for places, _ in rows)])
    return csr_array(
        (np.concatenate([empty, *(counts for _, counts in rows)]), places, indptr), shape=(len(rows), columns)
    )


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Spell values that are not negative in the narrowest unsigned integers that hold them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))
