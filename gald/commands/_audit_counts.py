"""What the page says in numbers: samples, classes, ignored pixels and sizes, laid out for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from statistics import median
from typing import Any

from gald.commands._audit_benchmark import Benchmark

NOT_APPLICABLE = "not applicable"
_MOST_SIZES = 8


def percent(part: int, whole: int) -> str:
    """Spell a share so that rare things keep their digits.

    Examples
    --------
    >>> [percent(part, 1_000_000) for part in (0, 4, 123, 45_678, 456_789, 1_000_000)]
    ['0', '< 0.001', '0.0123', '4.57', '45.7', '100']
    >>> percent(0, 0)
    '–'
    """
    if not whole:
        return "–"  # noqa: RUF001 - the dash of an empty cell
    if not part:
        return "0"
    share = 100 * part / whole
    if share < 0.001:
        return "< 0.001"
    if part == whole:
        return "100"
    return f"{share:.{1 if share >= 10 else 2 if share >= 0.1 else 4}f}"


def number(value: float) -> str:
    """Spell a count with separated thousands; half-integers, as medians can be, keep their half.

    Examples
    --------
    >>> number(20210), number(360.0), number(360.5)
    ('20,210', '360', '360.5')
    """
    return f"{value:,.1f}".removesuffix(".0")


def colour(rgb: Iterable[int]) -> str:
    """Spell a colour for a style sheet."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def split_rows(benchmark: Benchmark) -> list[dict[str, Any]]:
    """Samples of each split against the published number, pixels and the ignored share of them."""
    rows = []
    for split in benchmark.splits:
        entry, pixels = benchmark.manifest["splits"][split], benchmark.pixels(split)
        count, published = len(benchmark.rows[split]), entry["published"]
        rows.append(
            {
                "name": split,
                "count": number(count),
                "published": NOT_APPLICABLE if published is None else number(published),
                "difference": NOT_APPLICABLE if published is None else signed(count - published),
                "differs": published is not None and count != published,
                "skipped": number(len(benchmark.manifest["skipped"].get(split, ()))),
                "labelled": entry["labelled"],
                "pixels": number(pixels),
                "ignored": percent(benchmark.manifest["ignored_pixels"][split], pixels) if entry["labelled"] else "–",  # noqa: RUF001
            }
        )
    return rows


def signed(value: int) -> str:
    """Spell a difference: a plain zero, or a number with its sign.

    Examples
    --------
    >>> signed(0), signed(2), signed(-1200)
    ('0', '+2', '−1,200')
    """
    return "0" if not value else f"{'+' if value > 0 else '−'}{number(abs(value))}"  # noqa: RUF001 - a minus sign


def class_rows(benchmark: Benchmark) -> list[dict[str, Any]]:
    """Share of each class among the labelled pixels of each split, the most frequent first; without absent classes."""
    counts = benchmark.manifest["pixel_counts"]
    wholes = {split: benchmark.labelled_pixels(split) for split in benchmark.labelled}
    shares = [
        [counts[split][train_id] / whole if whole else 0.0 for split, whole in wholes.items()]
        for train_id in range(len(benchmark.manifest["classes"]))
    ]
    widest = max((share for row in shares for share in row), default=0.0) or 1.0
    order = sorted(range(len(shares)), key=lambda train_id: (-sum(shares[train_id]), train_id))
    return [
        {
            "id": train_id,
            "name": benchmark.manifest["classes"][train_id],
            "colour": colour(benchmark.manifest["palette"][train_id]),
            "cells": [
                {
                    "text": percent(counts[split][train_id], whole) if counts[split][train_id] else "absent",
                    "width": f"{100 * share / widest:.2f}",
                }
                for (split, whole), share in zip(wholes.items(), shares[train_id], strict=True)
            ],
        }
        for train_id in order
        if any(shares[train_id])
    ]


def absent_classes(benchmark: Benchmark) -> dict[tuple[str, ...], list[str]]:
    """Classes that some labelled split never holds: the splits, and what is absent from these and no others."""
    found: dict[tuple[str, ...], list[str]] = {}
    for train_id, name in enumerate(benchmark.manifest["classes"]):
        without = tuple(
            split for split in benchmark.labelled if not benchmark.manifest["pixel_counts"][split][train_id]
        )
        if without:
            found.setdefault(without, []).append(name)
    order = benchmark.labelled.index
    return dict(sorted(found.items(), key=lambda item: (-len(item[0]), [order(split) for split in item[0]])))


def ignored_rows(benchmark: Benchmark) -> list[dict[str, Any]]:
    """Share of each ignored name among all pixels of each labelled split."""
    by_name = benchmark.manifest["ignored_by_name"]
    names = dict.fromkeys(name for split in benchmark.labelled for name in by_name.get(split, {}))
    return [
        {
            "name": name,
            "cells": [
                percent(by_name.get(split, {}).get(name, 0), benchmark.pixels(split)) for split in benchmark.labelled
            ],
        }
        for name in names
    ]


def size_rows(benchmark: Benchmark) -> list[dict[str, Any]]:
    """Distinct sizes of each split, and the least, median and greatest width and height."""
    found = []
    for split, rows in benchmark.rows.items():
        sizes = [(int(row["width"]), int(row["height"])) for row in rows]
        row: dict[str, Any] = {"name": split, "distinct": number(len(set(sizes)))}
        for axis, side in enumerate(("width", "height")):
            values = [size[axis] for size in sizes]
            row[side] = [number(of(values)) for of in (min, median, max)] if values else ["–"] * 3  # noqa: RUF001
        found.append(row)
    return found


def frequent_sizes(benchmark: Benchmark) -> list[dict[str, str]]:
    """Name the most frequent sizes over all splits; what is left is the last entry."""
    sizes = Counter((int(row["width"]), int(row["height"])) for rows in benchmark.rows.values() for row in rows)
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    shown = [(f"{width} × {height}", count) for (width, height), count in ordered[:_MOST_SIZES]]  # noqa: RUF001
    rest = ordered[_MOST_SIZES:]
    if rest:
        shown.append((f"{number(len(rest))} other size{'s' * (len(rest) > 1)}", sum(count for _, count in rest)))
    most, total = max((count for _, count in shown), default=1), sizes.total()
    return [
        {"name": name, "count": number(count), "share": percent(count, total), "width": f"{100 * count / most:.2f}"}
        for name, count in shown
    ]
