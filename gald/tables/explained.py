"""A picture of what a local distribution does to one image: for `gald explain` and for the start pages.

Above: the image, the labels with and without the distribution, and where the two differ. Below: a mask, or how unequal
the weights of an affinity are, and the windows of a few positions with their numbers.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gald.explanation import Explanation
from gald.tables.figures import INK, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Pixels = npt.NDArray[np.uint8]
SAME, DIFFERENT = (222, 228, 233), (213, 94, 0)
_SCALE = "cividis"  # light for more; alike to colour-blind readers and to others
_WIDTH = 11.0  # inches
_FOOT = 0.85  # inches, of legend and explanation
_DPI = 110
_LARGEST = 640  # pixels of a side that are drawn
_NAMES = 12  # classes in the legend
_IN_A_ROW = 4  # windows; more would be too small to read
_DIGIT, _RIM, _GAP = 0.08, 0.07, 0.03  # inches, of a place's number
_DECIMALS = {1: 3, 3: 3, 5: 2}  # by a window's side; the cells of a larger one have no room for numbers


@styled()
def explained_png(
    explanation: Explanation, image: Pixels, palette: Pixels, classes: Sequence[str], *, title: str
) -> bytes:
    """Draw an explanation.

    Parameters
    ----------
    explanation : Explanation
        Of H x W pixels.
    image : uint8 array (H, W, 3)
        The picture itself.
    palette : uint8 array (256, 3)
        Colour of each train id.
    classes : sequence of str
        Name of each train id.
    title : str
        Printed above.

    Returns
    -------
    bytes
        A PNG, the same bytes for the same arguments.
    """
    from matplotlib.figure import Figure

    shape = explanation.labels.shape[0] / explanation.labels.shape[1]
    beside = len(explanation.places) or len(explanation.channels)
    above = _WIDTH / 4 * min(max(shape, 0.3), 1.6) + 0.35
    rows, columns = -(-beside // _IN_A_ROW), 1 + min(beside, _IN_A_ROW)
    below = rows * (_WIDTH / columns * min(max(shape, 0.65), 1.1) + 0.75) if beside else 0.01
    figure = Figure(figsize=(_WIDTH, above + below + _FOOT + 0.25), layout="constrained")
    parts: Any = figure.subfigures(3, 1, height_ratios=[above, below, _FOOT])
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10.5)
    _labels(list(parts[0].subplots(1, 4).flat), explanation, image, palette)
    if beside:
        _insight(parts[1].subplots(rows, columns, squeeze=False), parts[1], explanation)
    _legend(parts[2], explanation, palette, classes)
    parts[2].text(0.008, 0.04, "\n".join(textwrap.wrap(explanation.reading(), 180)), va="bottom", fontsize=7.5)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def alternative(explanation: Explanation) -> str:
    """Say in one line what the picture shows, for those who do not see it."""
    share = f"{100 * explanation.differing:.1f} % of the labels differ without it"
    what = {
        "mask": "mask of the local distribution, mean over channels and its most variable channels",
        "affinity": f"affinity weights of the {explanation.window} x {explanation.window} window at "
        f"{len(explanation.places)} positions",
        "uniform": "local distribution of equal weights",
    }
    return f"{what.get(explanation.kind, 'local distribution')}; {share}"


def _labels(panels: Sequence[Axes], explanation: Explanation, image: Pixels, palette: Pixels) -> None:
    differs = explanation.labels != explanation.without
    colours = np.array([SAME, DIFFERENT], np.uint8)[differs.astype(np.uint8)]
    shown = (
        ("image", image),
        ("labels with LD", palette[explanation.labels]),
        ("labels without LD", palette[explanation.without]),
        (f"differing: {100 * explanation.differing:.1f} % of pixels", colours),
    )
    for axes, (title, pixels) in zip(panels, shown, strict=True):
        _picture(axes, pixels)
        axes.set_title(title)
    _mark(panels[0], explanation)


def _picture(axes: Axes, pixels: Pixels) -> None:
    """Show a picture with its pixels as coordinates; large ones thinned out."""
    height, width = pixels.shape[:2]
    step = -(-max(height, width) // _LARGEST)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(pixels[::step, ::step], extent=extent, interpolation="nearest")
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _mark(axes: Axes, explanation: Explanation) -> None:
    """Number the places, and outline what each window covers."""
    from matplotlib.patches import Rectangle

    height, width = explanation.labels.shape
    down, right = height / explanation.positions[0], width / explanation.positions[1]
    reach = explanation.window // 2 * explanation.dilation + 0.5
    pixels = max(4 * width, 2.5 * height) / _WIDTH  # of the picture in an inch, about: four beside each other, or tall
    for number, place in enumerate(explanation.places, 1):
        row, column = place.pixel
        box: dict[str, Any] = {"fill": False, "clip_on": True}
        corner = (column - reach * right, row - reach * down)
        for ink, line in (("white", 2.6), ("#d55e00", 1.2)):
            axes.add_patch(Rectangle(corner, 2 * reach * right, 2 * reach * down, edgecolor=ink, linewidth=line, **box))
        wide, high = (_DIGIT * len(str(number)) + _RIM) * pixels, (_DIGIT + _RIM) * pixels
        left = beside(column, reach * right + _GAP * pixels, width, wide)
        top = beside(row, reach * down + _GAP * pixels, height, high)
        look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 8, "color": "white"}
        shape = {"boxstyle": "round,pad=0.18", "facecolor": "#33404d", "edgecolor": "none"}
        axes.text(left + wide / 2, top + high / 2, str(number), bbox=shape, **look)


def beside(at: float, reach: float, extent: float, size: float) -> float:
    """Where along an axis a label starts: after what it names, before that where the picture ends, never outside.

    Examples
    --------
    >>> beside(10, 5, 100, 12), beside(95, 5, 100, 12), beside(50, 60, 100, 12)
    (15, 78, 0)
    """
    after = at + reach
    start = after if after + size <= extent else at - reach - size
    return min(max(start, 0), extent - size)


def _insight(panels: Any, part: Any, explanation: Explanation) -> None:
    """Draw the overview at the left of the first row, and beside it the windows or the channels, row by row."""
    mask = explanation.kind == "mask"
    ends = (0.0, 1.0) if mask else (0.0, rounded_up(max(float(explanation.overview.max()), 0.01)))
    title = "mask, mean over channels" if mask else "inequality of the weights"
    label = "share of g added once more" if mask else "0 equal, 1 one neighbour alone"
    _heat(part, panels[0, 0], explanation.overview, title, label, ends)
    for index, axes in enumerate(panels[:, 1:].flat):
        if index >= len(explanation.channels if mask else explanation.places):
            axes.remove()
        elif mask:
            spread = explanation.channel_spread[index]
            title = f"mask, channel {explanation.channels[index]} (deviation {spread:.2f})"
            _heat(part, axes, explanation.channel_maps[index], title, "share of g added once more", ends)
        else:
            _window(part, axes, explanation, index)
    for axes in panels[1:, 0]:
        axes.remove()


def rounded_up(value: float) -> float:
    """Round the end of a scale up to two digits that count, so that what is written there holds.

    Examples
    --------
    >>> rounded_up(0.01452), rounded_up(0.5), rounded_up(0.0301)
    (0.015, 0.5, 0.031)
    """
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(round(value / unit, 6)) * unit:.2g}")


def _heat(
    part: Any, axes: Axes, values: npt.NDArray[np.float32], title: str, label: str, ends: tuple[float, float]
) -> None:
    shown = axes.imshow(values, cmap=_SCALE, vmin=ends[0], vmax=ends[1], interpolation="nearest")
    _bare(axes)
    axes.set_title(title, fontsize=8.5)
    bar = part.colorbar(shown, ax=axes, orientation="horizontal", fraction=0.08, pad=0.04, aspect=24)
    ticks = [ends[0], (ends[0] + ends[1]) / 2, ends[1]]
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    bar.set_label(label, fontsize=8, loc="left")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5, length=2)


def _window(part: Any, axes: Axes, explanation: Explanation, place: int) -> None:
    """Draw the weights of one window, mean over heads, with their numbers; cells outside the feature are hatched."""
    side = explanation.window
    weights = explanation.weights[place].mean(axis=0)
    inside = np.array([within for _, _, within in explanation.neighbours(place)])
    grid = np.ma.masked_array(weights.reshape(side, side), ~inside.reshape(side, side))
    top = max(float(weights.max()), 1e-6)
    shown = axes.imshow(grid, cmap=_SCALE, vmin=0, vmax=top)
    for index in range(side**2):
        ink = "white" if weights[index] < 0.55 * top else "black"
        _cell(axes, divmod(index, side), _spelt(weights[index], side), ink if inside[index] else None)
    shifts = [(index - side // 2) * explanation.dilation for index in range(side)]
    axes.set_xticks(range(side), [f"{shift:+d}" if shift else "0" for shift in shifts], fontsize=7.5)
    axes.set_yticks(range(side), [f"{shift:+d}" if shift else "0" for shift in shifts], fontsize=7.5)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    at = explanation.places[place]
    axes.set_title(f"{place + 1}: {at.why}\nrow {at.pixel[0]}, column {at.pixel[1]}", fontsize=8)
    axes.set_xlabel(f"shift (positions); sum {weights.sum():.2f}", fontsize=8)
    axes.set_anchor("W")
    bar = part.colorbar(shown, ax=axes, fraction=0.05, pad=0.03)
    bar.set_label("weight", fontsize=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5, length=2)


def _spelt(weight: float, side: int) -> str:
    """Spell a weight as its cell has room for."""
    return f"{weight:.{_DECIMALS[side]}f}".removeprefix("0") if side in _DECIMALS else ""


def _cell(axes: Axes, place: tuple[int, int], text: str, ink: str | None) -> None:
    """Write into a cell of a window in ink; without any the cell is outside the feature."""
    from matplotlib.patches import Rectangle

    row, column = place
    if ink is None:
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="#eef1f4", edgecolor="#aab4be", hatch="////", lw=0))
    elif text:
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)


def _legend(part: Any, explanation: Explanation, palette: Pixels, classes: Sequence[str]) -> None:
    """Name the classes of the labels, most frequent first."""
    from matplotlib.patches import Patch

    counts = np.bincount(np.concatenate([explanation.labels, explanation.without], axis=None), minlength=len(classes))
    seen = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    handles = [Patch(facecolor=palette[index] / 255, edgecolor=INK, linewidth=0.4) for index in seen[:_NAMES]]
    names = [classes[index] for index in seen[:_NAMES]]
    if len(seen) > _NAMES:
        handles.append(Patch(facecolor="none"))
        names.append(f"and {len(seen) - _NAMES} more")
    part.legend(handles, names, loc="upper left", ncols=7, frameon=False, fontsize=7.5, handlelength=1.1)
