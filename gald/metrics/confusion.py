"""Scores from one confusion matrix for a whole split, from which everything else follows.

Counts are int64 and ratios float64. A class that the truth of the split lacks is absent: it is named and left out of
every mean, so that all rows of a table average over the same classes. Pixels wrongly given to it still count against
the classes they belong to. On the full benchmarks every class occurs, and this is the field's mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gald.datasets import IGNORE_INDEX
from gald.metrics._tally import Counts, Mask, tally


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
    check_ids(truth, prediction, num_classes, where)
    if where is not None:
        truth = np.where(where, truth, np.uint8(IGNORE_INDEX))
    return tally((truth, prediction), (num_classes, num_classes))


def check_ids(truth: Mask, prediction: Mask, num_classes: int, where: NDArray[np.bool_] | None = None) -> None:
    """Hold a mask and a prediction against each other and against the number of classes.

    Raises
    ------
    ValueError
        Shapes differ, or an id (within `where`, if that is given) lies outside its range.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"the mask is {truth.shape}, the prediction {prediction.shape}")
    if where is not None:
        truth, prediction = truth[where], prediction[where]
    if truth.size == 0:
        return
    if prediction.max() >= num_classes:
        raise ValueError(f"the prediction holds class {prediction.max()}, but there are only {num_classes} classes")
    # 255 wraps to 0, so that ignored pixels are never the largest.
    if (truth + np.uint8(1)).max() > num_classes:
        unknown = truth[(truth >= num_classes) & (truth != IGNORE_INDEX)].min()
        raise ValueError(f"the mask holds train id {unknown}, but there are only {num_classes} classes")


def confusion_on_device(truth: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Count pixels by true and predicted class where the tensors lie, so that no prediction needs to travel.

    Parameters
    ----------
    truth : integer tensor of any shape
        Train ids; 255 is ignored.
    prediction : integer tensor of the same shape and device
        Train ids in [0, num_classes).
    num_classes : int
        Classes K, at most 255.

    Returns
    -------
    int64 tensor (K, K) on the same device
        Rows are the truth, columns the prediction; the same counts as `confusion_matrix` finds.

    Raises
    ------
    ValueError
        Shapes differ, or an id lies outside its range.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"the mask is {tuple(truth.shape)}, the prediction {tuple(prediction.shape)}")
    if truth.numel() == 0:
        return torch.zeros(num_classes, num_classes, dtype=torch.int64, device=truth.device)
    # Ignored pixels are counted too, in a row of their own: cheaper than picking the others out first.
    rows = truth.to(torch.int32)
    rows = rows.where(rows != IGNORE_INDEX, num_classes)
    columns = prediction.to(torch.int32)
    bounds = torch.stack([rows.min(), columns.min(), rows.max() - 1, columns.max()]).tolist()
    if min(bounds[:2]) < 0 or max(bounds[2:]) >= num_classes:
        raise ValueError(
            f"the mask holds train ids from {bounds[0]} to {bounds[2] + 1} and the prediction classes from {bounds[1]} "
            f"to {bounds[3]}, but there are only {num_classes} classes (and {IGNORE_INDEX} in the mask)"
        )
    cells = (rows * num_classes + columns).reshape(-1)
    counts = torch.bincount(cells, minlength=(num_classes + 1) * num_classes)
    return counts.reshape(num_classes + 1, num_classes)[:num_classes]


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says.

    Attributes
    ----------
    iou, accuracy : float64 array (K,)
        Intersection over union and recall of each class in [0, 1], NaN where absent.
    mean_iou, mean_accuracy, pixel_accuracy : float
        In [0, 1]: mean IoU and mean recall of the classes in the truth, and the share of pixels that are right. NaN
        without any pixel.
    frequency_weighted_iou : float
        IoU of each class weighted by its share of the pixels of the truth, in [0, 1].
    absent : tuple of int
        Classes that the truth lacks.

    References
    ----------
    Long, Shelhamer and Darrell (CVPR 2015), section 5: the four means.
    """

    iou: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float
    frequency_weighted_iou: float
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
    right = np.diagonal(confusion)
    truth = confusion.sum(axis=1)
    iou = np.where(truth > 0, ratio(right, truth + confusion.sum(axis=0) - right), np.nan)
    accuracy = ratio(right, truth)
    return Scores(
        iou=iou,
        accuracy=accuracy,
        mean_iou=mean_of_known(iou),
        mean_accuracy=mean_of_known(accuracy),
        pixel_accuracy=float(ratio(right.sum(), confusion.sum())),
        frequency_weighted_iou=float(ratio((truth * np.where(truth > 0, iou, 0)).sum(), truth.sum())),
        absent=tuple(int(index) for index in np.flatnonzero(truth == 0)),
    )


def ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> NDArray[np.float64]:
    """Divide elementwise; NaN where the whole is zero."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0))


def mean_of_known(values: NDArray[np.float64]) -> float:
    """Mean of what is not NaN; NaN if nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
