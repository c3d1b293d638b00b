"""What a paired bootstrap over images takes, beside a loop that sums resampled confusion matrices.

Both resample the same drawn counts. The loop is timed on a few resamples, since all of them take ten minutes; its
figure for all is that many times as long.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gald.bench._measure import machine
from gald.bench._memory import Work, peak_bytes, seconds
from gald.metrics import scores
from gald.tables.bootstrap import RESAMPLES, paired_bootstrap

_IMAGES, _CLASSES, _SHOWN = 2000, 150, 10  # of ADE20K's validation set; classes in an image, on average
_LOOPED = 3  # resamples of the loop that are timed
_ROUNDS = 3
_TARGET_S = 10.0
_HEAD = "| what | threads | seconds | target | met |\n|---|---|---|---|---|\n"


def ours(images: int, classes: int) -> Callable[[], object]:
    """Make ready all resamples, from counts of each class."""
    first, second = (_counts(_confusions(images, classes, seed)) for seed in (1, 2))
    return lambda: paired_bootstrap(first, second, resamples=RESAMPLES)


def loop(images: int, classes: int) -> Callable[[], object]:
    """Make ready a few resamples, each as two sums of the drawn images' confusion matrices."""
    pair = [_confusions(images, classes, seed) for seed in (1, 2)]

    def run() -> object:
        generator = np.random.default_rng(0)
        changes = []
        for _ in range(_LOOPED):
            places = generator.integers(0, images, images)
            first, second = (scores(matrices[places].sum(axis=0, dtype=np.int64)).mean_iou for matrices in pair)
            changes.append(second - first)
        return changes

    return run


def bootstrap() -> str:
    """Measure the time of both and the memory of ours; return the report as Markdown."""
    arguments = (_IMAGES, _CLASSES)
    rows = []
    for threads in (1, 2):
        mine, theirs = (
            statistics.median(one)
            for one in seconds(
                [Work(f"{__name__}:{name}", arguments) for name in ("ours", "loop")], threads=threads, rounds=_ROUNDS
            )
        )
        met = "yes" if mine < _TARGET_S else "NO"
        rows.append(
            f"| {RESAMPLES} resamples by products of multiplicities | {threads} | {mine:.2f} | {_TARGET_S:g} | {met} |"
        )
        whole = theirs / _LOOPED * RESAMPLES
        looped = f"{RESAMPLES} by a loop over confusion matrices, extrapolated from {_LOOPED}"
        rows.append(f"| {looped}; ours {whole / mine:.0f} times as fast | {threads} | {whole:.0f} | | |")
    held = peak_bytes(Work(f"{__name__}:ours", arguments), threads=1)
    heading = f"{machine()}; {_IMAGES} images, {_CLASSES} classes, medians of {_ROUNDS} rounds"
    return (
        f"{heading}\n\n{_HEAD}" + "\n".join(rows) + f"\n\nMost memory held beyond the counts: {held / 2**20:.0f} MiB.\n"
    )


def _confusions(images: int, classes: int, seed: int) -> npt.NDArray[np.int32]:
    """Confusion matrices of drawn images, (images, K, K); the truth is the same for every seed."""
    truth = np.random.default_rng(0)
    pixels = truth.integers(1, 50_000, (images, classes)) * (truth.random((images, classes)) < _SHOWN / classes)
    generator = np.random.default_rng(seed)
    matrices = np.zeros((images, classes, classes), np.int32)
    wrong = (pixels * generator.uniform(0, 0.4, pixels.shape)).astype(np.int32)
    image, row = np.nonzero(pixels)
    matrices[image, row, generator.integers(0, classes, len(image))] += wrong[image, row]
    matrices[image, row, row] += pixels[image, row].astype(np.int32) - wrong[image, row]
    return matrices


def _counts(matrices: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Count pixels right, in the truth and predicted, (images, K, 3)."""
    right = np.diagonal(matrices, axis1=1, axis2=2)
    return np.stack([right, matrices.sum(axis=2), matrices.sum(axis=1)], axis=-1).astype(np.int64)
