"""Where two runs differ: by class, by size of objects, by distance to boundaries and to the image's border."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gald.commands._compare_counts import Side
from gald.metrics import BORDER, WIDTHS, scores
from gald.metrics.detail import detail_per_class
from gald.params import SCORES

_WIDTH = 3  # pixels, of the boundary scores of each class


@dataclass(frozen=True)
class Row:
    """One score of both runs, as fractions; None where absent."""

    name: str
    first: float | None
    second: float | None

    @property
    def change(self) -> float | None:
        """Second minus first; None where either is absent."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True)
class Section:
    """Rows that belong together.

    Attributes
    ----------
    title, text : str
        What is listed, and what its numbers are.
    rows : tuple of Row
    ranked : bool
        Whether the rows run from the largest gain to the largest loss.
    """

    title: str
    text: str
    rows: tuple[Row, ...]
    ranked: bool = False


def sections(first: Side, second: Side) -> list[Section]:
    """Lay out what the counts of both runs say."""
    return [
        Section(
            "Distance to a boundary",
            "mIoU of the pixels in disjoint rings of distance to a boundary between classes in the truth.",
            tuple(_confusions(first, second, "rings", _rings())),
        ),
        Section(
            "Size of objects",
            "Connected components of a class in the truth, by area in pixels, and their number; mean over classes, so "
            "that a class with few of them weighs as much as one with many.",
            tuple(_objects(first, second)),
        ),
        Section(
            "Distance to the image's border",
            "mIoU of the pixels in disjoint zones of distance to the image's border, in shares of its short side.",
            tuple(_confusions(first, second, "border", _zones())),
        ),
        *_class_sections(first, second),
        Section("All scores", "As in the metrics files.", tuple(_scores(first, second))),
    ]


def _number(value: float | np.floating[np.typing.NBitBase] | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _scores(first: Side, second: Side) -> Iterator[Row]:
    for name in SCORES:
        values = [side.measured.metrics["scores"][name] for side in (first, second)]
        yield Row(_title(name), *map(_number, values))


def _confusions(first: Side, second: Side, family: str, names: list[str]) -> Iterator[Row]:
    """MIoU of each part of a family of confusion matrices."""
    totals = [side.table.total(family) for side in (first, second)]
    for name, *parts in zip(names, *totals, strict=True):
        yield Row(name, *(_number(scores(part).mean_iou) for part in parts))


def _rings() -> list[str]:
    starts = [1, *(width + 1 for width in WIDTHS[:-1])]
    spans = [f"{low} px" if low == high else f"{low} to {high} px" for low, high in zip(starts, WIDTHS, strict=True)]
    return [*spans, f"farther than {WIDTHS[-1]} px"]


def _zones() -> list[str]:
    starts = [0.0, *BORDER[:-1]]
    spans = [f"{100 * low:g} to {100 * high:g} %" for low, high in zip(starts, BORDER, strict=True)]
    return [*spans, f"farther than {100 * BORDER[-1]:g} %"]


def _objects(first: Side, second: Side) -> Iterator[Row]:
    edges = first.table.layout.area_edges
    spans = [f"up to {edges[0]} px", *(_areas(low + 1, high) for low, high in pairwise(edges))]
    spans.append(f"above {edges[-1]} px")
    counts = first.table.total("objects")[..., 3].sum(axis=1)
    for key in ("object_accuracy", "object_found"):
        for place, (span, count) in enumerate(zip(spans, counts, strict=True), 1):
            name = f"{key}_{place}"
            values = [side.measured.metrics["scores"][name] for side in (first, second)]
            yield Row(f"{_title(name)} ({span}; {count} object{'' if count == 1 else 's'})", *map(_number, values))


def _areas(low: int, high: int) -> str:
    """Spell a bin of areas; where many objects have one area, two quartiles are equal and there is none between."""
    if low > high:
        return "no area"
    return f"{low} px" if low == high else f"{low} to {high} px"


def _title(score: str) -> str:
    return SCORES[score].removesuffix(" (%)")


def _class_sections(first: Side, second: Side) -> Iterator[Section]:
    whole = [scores(side.table.total("rings").sum(axis=0)) for side in (first, second)]
    near = [detail_per_class(side.table, width=_WIDTH) for side in (first, second)]
    for title, text, columns in (
        ("Classes", "IoU of each class that the truth has.", [one.iou for one in whole]),
        (
            f"Classes, boundary F-score at {_WIDTH} px",
            "Of the boundary of each class, mean over the images that show it.",
            [one[f"boundary_f_{_WIDTH}"] for one in near],
        ),
    ):
        rows = [Row(name, *map(_number, pair)) for name, *pair in zip(first.classes, *columns, strict=True)]
        known = [row for row in rows if row.first is not None or row.second is not None]
        yield Section(title, text, tuple(sorted(known, key=_rank)), ranked=True)


def _rank(row: Row) -> float:
    return 0.0 if row.change is None else -row.change
