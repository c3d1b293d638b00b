"""Scores of a table of counts: the usual means, and those near boundaries, by the size of objects, near the border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gald.metrics.confusion import mean_of_known, ratio, scores
from gald.metrics.counts import CountTable
from gald.params import WIDTHS


def detail_scores(table: CountTable) -> dict[str, float]:
    """Compute every score of a split, as a fraction in [0, 1]; NaN where nothing of the kind occurs.

    Returns
    -------
    dict
        ``mean_iou``, ``pixel_accuracy``, ``mean_accuracy``, ``frequency_weighted_iou``: see `Scores`.
        ``trimap_mean_iou_{w}``: mean IoU within w pixels of a boundary of the truth, of the classes found there.
        ``boundary_iou_{w}``: the mean over classes in the truth of the intersections of the whole split over its
        unions.
        ``boundary_f_{w}``: the mean over classes of the mean over the images that show the class, see
        `detail_per_class`.
        ``object_accuracy_{q}``, ``object_found_{q}``: of objects in bin q of area, 1 the smallest, the share of their
        pixels that is right, and the share of them of which at least half is right; of each class, then the mean.
        ``border_mean_iou_{z}``: mean IoU in zone z of distance to the image's border, 1 the nearest.

    References
    ----------
    Kohli, Ladicky and Torr (IJCV 2009) and Csurka et al. (BMVC 2013) for trimaps, Cheng et al. (CVPR 2021) for boundary
    IoU; of the other families see `gald.metrics.boundary`.
    """
    rings, objects = table.total("rings"), table.total("objects")
    whole = scores(rings.sum(axis=0))
    found = {
        "mean_iou": whole.mean_iou,
        "pixel_accuracy": whole.pixel_accuracy,
        "mean_accuracy": whole.mean_accuracy,
        "frequency_weighted_iou": whole.frequency_weighted_iou,
    }
    per_class = [detail_per_class(table, width=width) for width in WIDTHS]
    within = rings.cumsum(axis=0)
    found |= {f"trimap_mean_iou_{width}": scores(within[i]).mean_iou for i, width in enumerate(WIDTHS)}
    found |= {name: mean_of_known(values) for of_width in per_class for name, values in of_width.items()}
    pairs = (("accuracy", 0), ("found", 2))
    found |= {
        f"object_{name}_{q}": mean_of_known(ratio(counts[:, column], counts[:, column + 1]))
        for name, column in pairs
        for q, counts in enumerate(objects, 1)
    }
    return found | {f"border_mean_iou_{z}": scores(zone).mean_iou for z, zone in enumerate(table.total("border"), 1)}


def detail_per_class(table: CountTable, *, width: int) -> dict[str, NDArray[np.float64]]:
    """Compute boundary IoU and boundary F of each class at one width.

    Boundary IoU is of the whole split: intersections over unions of all images. Boundary F is of an image: the harmonic
    mean of the shares of predicted and of true boundary pixels that are matched, averaged over the images whose truth
    shows the class. There it is 1 if neither has a boundary and 0 if only one has, as in Perazzi et al. (CVPR 2016).

    Parameters
    ----------
    table : CountTable
        Counts of each image.
    width : int
        One of `WIDTHS`, in pixels.

    Returns
    -------
    dict
        ``boundary_iou_{width}`` and ``boundary_f_{width}``, float64 (K,) in [0, 1], NaN where absent.
    """
    index = WIDTHS.index(width)
    present = table.per_class()[..., 1] > 0  # images, classes
    counts = table.total("boundary_iou")[index]
    iou = np.where(present.any(axis=0), ratio(counts[:, 0], counts[:, 1]), np.nan)
    return {f"boundary_iou_{width}": iou, f"boundary_f_{width}": _boundary_f(table, index, present)}


def _boundary_f(table: CountTable, index: int, present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Boundary F of each class at one width."""
    cells = 4 * table.layout.num_classes
    counts = table.family("boundary_f")[:, index * cells : (index + 1) * cells].toarray().reshape(*present.shape, 4)
    predicted_matched, predicted, true_matched, true = np.moveaxis(counts, -1, 0)
    # 2 / (1 / P + 1 / R) without a division by zero; where one of the boundaries is empty, nothing is matched.
    product = 2 * predicted_matched.astype(np.float64) * true_matched
    f = np.nan_to_num(ratio(product, predicted_matched * true + true_matched * predicted))
    f[(predicted == 0) & (true == 0)] = 1.0
    return ratio((f * present).sum(axis=0), present.sum(axis=0))
