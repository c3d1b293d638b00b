"""Paired bootstrap over images: how far a difference between two networks' scores depends on the images at hand.

It is about two weight files and the population that the images stand for. About the methods behind them it says
nothing: for that, `gald.tables.statistics` takes several trainings of each.

The images are drawn with replacement, the same ones for both networks, and the scores of each draw come from sums of
saved counts. The sums of all draws are one matrix product, of how often each image was drawn and what was counted on
it. All of them are integers below 2^53, so that they are exact in float64 whatever the order of addition: the same
seed gives the same bits on any machine.

A class whose truth no drawn image holds is left out of that draw's mean, for both networks alike: as everywhere, an
absent class is never scored zero. Drawn mIoU therefore averages over the classes that were drawn.

References
----------
Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LABEL = "of these two weight files on such images, not of the methods"
UNPROVEN = "The differences below bear no interval: those of rare classes and of few objects are chance above all."
RESAMPLES = 10_000
MIN_IMAGES = 6  # of fewer, all change the same way by chance in more than 5 % of cases, and so would every draw
_CELLS = 1 << 20  # multiplicities held at a time: 8 MiB, and twice that while they are counted

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Resampled:
    """Difference in mIoU of two networks, second minus first, over resampled images; fractions.

    Attributes
    ----------
    first, second : float
        mIoU on the images as they are.
    interval : tuple of float
        Percentile interval of the difference.
    images, resamples : int
    labelled : int
        Images with a labelled pixel: the others say nothing, and are no evidence.
    """

    first: float
    second: float
    interval: tuple[float, float]
    images: int
    resamples: int
    labelled: int

    @property
    def difference(self) -> float:
        """Second minus first on the images as they are."""
        return self.second - self.first

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves zero out, and there are images enough for that to mean anything."""
        return self.labelled >= MIN_IMAGES and (self.interval[0] > 0 or self.interval[1] < 0)

    @property
    def says(self) -> str:
        """The verdict in a clause."""
        if self.labelled < MIN_IMAGES:
            return f"fewer than {MIN_IMAGES} labelled images, no verdict"
        return "the interval leaves zero out" if self.distinguishable else "not distinguishable"


def paired_bootstrap(
    first: Counts, second: Counts, *, resamples: int = RESAMPLES, confidence: float = 0.95, seed: int = 0
) -> Resampled:
    """Interval of the difference in mIoU between two networks scored on the same images.

    Parameters
    ----------
    first, second : int64 array (n, K, 3)
        For each image and class: true positives, pixels of the truth, pixels predicted (ignored ones left out). The
        truths are equal.
    resamples : int
    confidence : float
        Coverage in (0, 1).
    seed : int

    Raises
    ------
    ValueError
        Shapes or truths differ, or there is no labelled pixel.
    """
    if first.shape != second.shape or not np.array_equal(first[..., 1], second[..., 1]):
        raise ValueError("the two networks were not scored on the same images with the same truth")
    if not first[..., 1].any():
        raise ValueError("no image has a labelled pixel: there is nothing to resample")
    columns, classes = _columns(first, second)
    whole = _mean_ious(columns.sum(axis=0)[None], classes)[0]
    drawn = np.concatenate(
        [_mean_ious(times @ columns, classes) for times in _multiplicities(len(first), resamples, seed)]
    )
    changes = drawn[:, 1] - drawn[:, 0]
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(changes, (tail, 1 - tail))  # a draw of images without a labelled pixel has no score
    labelled = int(np.count_nonzero(first[..., 1].any(axis=1)))
    return Resampled(float(whole[0]), float(whole[1]), (float(low), float(high)), len(first), resamples, labelled)


def _columns(first: Counts, second: Counts) -> tuple[Values, int]:
    """Lay the counts of each image out as truth, then intersection and union of each network; (n, 5 k).

    Of the k classes that the truth of any image holds: the others are in no mean.
    """
    present = first[..., 1].any(axis=0)
    truth = first[:, present, 1]
    parts = [truth]
    for right, _, predicted in (np.moveaxis(counts[:, present], -1, 0) for counts in (first, second)):
        parts += [right, truth + predicted - right]
    return np.concatenate(parts, axis=1).astype(np.float64), int(present.sum())


def _mean_ious(sums: Values, classes: int) -> Values:
    """Both networks' mIoU of each draw, (draws, 2); NaN where the draw has no labelled pixel."""
    truth, *parts = (sums[:, start : start + classes] for start in range(0, 5 * classes, classes))
    drawn = truth > 0
    known = np.count_nonzero(drawn, axis=1)
    means = []
    for right, union in zip(parts[::2], parts[1::2], strict=True):
        iou = np.divide(right, union, out=np.zeros_like(right), where=drawn)
        means.append(np.divide(iou.sum(axis=1), known, out=np.full(len(sums), np.nan), where=known > 0))
    return np.stack(means, axis=1)


def _multiplicities(images: int, resamples: int, seed: int) -> Iterator[Values]:
    """How often each image is in each draw, (draws, images), some draws at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS // images)
    for begin in range(0, resamples, at_once):
        draws = min(at_once, resamples - begin)
        places = generator.integers(0, images, (draws, images))
        places += images * np.arange(draws)[:, None]
        yield np.bincount(places.ravel(), minlength=draws * images).reshape(draws, images).astype(np.float64)
