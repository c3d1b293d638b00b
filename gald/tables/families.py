"""A plot of scores that come in families: by distance to a boundary, size of objects, distance to the border.

One panel for each family. At each score the rows stand side by side, since equal ones would hide each other: a dot for
the mean, a bar for +- one standard deviation over seeds. No line joins a row's dots: drawn aside too, the lines of
equal rows would seem to lie one above the other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gald.params import SCORES
from gald.tables.content import Content, Line
from gald.tables.figures import SMALLEST_SPAN, WIDTH, color, legend_columns, new_figure, styled, svg
from gald.tables.grid import stem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACROSS = 3
_HEIGHT = 2.5  # inches of a panel
_ASIDE, _ASTRIDE = 0.12, 0.8  # of the step from one score to the next: between two rows, and all together at most
_TITLES = {"border_mean_iou": "mIoU by distance to the border"}
_AXES = {
    "object_accuracy": "quarter of objects by area, 1 smallest",
    "object_found": "quarter of objects by area, 1 smallest",
    "border_mean_iou": "zone, 1 nearest to the image's border",
}


@styled()
def families_svg(content: Content) -> bytes | None:
    """Plot each family of scores of each benchmark.

    Returns
    -------
    bytes or None
        An SVG document; None where the table shows no family.
    """
    families: dict[str, list[str]] = {}
    for column in content.columns:
        families.setdefault(stem(column), []).append(column)
    panels = [(dataset, columns) for dataset in content.datasets for columns in families.values() if len(columns) > 1]
    if not panels:
        return None
    across = min(_ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    figure = new_figure(WIDTH, _HEIGHT * down + 0.4)
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, (dataset, columns) in zip(grid, panels, strict=False):
        lines = [line for line in content.lines if line.dataset == dataset]
        aside = min(_ASIDE, _ASTRIDE / len(lines))
        for place, line in enumerate(lines):
            shift, label = aside * (place - (len(lines) - 1) / 2), line.label + content.mark(line)
            _dots(axes, line, columns, color(content, line.row), shift, label)
        _label(axes, lines[0].title if len(content.datasets) > 1 else "", columns)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    named: dict[str, Any] = {}  # of all panels: a row may be marked on one benchmark alone, or not run on the first
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    ncols = legend_columns(named)
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=ncols, frameon=False, fontsize=8)
    return svg(figure)


def _dots(axes: Axes, line: Line, columns: list[str], ink: str, shift: float, label: str) -> None:
    known = [(place, line.spreads[column]) for place, column in enumerate(columns) if column in line.spreads]
    places, means = [place + shift for place, _ in known], [100 * whole.mean for _, whole in known]
    bars = [100 * (whole.deviation or 0.0) for _, whole in known]
    axes.errorbar(places, means, yerr=bars, color=ink, fmt="o", markersize=4, elinewidth=1.5, label=label)


def _label(axes: Axes, benchmark: str, columns: list[str]) -> None:
    name = stem(columns[0])
    title = _TITLES.get(name) or SCORES[columns[0]].partition(",")[0].removesuffix(" (%)")
    axes.set_title(", ".join(filter(None, (benchmark, title))), fontweight="bold")
    axes.set_xlabel(_AXES.get(name, "distance (px)"))
    axes.set_xticks(range(len(columns)), [column.removeprefix(f"{name}_") for column in columns])
    axes.set_ylabel("%")
    axes.margins(x=0.08)
    low, high = axes.get_ylim()
    missing = max(0.0, SMALLEST_SPAN - (high - low))
    axes.set_ylim(low - missing / 2, high + missing / 2)
