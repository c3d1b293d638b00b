"""A plot of scores that come in families: by distance to a boundary, size of objects, distance to the border.

One panel for each family, a line for each row, a bar for +- one standard deviation over seeds.
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
_ASIDE = 0.09  # of the step from one score to the next
_AXES = {
    "object_accuracy": "quarter of objects by area, 1 smallest",
    "object_found": "quarter of objects by area, 1 smallest",
    "border_mean_iou": "zone, 1 nearest to the image's border",
}


@styled()
def curves_svg(content: Content) -> bytes | None:
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
        for place, line in enumerate(lines):  # side by side, since equal rows would hide each other
            shift, label = _ASIDE * (place - (len(lines) - 1) / 2), line.label + content.mark(line)
            _curve(axes, line, columns, color(content, line.row), shift, label)
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


def _curve(axes: Axes, line: Line, columns: list[str], ink: str, shift: float, label: str) -> None:
    known = [(place, line.spreads[column]) for place, column in enumerate(columns) if column in line.spreads]
    places, means = [place + shift for place, _ in known], [100 * whole.mean for _, whole in known]
    bars = [100 * (whole.deviation or 0.0) for _, whole in known]
    axes.errorbar(places, means, yerr=bars, color=ink, marker="o", markersize=3.5, linewidth=1.3, label=label)


def _label(axes: Axes, benchmark: str, columns: list[str]) -> None:
    name = stem(columns[0])
    titles = {SCORES[column].partition(",")[0].removesuffix(" (%)") for column in columns}
    axes.set_title(", ".join(filter(None, (benchmark, *titles))), fontweight="bold")
    axes.set_xlabel(_AXES.get(name, "distance (px)"))
    axes.set_xticks(range(len(columns)), [column.removeprefix(f"{name}_") for column in columns])
    axes.set_ylabel("%")
    axes.margins(x=0.08)
    low, high = axes.get_ylim()
    missing = max(0.0, SMALLEST_SPAN - (high - low))
    axes.set_ylim(low - missing / 2, high + missing / 2)
