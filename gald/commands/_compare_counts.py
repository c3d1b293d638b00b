"""What is compared: two runs' metrics and counts of images, refused unless they are about the same thing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gald import paths
from gald.errors import DatasetError, ParamsError, StaleMetrics
from gald.files import sha256
from gald.metrics import Counts, CountTable
from gald.params import Run
from gald.tables.bootstrap import UNPROVEN
from gald.tables.content import Measured, Protocol
from gald.tables.measured import measure, refuse_mixed_data


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes
    ----------
    run : Run
    measured : Measured
        Its metrics and run.json.
    table : CountTable
        Counts of each image.
    """

    run: Run
    measured: Measured
    table: CountTable

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in train id order."""
        return list(self.measured.classes)

    @cached_property
    def per_class(self) -> Counts:
        """Pixels right, in the truth and predicted, (images, K, 3)."""
        return self.table.per_class()

    @property
    def image_scores(self) -> npt.NDArray[np.float64]:
        """Each image's own mIoU, over the classes in its truth; NaN without a labelled pixel."""
        right, truth, predicted = np.moveaxis(self.per_class, -1, 0)
        iou = np.divide(right, truth + predicted - right, out=np.zeros(right.shape), where=truth > 0)
        known = np.count_nonzero(truth, axis=1)
        means = np.divide(iou.sum(axis=1), known, out=np.full(len(known), np.nan), where=known > 0)
        return np.asarray(means)


def read(first: Run, second: Run) -> tuple[Side, Side]:
    """Read both runs' results.

    Raises
    ------
    ParamsError
        They are one run, or of different benchmarks, splits or protocols; the message names both.
    StaleMetrics
        Something is missing, damaged, of other weights, or they were scored on different prepared data.
    DatasetError
        Nothing is labelled.
    """
    if first.name == second.name:
        raise ParamsError(f"{first.name} is named twice; give two runs of one benchmark")
    _refuse_unlike(first, second, "benchmark", *(f"{run.params.edition}/{run.dataset}" for run in (first, second)))
    one, other = (measure(run, run.params.edition) for run in (first, second))
    theirs = [Protocol.of(side.metrics) for side in (one, other)]
    _refuse_unlike(first, second, "split", *(protocol.split for protocol in theirs))
    if not theirs[0].same(theirs[1]):
        _refuse_unlike(first, second, "protocol", *(f"{protocol.name} ({protocol.text})" for protocol in theirs))
    refuse_mixed_data((one, other))
    sides = tuple(Side(run, measured, _counts(measured)) for run, measured in ((first, one), (second, other)))
    if sides[0].table.ids != sides[1].table.ids or sides[0].table.layout != sides[1].table.layout:
        raise StaleMetrics(
            f"{paths.counts(first.name)} and {paths.counts(second.name)} are not of the same images, classes and sizes "
            f"of objects: run `gald evaluate` for both"
        )
    if not sides[0].per_class[..., 1].any():
        raise DatasetError(f"no image of split {theirs[0].split!r} has a labelled pixel: there is nothing to compare")
    return sides[0], sides[1]


def _refuse_unlike(first: Run, second: Run, what: str, ours: str, theirs: str) -> None:
    if ours != theirs:
        raise ParamsError(
            f"{first.name} and {second.name} cannot be compared: the {what} of the one is {ours}, of the other "
            f"{theirs}; give two runs with the same {what}"
        )


def _counts(run: Measured) -> CountTable:
    """Read the counts that belong to a run's metrics."""
    again = f"run `gald evaluate {run.name}`"
    if not run.params_match:
        raise StaleMetrics(f"{run.name} was trained or scored with other params than the suite asks for now: {again}")
    listing, file = paths.predictions_json(run.name), paths.counts(run.name)
    if not listing.exists() or not file.exists():
        raise StaleMetrics(f"{file} or the list beside it is missing: {again}")
    try:
        kept = json.loads(listing.read_text(encoding="utf-8"))
        promised = (kept["run_sha256"], kept["counts"]["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise StaleMetrics(f"{listing} is damaged ({error}): {again}") from error
    found = sha256(file)
    if promised != (run.metrics["run_sha256"], found) or run.metrics.get("counts_sha256", found) != found:
        raise StaleMetrics(f"{file} is not what belongs to {paths.metrics(run.name)}: {again}")
    return CountTable.read(file)


def remarks(first: Side, second: Side) -> Iterator[str]:
    """Say what a reader must know of all differences."""
    yield UNPROVEN
    codes = [side.measured.metrics["evaluation_code_digest"][:12] for side in (first, second)]
    if codes[0] != codes[1]:
        yield (
            f"MIXED CODE: the runs were evaluated by different versions of the package, {codes[0]} and {codes[1]}, "
            "which may count differently; `gald evaluate` for both makes it one."
        )


def changes(first: Side, second: Side) -> Iterator[tuple[int, float]]:
    """Images with their change in mIoU, second minus first, from the largest gain to the largest loss."""
    change = second.image_scores - first.image_scores
    for index in np.argsort(-change, kind="stable"):
        if not np.isnan(change[index]):
            yield int(index), float(change[index])
