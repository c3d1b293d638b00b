"""Quality by the size of objects: the 8-connected components of each class of the truth, all classes in one pass.

A component is made of runs, stretches of one class within a row. Runs of neighbouring rows that touch and are of one
class are joined in a graph, whose components are the objects: far fewer nodes than pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gald.datasets import IGNORE_INDEX
from gald.metrics._tally import Counts, Mask

QUARTILES = (0.25, 0.5, 0.75)


def component_areas(truth: Mask, num_classes: int) -> Counts:
    """Measure the objects of an image.

    Parameters
    ----------
    truth : uint8 array (H, W)
        Train ids; 255 is ignored.
    num_classes : int
        Classes K; ids from there on belong to no object.

    Returns
    -------
    int64 array (objects,)
        Areas in pixels of the 8-connected components of each class, class by class.

    Examples
    --------
    >>> component_areas(np.array([[0, 1, 0], [1, 0, 255]], np.uint8), 2)
    array([3, 2])
    """
    found = _components(truth, np.zeros(truth.shape, bool))
    known = found.classes < num_classes
    return found.areas[known][np.argsort(found.classes[known], kind="stable")]


def area_edges(areas: Counts) -> tuple[int, int, int]:
    """Find the quartiles of all objects' areas, which part them into four bins about equally full.

    Parameters
    ----------
    areas : int64 array (objects,)
        Areas in pixels, of all images of a benchmark's split.

    Returns
    -------
    tuple of int
        The smallest areas that a quarter, a half and three quarters of the objects do not exceed.

    Raises
    ------
    ValueError
        There is no object.

    Examples
    --------
    >>> area_edges(np.array([1, 9, 4, 2, 2, 5, 7, 100]))
    (2, 4, 7)
    """
    if len(areas) == 0:
        raise ValueError("no object has an area: all pixels of the split are ignored; choose a labelled split")
    first, second, third = np.quantile(areas, QUARTILES, method="inverted_cdf")
    return int(first), int(second), int(third)


def objects(truth: Mask, prediction: Mask, edges: tuple[int, ...], num_classes: int) -> Counts:
    """Count how much of the objects of each size and class is right.

    Parameters
    ----------
    truth : uint8 array (H, W)
        Train ids; 255 is ignored.
    prediction : uint8 array (H, W)
        Train ids.
    edges : tuple of int
        Ascending areas in pixels; an object of one of these areas belongs to the bin below.
    num_classes : int
        Classes K.

    Returns
    -------
    int64 array (len(edges) + 1, K, 4)
        Bin, class, and: pixels that are right, all pixels, objects found (at least half of their pixels are right), all
        objects.
    """
    found = _components(truth, truth == prediction)
    bins = np.searchsorted(edges, found.areas, side="left")
    counts = np.zeros((len(edges) + 1, num_classes, 4), np.int64)
    columns = (found.right, found.areas, 2 * found.right >= found.areas, np.ones_like(found.areas))
    for column, values in enumerate(columns):
        np.add.at(counts[..., column], (bins, found.classes), values)
    return counts


@dataclass(frozen=True)
class _Components:
    """Class, area and pixels that are right of each component."""

    classes: NDArray[np.intp]
    areas: Counts
    right: Counts


def _components(truth: Mask, right: NDArray[np.bool_]) -> _Components:
    """Find the components of all classes but the ignored one."""
    starts, ends = _runs(truth)
    classes = truth.ravel()[starts]
    count, component = _joined(starts, ends, classes, truth.shape)
    until = np.concatenate([[0], np.cumsum(right, dtype=np.int64)])
    areas, rights = np.zeros(count, np.int64), np.zeros(count, np.int64)
    np.add.at(areas, component, ends - starts)
    np.add.at(rights, component, until[ends] - until[starts])
    class_of = np.zeros(count, np.intp)
    class_of[component] = classes
    known = class_of != IGNORE_INDEX
    return _Components(class_of[known], areas[known], rights[known])


def _runs(truth: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First places of the runs in the flattened mask, and the places after their last."""
    flat = truth.ravel()
    begins = np.ones(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[:: truth.shape[1]] = True
    starts = np.flatnonzero(begins)
    return starts, np.append(starts[1:], flat.size)


def _joined(
    starts: NDArray[np.intp], ends: NDArray[np.intp], classes: Mask, shape: tuple[int, ...]
) -> tuple[int, NDArray[np.int32]]:
    """Number of components, and the component of each run."""
    height, width = shape
    upper = np.flatnonzero(starts < (height - 1) * width)
    row_below = (starts[upper] // width + 1) * width
    # A run from s to e (exclusive) touches the columns s - 1 to e of the next row, as far as there are such.
    lowest = np.maximum(starts[upper] + width - 1, row_below)
    highest = np.minimum(ends[upper] + width, row_below + width - 1)
    first = np.searchsorted(starts, lowest, side="right") - 1
    touching = np.searchsorted(starts, highest, side="right") - first
    above = np.repeat(upper, touching)
    below = np.arange(len(above)) + np.repeat(first - (touching.cumsum() - touching), touching)
    same = classes[above] == classes[below]
    above, below = above[same], below[same]
    graph = coo_array((np.ones(len(above), bool), (above, below)), shape=(len(starts),) * 2)
    count, component = connected_components(graph, directed=False)
    return int(count), component
