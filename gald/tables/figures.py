"""Plots of a table as SVG: scores with their spread over seeds, and training loss.

The bytes depend on the numbers alone: identifiers inside the SVG come from a fixed salt and no date is written, so a
rebuild of an unchanged table leaves git quiet. Ink is one named colour, which a style sheet in the file turns light
where the reader's system is dark.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gald import paths
from gald.params import SCORES
from gald.tables.content import Content, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008): colours that colour-blind readers can tell apart, without yellow and
# black, which vanish on a light and on a dark page; then two of Paul Tol's muted scheme for long tables.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#882255", "#999933")
INK = "#33404d"
WIDTH = 9.2  # inches
SMALLEST_SPAN = 5.0  # points of percent that an axis of scores shows at least
_RULES = """<style>@media (prefers-color-scheme: dark) {
 [style*="fill: #33404d"] { fill: #c9d3dd !important; }
 [style*="stroke: #33404d"] { stroke: #c9d3dd !important; }
}</style>"""
_STYLE: Any = {
    "svg.hashsalt": "gald",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that the glyphs are the same everywhere
    "font.size": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#8899aa",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the house's style, whatever the user's own matplotlib settings are."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own matplotlibrc must not change the bytes
        mpl.rcParams.update(_STYLE)
        yield


def color(content: Content, row: str) -> str:
    """Colour of a row, the same in every plot of its table."""
    return COLORS[content.rows.index(row) % len(COLORS)]


@styled()
def scores_svg(content: Content) -> bytes | None:
    """Plot each score of each row: a dot for the mean, a bar for +- one standard deviation, a tick for each seed.

    Parameters
    ----------
    content : Content
        One panel for each benchmark (downwards) and score (across); rows run downwards in the table's order.

    Returns
    -------
    bytes or None
        An SVG document; None where there is no score to plot, as in a table of costs.
    """
    columns = tuple(column for column in content.columns if any(column in line.spreads for line in content.lines))
    if not columns:
        return None
    heights = [1.0 + 0.34 * sum(line.dataset == name for line in content.lines) for name in content.datasets]
    figure = new_figure(WIDTH, sum(heights))
    grid = figure.subplots(
        len(heights), len(columns), squeeze=False, sharex="col", sharey="row", gridspec_kw={"height_ratios": heights}
    )
    for panels, dataset in zip(grid, content.datasets, strict=True):
        lines = [line for line in content.lines if line.dataset == dataset]
        for axes, column in zip(panels, columns, strict=True):
            _score_panel(axes, content, lines, column)
        panels[0].set_title(lines[0].title, fontweight="bold")
    for axes, column in zip(grid[-1], columns, strict=True):
        axes.set_xlabel(SCORES[column])
        _widen(axes)
    return svg(figure)


def _score_panel(axes: Axes, content: Content, lines: list[Line], column: str) -> None:
    for position, line in enumerate(lines):
        if column not in line.spreads:
            continue
        whole, ink = line.spreads[column], color(content, line.row)
        seeds = [100 * value for _, value in sorted(line.scores[column].items())]
        if whole.deviation is not None:
            ends = [100 * (whole.mean - whole.deviation), 100 * (whole.mean + whole.deviation)]
            axes.plot(ends, [position, position], color=ink, linewidth=2.2, solid_capstyle="round")
        axes.plot(seeds, [position] * len(seeds), "|", color=ink, markersize=9, markeredgewidth=1.2, alpha=0.7)
        axes.plot([100 * whole.mean], [position], "o", color=ink, markersize=6)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(range(len(lines)), [line.label + content.mark(line) for line in lines])
    axes.tick_params(length=0)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)


def _widen(axes: Axes) -> None:
    """Give the scale some points at least: a plot that zooms in until noise fills it misleads."""
    low, high = axes.get_xlim()
    missing = max(0.0, SMALLEST_SPAN - (high - low))
    axes.set_xlim(low - missing / 2, high + missing / 2)


@styled()
def loss_svg(content: Content) -> bytes | None:
    """Plot the training loss of each run against the iteration, a line for each seed, on a logarithmic scale.

    Returns
    -------
    bytes or None
        An SVG document; None when no history is there (it is an output of the training, not of the evaluation).
    """
    curves = {run.name: read_history(paths.history_csv(run.name)) for run in content.runs}
    datasets = [
        name for name in content.datasets if any(curves[run.name] for run in content.runs if run.dataset == name)
    ]
    if not datasets:
        return None
    across = min(len(datasets), 3)
    down = math.ceil(len(datasets) / across)
    figure = new_figure(WIDTH, (2.5 if across > 1 else 3.0) * down)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, dataset in zip(panels, datasets, strict=False):
        lines = [line for line in content.lines if line.dataset == dataset]
        for line in lines:
            _loss_lines(axes, [curves[run.name] for run in line.runs], color(content, line.row), line.label)
        _scale_logarithmically(axes)
        axes.set_title(lines[0].title, fontweight="bold")
        axes.set_xlabel("iteration")
    for axes in panels[len(datasets) :]:
        axes.set_visible(False)
    panels[0].set_ylabel("training loss")
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    where: Any = "outside right upper" if across == 1 else "outside lower center"
    ncols = 1 if across == 1 else legend_columns(handles)
    figure.legend(handles.values(), handles.keys(), loc=where, ncols=ncols, frameon=False, fontsize=8)
    return svg(figure)


def _scale_logarithmically(axes: Axes) -> None:
    """Label 0.1, 0.2, 0.5, 1 and so on: readers of a loss do not want powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend_columns(labels: Collection[str]) -> int:
    """Columns of a legend below a figure of `WIDTH`, as many as its longest label lets in."""
    inches = 0.065 * max(map(len, labels)) + 0.6  # a letter of 8 points, and the line before the label
    return max(1, min(len(labels), int(WIDTH / inches)))


def _loss_lines(axes: Axes, curves: list[list[tuple[float, float]]], ink: str, label: str) -> None:
    for curve in curves:
        if curve:
            axes.plot(*zip(*curve, strict=True), color=ink, linewidth=1.1, alpha=0.8, label=label)


def read_history(path: Path) -> list[tuple[float, float]]:
    """Read (iteration, loss) pairs of a thinned training history; none when the file is absent."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [(float(entry["iteration"]), float(entry["loss"])) for entry in csv.DictReader(file)]


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of some inches."""
    from matplotlib.figure import Figure  # not pyplot: no global figures to leak, no window system to look for

    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure) -> bytes:
    """Spell a figure as an SVG document whose bytes depend on what is drawn alone."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue().decode()
    return text.replace("<defs>", _RULES + "\n <defs>", 1).encode()
