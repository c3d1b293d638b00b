"""Scores from counts: one confusion matrix for a whole split, and everything else follows from it.

Counts are int64 and ratios float64. A class that the truth of the split lacks is absent: it is named and left out of
every mean, so that all rows of a table average over the same classes. Pixels wrongly given to it still count against
the classes they belong to. On the full benchmarks every class occurs, and this is the field's mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gald.datasets import IGNORE_INDEX

Counts = NDArray[np.int64]
Mask = NDArray[np.uint8]


def confusion_matrix(
    truth: Mask, prediction: Mask, num_classes: int, *, where: NDArray[np.bool_] | None = None
) -> Counts:
    """Count pixels by true and predicted class.

    Parameters
    ----------
    truth : uint8 array (H, W)
        Train ids; 255 is ignored.
    prediction : uint8 array (H, W)
        Train ids in [0, num_classes).
    num_classes : int
        Classes K, at most 255.
    where : bool array (H, W), optional
        Pixels to count; all by default.

    Returns
    -------
    int64 array (K, K)
        Rows are the truth, columns the prediction.

    Raises
    ------
    ValueError
        Shapes differ, or an id lies outside its range.

    Examples
    --------
    >>> truth = np.array([[0, 1, 1, 255]], np.uint8)
    >>> confusion_matrix(truth, np.array([[0, 1, 0, 0]], np.uint8), 2)
    array([[1, 0],
           [1, 1]])
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"the mask is {truth.shape}, the prediction {prediction.shape}")
    if where is not None:
        truth, prediction = truth[where], prediction[where]
    if prediction.size and prediction.max() >= num_classes:
        raise ValueError(f"the prediction holds class {prediction.max()}, but there are only {num_classes} classes")
    # Ignored pixels are counted too, in rows of their own: cheaper than picking the others out first. Truth times
    # classes plus prediction stays below 2^16, so that the index is made in narrow, fast integers.
    index = truth.astype(np.uint16)
    index *= num_classes
    index += prediction
    tensor = torch.from_numpy(index.astype(np.int32)).view(-1)
    rows = torch.bincount(tensor, minlength=(IGNORE_INDEX + 1) * num_classes).numpy().reshape(-1, num_classes)
    unknown = np.flatnonzero(rows[num_classes:IGNORE_INDEX].any(axis=1))
    if unknown.size:
        raise ValueError(
            f"the mask holds train id {num_classes + unknown[0]}, but there are only {num_classes} classes"
        )
    return np.asarray(rows[:num_classes].astype(np.int64))


def boundary_band(truth: Mask, width: int) -> NDArray[np.bool_]:
    """Find the pixels close to a boundary between two classes.

    A pixel is in the band if it is not ignored and some pixel of another class, not ignored either, lies within
    `width` pixels of it in both directions (Chebyshev distance). So width 1 takes the one row of pixels on each side of
    a straight boundary, and the edge of an ignored area is no boundary.

    Parameters
    ----------
    truth : uint8 array (H, W)
        Train ids; 255 is ignored.
    width : int
        Half the width of the band in pixels, at least 1.

    Returns
    -------
    bool array (H, W)
        The trimap of Kohli, Ladicky and Torr (IJCV 2009), over all classes at once.

    Examples
    --------
    >>> boundary_band(np.array([[0, 0, 0, 1, 1, 255, 2]], np.uint8), 1).astype(int)
    array([[0, 0, 1, 1, 0, 0, 0]])
    """
    # With 255 as the largest value, ignored pixels never win a minimum; shifted by one to 0, never a maximum.
    smallest = _window(np.minimum, truth, 2 * width + 1, IGNORE_INDEX)
    largest = _window(np.maximum, truth + np.uint8(1), 2 * width + 1, 0)
    return np.asarray((truth != IGNORE_INDEX) & (largest != smallest + np.uint8(1)))


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says.

    Attributes
    ----------
    iou : float64 array (K,)
        Intersection over union of each class in [0, 1], NaN where absent.
    mean_iou, mean_accuracy, pixel_accuracy : float
        In [0, 1]: mean IoU and mean recall of the classes in the truth, and the share of pixels that are right. NaN
        without any pixel.
    absent : tuple of int
        Classes that the truth lacks.
    """

    iou: NDArray[np.float64]
    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float
    absent: tuple[int, ...]


def scores(confusion: Counts) -> Scores:
    """Compute the scores of a confusion matrix.

    Parameters
    ----------
    confusion : int64 array (K, K)
        Rows are the truth, columns the prediction.

    Examples
    --------
    >>> scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).iou
    array([0.75, 0.8 ,  nan])
    """
    right = np.diagonal(confusion).astype(np.float64)
    truth = confusion.sum(axis=1)
    union = truth + confusion.sum(axis=0) - np.diagonal(confusion)
    iou = np.where(truth > 0, _ratio(right, union), np.nan)
    return Scores(
        iou=iou,
        mean_iou=_mean(iou),
        mean_accuracy=_mean(_ratio(right, truth)),
        pixel_accuracy=float(_ratio(right.sum(), confusion.sum())),
        absent=tuple(int(index) for index in np.flatnonzero(truth == 0)),
    )


def _ratio(part: NDArray[np.float64], whole: Counts) -> NDArray[np.float64]:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0))


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _window(reduce: np.ufunc, mask: Mask, length: int, neutral: int) -> Mask:
    """Minimum or maximum over a square window of odd side `length`, by doubling shifts along each axis."""
    result = mask
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (length // 2, length // 2)
        result = np.pad(result, pad, constant_values=neutral)
        covered = 1
        while covered < length:
            shift = min(covered, length - covered)
            near = result[: result.shape[0] - shift] if axis == 0 else result[:, : result.shape[1] - shift]
            far = result[shift:] if axis == 0 else result[:, shift:]
            result = reduce(near, far)
            covered += shift
    return np.asarray(result)
