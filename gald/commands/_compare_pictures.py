"""Images on which two runs differ most: predicted again, cut to where they differ, as pictures that lie in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from gald import paths
from gald.commands._compare_counts import Side, changes
from gald.datasets._reader import PreparedSplit
from gald.datasets._samples import Sample
from gald.evaluate.predictor import Predictor
from gald.evaluate.record import checked_record
from gald.metrics import Mask, confusion_matrix
from gald.process.threads import torch_threads
from gald.tables.gallery import IGNORED, indexed, reduced

SHOWN = 4  # images each way
_SHARE, _LEAST = 1 / 3, 128  # of a side that a crop takes, and its fewest pixels
_QUALITY = 88
_FRAME = (213, 94, 0)
BOTH_RIGHT, BOTH_WRONG, GAINED, LOST = (222, 228, 233), (128, 138, 149), (0, 114, 178), (213, 94, 0)
_OUTCOMES = np.array([BOTH_RIGHT, BOTH_WRONG, GAINED, LOST, IGNORED], np.uint8)
LEGEND = (
    ("both right", BOTH_RIGHT), ("both wrong", BOTH_WRONG), ("right in the second alone", GAINED),
    ("right in the first alone", LOST), ("ignored", IGNORED),
)  # fmt: skip

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shot:
    """A picture: where it can be had, what it shows, and whether it is a photograph-like image."""

    source: str
    text: str
    photo: bool


@dataclass(frozen=True)
class Pictured:
    """An image on which the runs differ.

    Attributes
    ----------
    id : str
    change : float
        In the image's own mIoU, second minus first; a fraction.
    where : str
        Rows and columns of the crop.
    shots : tuple of Shot
        Image, truth, both predictions, and where they differ.
    """

    id: str
    change: float
    where: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Gallery:
    """Pictures of the largest changes, the classes' colours, and what a reader must know of them.

    `drawn` is false where pictures could not be had at all; the notes say why.
    """

    gains: tuple[Pictured, ...] = ()
    losses: tuple[Pictured, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    drawn: bool = True


def largest(ranked: Sequence[tuple[int, float]], count: int = SHOWN) -> tuple[list[int], list[int]]:
    """Choose the images that gain and those that lose most; each from the largest change on.

    Examples
    --------
    >>> largest([(4, 0.2), (0, 0.1), (2, 0.0), (1, -0.3)], count=1)
    ([4], [1])
    """
    gains = [index for index, change in ranked if change > 0]
    losses = [index for index, change in reversed(ranked) if change < 0]
    return gains[:count], losses[:count]


def draw(first: Side, second: Side) -> Gallery:
    """Predict the images of the largest changes again with both runs' weights, and draw them.

    Raises
    ------
    StaleMetrics
        Weights or data are not those that the runs' records promise.
    DatasetError
        The prepared data is missing or damaged.
    ModelError
        The weights are damaged, or there is no device for them.
    """
    run = first.run
    split = PreparedSplit(
        paths.prepared(run.params.edition, run.dataset), [run.params.evaluate.split], source=run.params.source
    )
    ranked = list(changes(first, second))
    gains, losses = largest(ranked)
    samples = {index: split.verified(index) for index in (*gains, *losses)}
    found = [dict(_predictions(side, split, samples)) for side in (first, second)]
    palette = np.full((256, 3), IGNORED, np.uint8)
    palette[: len(split.manifest["palette"])] = split.manifest["palette"]
    change = dict(ranked)

    def pictured(index: int) -> Pictured:
        sample = samples[index]
        masks = (sample.mask, found[0][index], found[1][index])
        return _pictured(sample, change[index], masks, palette, split.manifest["ignore_index"])

    seen = {int(i) for index in samples for mask in (samples[index].mask, *(one[index] for one in found))
            for i in np.unique(mask)}  # fmt: skip
    names = split.manifest["classes"]
    legend = tuple((name, "#{:02x}{:02x}{:02x}".format(*palette[i])) for i, name in enumerate(names) if i in seen)
    notes = tuple(
        note for side, masks in zip((first, second), found, strict=True) for note in _departures(side, samples, masks)
    )
    return Gallery(tuple(map(pictured, gains)), tuple(map(pictured, losses)), legend, notes)


def _predictions(side: Side, split: PreparedSplit, samples: dict[int, Sample]) -> Iterator[tuple[int, Mask]]:
    """Predict as the evaluation did: same weights, protocol and threads."""
    params = side.run.params.evaluate
    checked_record(side.run, split.manifest_sha256)
    with torch_threads(params.threads):
        predictor = Predictor(side.run, params, split.manifest["classes"])
        for index, sample in samples.items():
            yield index, predictor(sample.image, (sample.mask.shape[0], sample.mask.shape[1]))


def _departures(side: Side, samples: dict[int, Sample], masks: dict[int, Mask]) -> Iterator[str]:
    """Say where this machine does not predict what was counted."""
    counted, classes = side.table.confusions(), len(side.classes)
    for index, mask in masks.items():
        before = counted[[index]].toarray().reshape(classes, classes)
        moved = int(np.abs(confusion_matrix(samples[index].mask, mask, classes) - before).sum()) // 2
        if moved:
            yield (
                f"{side.run.name}, {samples[index].id}: predicted again, at least {moved} pixels are other than in the "
                "evaluation, which was made on another machine or by other code; the scores are the evaluation's."
            )


def _pictured(
    sample: Sample, change: float, masks: tuple[Mask, Mask, Mask], palette: Pixels, ignore_index: int
) -> Pictured:
    truth, first, second = masks
    outcomes = outcome(truth, first, second, ignore_index)
    wanted = 2 if change > 0 else 3
    rows, columns = crop(outcomes == wanted, outcomes == 5 - wanted)
    cut = (rows, columns)
    whole = (rows.stop - rows.start, columns.stop - columns.start) == truth.shape
    shots = [] if whole else [Shot(_photograph(_framed(sample.image, rows, columns)), "whole image", True)]
    shots += [
        Shot(_photograph(Image.fromarray(sample.image[cut])), "image", True),
        Shot(_png(indexed(truth[cut], palette)), "truth", False),
        Shot(_png(indexed(first[cut], palette)), "first", False),
        Shot(_png(indexed(second[cut], palette)), "second", False),
        Shot(_png(indexed(outcomes[cut], _OUTCOMES)), "where they differ", False),
    ]
    where = f"rows {rows.start} to {rows.stop - 1}, columns {columns.start} to {columns.stop - 1}"
    return Pictured(sample.id, change, "" if whole else where, tuple(shots))


def outcome(truth: Mask, first: Mask, second: Mask, ignore_index: int) -> Pixels:
    """Mark each pixel: right in both (0), wrong in both (1), right in the second alone (2), the first (3), ignored (4).

    Examples
    --------
    >>> truth = np.array([[0, 0, 0, 0, 255]], np.uint8)
    >>> one, other = np.array([[0, 1, 1, 0, 0]], np.uint8), np.array([[0, 1, 0, 1, 0]], np.uint8)
    >>> outcome(truth, one, other, 255).tolist()
    [[0, 1, 2, 3, 4]]
    """
    right = (first == truth).astype(np.uint8) * 2 + (second == truth)
    marks: Pixels = np.array([1, 2, 3, 0], np.uint8)[right]
    marks[truth == ignore_index] = 4
    return marks


def crop(wanted: npt.NDArray[np.bool_], unwanted: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Find the window that shows a change best: most wanted pixels above unwanted ones, the first where several do.

    Parameters
    ----------
    wanted, unwanted : bool array (H, W)

    Returns
    -------
    tuple of slice
        Rows and columns; a third of each side, unless the image is so small that more can be shown.
    """
    sides = [min(side, max(_LEAST, round(side * _SHARE))) for side in wanted.shape]
    total = np.zeros((wanted.shape[0] + 1, wanted.shape[1] + 1), np.int64)
    total[1:, 1:] = (wanted.astype(np.int64) - unwanted).cumsum(axis=0).cumsum(axis=1)
    height, width = sides
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = (int(place) for place in np.unravel_index(int(sums.argmax()), sums.shape))
    return slice(top, top + height), slice(left, left + width)


def _framed(image: Pixels, rows: slice, columns: slice) -> Image.Image:
    picture = Image.fromarray(image)
    line = max(2, picture.width // 150)
    box = (columns.start, rows.start, columns.stop - 1, rows.stop - 1)
    ImageDraw.Draw(picture).rectangle(box, outline=_FRAME, width=line)
    return picture


def _photograph(picture: Image.Image) -> str:
    out = io.BytesIO()
    reduced(picture, Image.Resampling.LANCZOS).save(out, format="JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _png(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
