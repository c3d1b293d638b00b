"""The page of a comparison: one file with its style and pictures inside, which fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gald.commands._compare_counts import Side, remarks
from gald.commands._compare_pictures import LEGEND, Gallery
from gald.commands._compare_rows import Row, Section
from gald.tables.bootstrap import LABEL, Resampled
from gald.tables.page import page
from gald.tables.statistics import points

_OPEN = 40  # rows; longer sections are folded
_LEAST_SCALE = 0.02  # of the bars: a section that zooms in until noise fills it misleads


def render(first: Side, second: Side, shown: Sequence[Section], resampled: Resampled, gallery: Gallery) -> str:
    """Render a comparison.

    Parameters
    ----------
    first, second : Side
    shown : sequence of Section
        Rows to show, with a bar for each difference.
    resampled : Resampled
        Of the difference in mIoU.
    gallery : Gallery
        Pictures of the largest changes.
    """
    metrics = first.measured.metrics
    return page(
        "compare.html.j2",
        runs=[_run(side, score) for side, score in ((first, resampled.first), (second, resampled.second))],
        dataset=f"{metrics['edition']}/{metrics['dataset']}",
        protocol=metrics["protocol"],
        images=resampled.images,
        resamples=resampled.resamples,
        kind=_kind(resampled),
        number=points(resampled.difference, signed=True, decimals=2),
        interval=[points(end, signed=True, decimals=2) for end in resampled.interval],
        says=resampled.says,
        label=LABEL,
        remarks=list(remarks(first, second)),
        sections=[_section(section) for section in shown],
        ways=[
            {"title": title, "samples": samples, "none": none}
            for title, samples, none in (
                ("Largest gains", gallery.gains, "No image gains."),
                ("Largest losses", gallery.losses, "No image loses."),
            )
        ],
        drawn=gallery.drawn,
        classes=gallery.legend,
        outcomes=[(name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in LEGEND],
        points=points,
        photographs=metrics["edition"] == "full",
        notes=gallery.notes,
    )


def _run(side: Side, score: float) -> dict[str, str]:
    return {
        "name": side.run.name,
        "score": points(score, decimals=2),
        "weights": side.measured.record["weights"]["sha256"][:10],
        "determinism": side.measured.record["determinism"],
    }


def _kind(resampled: Resampled) -> str:
    if not resampled.distinguishable:
        return "open"
    return "higher" if resampled.difference > 0 else "lower"


def _section(section: Section) -> dict[str, Any]:
    widest = max(_LEAST_SCALE, *(abs(row.change) for row in section.rows if row.change is not None), 0.0)
    return {
        "title": section.title,
        "text": section.text,
        "open": len(section.rows) <= _OPEN and section.title != "All scores",
        "rows": [_row(row, widest) for row in section.rows],
        "scale": points(widest),
    }


def _row(row: Row, widest: float) -> dict[str, str]:
    change = row.change
    share = 0.0 if change is None else 50 * abs(change) / widest
    way = "" if change is None or change == 0 else "gain" if change > 0 else "loss"
    return {
        "name": row.name,
        "first": "absent" if row.first is None else points(row.first),
        "second": "absent" if row.second is None else points(row.second),
        "change": "" if change is None else points(change, signed=True),
        "way": way,
        "share": f"{share:.1f}",
    }
