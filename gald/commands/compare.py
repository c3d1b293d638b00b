"""`gald compare`: what one run's predictions have over another's, on the same images.

It is about two weight files. Whether a method is better than another is asked over seeds, which the tables do.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from gald.commands import _compare_pictures as pictures
from gald.commands._compare_counts import Side, changes, read, remarks
from gald.commands._compare_page import render
from gald.commands._compare_rows import Row, Section, sections
from gald.commands._targets import check_folder
from gald.errors import DatasetError, ModelError, StaleMetrics
from gald.files import write_text
from gald.params import Run
from gald.tables.bootstrap import LABEL, Resampled, paired_bootstrap
from gald.tables.render import aligned
from gald.tables.statistics import points

PAGE, NUMBERS = "compare.html", "compare.csv"
_EACH_WAY = 8  # classes that the terminal shows of a long list


def compare(first: Run, second: Run, out: Path) -> str:
    """Compare two runs image by image, and write a page and a file of numbers.

    All differences are second minus first. Every number comes from the counts that the evaluations kept; only the
    images that are shown are predicted again.

    Parameters
    ----------
    first, second : Run
        Trained and evaluated runs of one benchmark, split and protocol.
    out : Path
        Folder that gets ``compare.html`` and ``compare.csv``.

    Returns
    -------
    str
        The comparison as Markdown.

    Raises
    ------
    ParamsError
        They are one run, or of different benchmarks, splits or protocols; or a file is where the folder would be.
    StaleMetrics
        Metrics or counts are missing, damaged, of other weights, or of different prepared data.
    DatasetError
        The split has no labels.
    """
    check_folder("-o", out)
    one, other = read(first, second)
    resampled = paired_bootstrap(one.per_class, other.per_class)
    shown = sections(one, other)
    ranked = list(changes(one, other))
    try:
        gallery = pictures.draw(one, other)
    except (DatasetError, ModelError, StaleMetrics) as error:
        gallery = pictures.Gallery(notes=(f"There are no pictures: {error}.",), drawn=False)
    write_text(out / NUMBERS, _csv(shown, resampled))
    write_text(out / PAGE, render(one, other, shown, resampled, gallery))
    lines = [*_heading(one, other, resampled), *_tables(shown), *_images(one, ranked), *gallery.notes]
    return "\n".join([*lines, "", f"{out / PAGE}: the same with pictures", f"{out / NUMBERS}: all numbers"]) + "\n"


def outcome(resampled: Resampled) -> str:
    """Say what the bootstrap says, with its label."""
    low, high = (points(end, signed=True, decimals=2) for end in resampled.interval)
    return (
        f"mIoU {points(resampled.difference, signed=True, decimals=2)} points, 95 % bootstrap interval {low} to {high} "
        f"({resampled.resamples} resamples of {resampled.images} images): {resampled.says}; {LABEL}."
    )


def _heading(first: Side, second: Side, resampled: Resampled) -> list[str]:
    metrics = first.measured.metrics
    return [
        f"# {second.run.name} minus {first.run.name}",
        "",
        f"{metrics['dataset']}, {metrics['edition']}: {metrics['protocol']['text']}.",
        "",
        f"- mIoU: first {points(resampled.first, decimals=2)}, second {points(resampled.second, decimals=2)}",
        f"- {outcome(resampled)}",
        *(f"- {remark}" for remark in remarks(first, second)),
    ]


def _tables(shown: Sequence[Section]) -> Iterator[str]:
    """Each section as a Markdown table in percent; of long rankings both ends."""
    for section in shown:
        rows = [_cells(row) for row in section.rows]
        if section.ranked and len(rows) > 2 * _EACH_WAY:
            left_out = [f"... {len(rows) - 2 * _EACH_WAY} more ...", "", "", ""]
            rows = [*rows[:_EACH_WAY], left_out, *rows[-_EACH_WAY:]]
        head = ["", "first (%)", "second (%)", "difference"]
        yield from ("", f"## {section.title}", "", section.text, "", *aligned([head, *rows]))


def _cells(row: Row) -> list[str]:
    change = "" if row.change is None else points(row.change, signed=True)
    first, second = ("absent" if value is None else points(value) for value in (row.first, row.second))
    return [row.name.replace("|", "/"), first, second, change]


def _images(side: Side, ranked: Sequence[tuple[int, float]]) -> Iterator[str]:
    """Name the images with the largest changes."""
    change = dict(ranked)
    for word, chosen in zip(("gains", "losses"), pictures.largest(ranked), strict=True):
        named = [f"{side.table.ids[index]} ({points(change[index], signed=True)})" for index in chosen]
        yield from ("", f"Largest {word} in an image's own mIoU: {', '.join(named) or 'none'}.")


def _csv(shown: Sequence[Section], resampled: Resampled) -> str:
    """Spell all rows as fractions, and the bootstrap's interval beside the difference it is of."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["section", "name", "first", "second", "difference", "low", "high"])
    low, high = resampled.interval
    values = [resampled.first, resampled.second, resampled.difference, low, high]
    writer.writerow(["Bootstrap over images", "mIoU", *map(repr, values)])
    for section in shown:
        for row in section.rows:
            cells = ["" if value is None else repr(value) for value in (row.first, row.second, row.change)]
            writer.writerow([section.title, row.name, *cells, "", ""])
    return out.getvalue()
