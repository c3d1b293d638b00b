"""Match labelled points with the nearest of the same label, for many labels at once.

A window that holds some labels tells its smallest and its largest, quickly: a label equal to one of them is there, one
beyond them is not. What lies between is asked again with the labels in another order. The few points that remain open
are looked at one by one; if they are many, as in noise, each label is spread by itself. The answers are exact each way.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from gald.metrics._tally import Mask

NOTHING = 255
_ORDERS = 7  # each leaves about half of the points open
_FEW = 20_000
_CHUNK = 1024


def match(points: Mask, others: Mask, widths: tuple[int, ...], num_labels: int) -> Mask:
    """Say for each point between which widths the nearest of the others with its label lies.

    Parameters
    ----------
    points, others : uint8 array (H, W)
        Labels in [0, num_labels); 255 where there is no point.
    widths : tuple of int
        Ascending Chebyshev distances in pixels.
    num_labels : int
        At most 255.

    Returns
    -------
    uint8 array (H, W)
        Index of the smallest width that reaches, len(widths) if none does. Where there is no point it says nothing.

    Examples
    --------
    >>> match(np.array([[0, 255, 1]], np.uint8), np.array([[1, 255, 0]], np.uint8), (1, 2), 2)[0, [0, 2]]
    array([1, 1], dtype=uint8)
    """
    reached, open_until = _bounds(points, others, widths)
    places = np.flatnonzero((reached != open_until) & (points != NOTHING))
    found = open_until.ravel()
    for seed in range(_ORDERS):
        if len(places) == 0:
            break
        order = np.arange(256, dtype=np.uint8)
        order[:num_labels] = np.random.default_rng(seed).permutation(num_labels)
        lower, upper = _bounds(
            order[points.ravel()[places]], np.asarray(cv2.LUT(others, order), np.uint8), widths, places
        )
        reached.ravel()[places] = lower = np.maximum(lower, reached.ravel()[places])
        found[places] = upper = np.minimum(upper, found[places])
        places = places[lower != upper]
    search = _windows_of if len(places) <= _FEW else _label_by_label
    found[places] = search(points.ravel()[places], places, others, widths)
    return found.reshape(points.shape)


def squares(widths: tuple[int, ...]) -> list[Mask]:
    """Square windows which, applied one after another, reach as far as each width."""
    return [np.ones((2 * (wide - narrow) + 1,) * 2, np.uint8) for narrow, wide in pairwise((0, *widths))]


def smallest(mask: Mask, square: Mask) -> Mask:
    """Smallest value within a square window; beyond the edge there is nothing."""
    return np.asarray(cv2.erode(mask, square), np.uint8)


def largest(mask: Mask, square: Mask) -> Mask:
    """Largest value within a square window; beyond the edge there is nothing."""
    return np.asarray(cv2.dilate(mask, square), np.uint8)


def _bounds(
    labels: Mask, others: Mask, widths: tuple[int, ...], places: NDArray[np.intp] | None = None
) -> tuple[Mask, Mask]:
    """Bounds on what `match` finds, of all labels (H, W) or those at places of the flattened map."""
    above = labels + np.uint8(1)
    lower, upper = np.zeros(labels.shape, np.uint8), np.zeros(labels.shape, np.uint8)
    hit = np.zeros(labels.shape, bool)
    low, high = others, others + np.uint8(1)  # 255 never wins a minimum, nor does its 0 a maximum
    for square in squares(widths):
        low, high = smallest(low, square), largest(high, square)
        near_low, near_high = (low, high) if places is None else (low.ravel()[places], high.ravel()[places])
        hit |= (near_low == labels) | (near_high == above)
        upper += ~hit
        lower += (labels < near_low) | (above > near_high)
    return lower, upper


def _windows_of(labels: Mask, places: NDArray[np.intp], others: Mask, widths: tuple[int, ...]) -> Mask:
    """Look at the whole window of each point."""
    reach = widths[-1]
    offset = np.abs(np.arange(-reach, reach + 1))
    rings = np.searchsorted(widths, np.maximum(offset[:, None], offset)).astype(np.uint8)
    windows = sliding_window_view(np.pad(others, reach, constant_values=NOTHING), rings.shape)
    found = np.empty(len(places), np.uint8)
    for start in range(0, len(places), _CHUNK):
        part = slice(start, start + _CHUNK)
        near = windows[np.divmod(places[part], others.shape[1])] == labels[part, None, None]
        found[part] = np.where(near, rings, np.uint8(len(widths))).min(axis=(1, 2))
    return found


def _label_by_label(labels: Mask, places: NDArray[np.intp], others: Mask, widths: tuple[int, ...]) -> Mask:
    """Spread the others of each label in turn."""
    found = np.zeros(len(places), np.uint8)
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        near = (others == label).astype(np.uint8)
        for square in squares(widths):
            near = largest(near, square)
            found[of_label] += near.ravel()[places[of_label]] == 0
    return found
