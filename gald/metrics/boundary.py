"""Quality near boundaries: distances for trimaps, boundary IoU and boundary F, of all classes at once.

One distance serves all three, so that a width means the same everywhere: the Chebyshev distance in pixels (the larger
of the distances along the two axes) to the nearest pixel of another class. Ignored pixels are of no class: they have no
distance, and where a class meets them, or the image ends, there is no boundary, for nobody drew one there. The
prediction is ignored wherever the truth is.
"""

from __future__ import annotations

import numpy as np

from gald.datasets import IGNORE_INDEX
from gald.metrics._matching import largest, match, smallest, squares
from gald.metrics._tally import Counts, Mask, tally
from gald.params import WIDTHS


def boundary_rings(mask: Mask, widths: tuple[int, ...] = WIDTHS) -> Mask:
    """Say for each pixel between which widths its distance to another class lies.

    The pixels within a width are the trimap of Kohli, Ladicky and Torr (IJCV 2009), over all classes at once: those
    that have a pixel of another class, not ignored either, within that many pixels in both directions. So width 1 takes
    the one row of pixels on each side of a straight boundary.

    Parameters
    ----------
    mask : uint8 array (H, W)
        Train ids; 255 is ignored.
    widths : tuple of int
        Ascending, in pixels, at least 1.

    Returns
    -------
    uint8 array (H, W)
        Ring i: the distance is at most widths[i], and more than the width before; len(widths): farther than all. Of
        ignored pixels it says nothing.

    Examples
    --------
    >>> boundary_rings(np.array([[0, 0, 0, 0, 0, 0, 1]], np.uint8))
    array([[3, 2, 2, 1, 1, 0, 0]], dtype=uint8)
    """
    # The largest class in a window differs from the smallest where there are two. With 255 as the largest value,
    # ignored pixels never win a minimum; shifted by one to 0, never a maximum. Windows grow by small steps.
    low, high = mask, mask + np.uint8(1)
    rings = np.zeros(mask.shape, np.uint8)
    for square in squares(widths):
        low, high = smallest(low, square), largest(high, square)
        rings += high == low + np.uint8(1)
    return rings


def boundary_iou(truth: Mask, prediction: Mask, true_rings: Mask, predicted_rings: Mask, num_classes: int) -> Counts:
    """Count what boundary IoU is made of.

    Of each class and width: the pixels of its mask within that width of its contour, in the truth and in the
    prediction; their intersection and union.

    Parameters
    ----------
    truth, prediction : uint8 array (H, W)
        Train ids; 255 is ignored, in the prediction wherever it is in the truth.
    true_rings, predicted_rings : uint8 array (H, W)
        Their `boundary_rings`.
    num_classes : int
        Classes K.

    Returns
    -------
    int64 array (5, K, 2)
        Width, class, and intersection or union in pixels.

    References
    ----------
    Cheng, Girshick, Dollar, Berg and Kirillov (CVPR 2021), equation 2. The distance is the one that their published
    code uses. There the end of the image is part of a contour; here it is not, and neither is the end of an ignored
    area, because truth and prediction always agree there: a class that touches them would gain from every such pixel.
    Their width is 2 % of the image's diagonal, ours are pixels.
    """
    shape = (len(WIDTHS), num_classes)
    same = np.where(truth == prediction, truth, np.uint8(IGNORE_INDEX))
    both = tally((np.maximum(true_rings, predicted_rings), same), shape).cumsum(axis=0)
    either = (tally((true_rings, truth), shape) + tally((predicted_rings, prediction), shape)).cumsum(axis=0) - both
    return np.stack([both, either], axis=-1)


def boundary_f(truth: Mask, prediction: Mask, true_rings: Mask, predicted_rings: Mask, num_classes: int) -> Counts:
    """Count what the boundary F-score is made of.

    The boundary pixels of a class are those of its mask that touch another class by a side or a corner. One of the
    prediction is matched if a boundary pixel of the same class in the truth lies within the width, and the reverse.

    Parameters
    ----------
    truth, prediction, true_rings, predicted_rings, num_classes
        As of `boundary_iou`.

    Returns
    -------
    int64 array (5, K, 4)
        Width, class, and: predicted boundary pixels that are matched, all of them, true ones that are matched, all.

    References
    ----------
    Csurka, Larlus and Perronnin (BMVC 2013), section 3: per class and image. Perazzi et al. (CVPR 2016), section 4:
    matching by dilation. Takikawa et al. (ICCV 2019): widths in pixels. They dilate by a disk, and their boundary is
    one pixel wide, on either side of the contour; here the distance is Chebyshev's, as of the other two statistics, so
    that a width takes in slightly more, and the boundary lies inside the mask, where its class is.
    """
    shape = (len(WIDTHS), num_classes)
    predicted = np.where(predicted_rings == 0, prediction, np.uint8(IGNORE_INDEX))
    true = np.where(true_rings == 0, truth, np.uint8(IGNORE_INDEX))
    counts = []
    for points, others in ((predicted, true), (true, predicted)):
        by_ring = tally((match(points, others, WIDTHS, num_classes), points), (shape[0] + 1, num_classes))
        within = by_ring.cumsum(axis=0)
        counts += [within[:-1], np.broadcast_to(within[-1], shape)]
    return np.stack(counts, axis=-1)
