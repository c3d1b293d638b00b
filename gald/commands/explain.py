"""`gald explain`: what the local distribution of a network does to one picture, as a picture and as numbers."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gald import files
from gald.commands._targets import check_folder
from gald.commands.predict import Pixels, Predictor, read
from gald.errors import DatasetError, GaldError, ModelError
from gald.evaluate import explain as looking
from gald.explanation import Explanation
from gald.inference import predict
from gald.prepare.images import reason
from gald.process.memory import is_out_of_memory
from gald.tables.explained import alternative, explained_png

PICTURE, NUMBERS = "explain.png", "explain.json"
_COLUMNS = 100  # of the report's running text


def explain(image: Path, weights: Path, out: Path, *, at: Sequence[tuple[int, int]] = (), device: str = "cpu") -> str:
    """Draw what a network's local distribution does to one picture, and write down its numbers.

    Parameters
    ----------
    image : Path
        A picture of any kind that `gald predict` reads.
    weights : Path
        Weights that say how to build their network.
    out : Path
        Folder that gets ``explain.png`` and ``explain.json``.
    at : sequence of (int, int)
        Rows and columns in the picture whose windows are shown; if none is given, those of
        `gald.evaluate.explain.telling_places`, and the one whose weights are most unequal.
    device : {"cpu", "cuda"}

    Returns
    -------
    str
        What was written, and the numbers in short.

    Raises
    ------
    ModelError
        The weights are missing or damaged, or the network has no distribution.
    DatasetError
        The picture cannot be read.
    ParamsError
        A position outside the picture, or asked of a distribution without weights at positions; no CUDA device; a file
        where the folder would be.
    GaldError
        Memory runs out.
    """
    check_folder("-o", out)
    predictor = Predictor(weights, dataset=None, raw_ids=False, device=device)
    if looking.distribution_of(predictor.model) is None:
        raise ModelError(
            f"{weights}: this network has no local distribution (model.distribution is none), so there is nothing to "
            "explain; choose one that has, for example a run whose row ends in -affinity or -mask"
        )
    try:
        pixels = read(image)
    except Exception as error:  # Pillow's plugins each have their own ways to say that a file is damaged
        raise DatasetError(f"{image}: cannot be read as a picture ({reason(error)})") from error
    looking.check_places(at, (pixels.shape[0], pixels.shape[1]))  # of the picture, not of what it is continued to
    try:
        padded = _padded(pixels, predictor.least_side)
        with predictor.telling_once():  # the network runs twice
            labels = predict(predictor.model, padded, (padded.shape[0], padded.shape[1]))
            found = looking.explain(predictor.model, padded, labels, at=at)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        text = (
            f"{image}: {pixels.shape[1]}x{pixels.shape[0]} pixels take more memory than there is; give a smaller copy"
        )
        raise GaldError(text) from error
    _write(out, found, padded, predictor, f"{image.name}, {weights}")
    return _report(out, found, padded, pixels)


def _padded(image: Pixels, least: int) -> Pixels:
    """Continue an image by its edge pixels where it is too small for the network."""
    missing = [max(0, least - side) for side in image.shape[:2]]
    return np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def _write(out: Path, found: Explanation, image: Pixels, predictor: Predictor, title: str) -> None:
    classes = predictor.model.class_names
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(predictor.palette)] = predictor.palette
    files.write_bytes(out / PICTURE, explained_png(found, image, palette, classes, title=title))
    files.write_text(out / NUMBERS, json.dumps(content(found), indent=1) + "\n")


def content(found: Explanation) -> dict[str, Any]:
    """Spell an explanation's numbers as plain values; weights as float32 have them."""
    spelt: dict[str, Any] = {
        "size": list(found.labels.shape),
        "feature": list(found.positions),
        "distribution": found.kind,
        "output": found.output,
        "differing_pixels": int(np.count_nonzero(found.labels != found.without)),
        "differing_share": found.differing,
        "reading": found.reading(),
    }
    if found.kind == "affinity":
        spelt |= {"window": found.window, "dilation": found.dilation, "heads": found.weights.shape[1]}
        spelt["positions"] = [_place(found, number) for number in range(len(found.places))]
    if found.kind == "mask":
        ends = {"mean": found.overview.mean(), "least": found.overview.min(), "most": found.overview.max()}
        spelt["mask"] = {name: float(value) for name, value in ends.items()}
        rows = zip(found.channels.tolist(), found.channel_maps, found.channel_spread.tolist(), strict=True)
        spelt["mask"]["most_variable_channels"] = [
            {"channel": channel, "mean": float(values.mean()), "deviation": spread} for channel, values, spread in rows
        ]
    return spelt


def _place(found: Explanation, number: int) -> dict[str, Any]:
    place, weights = found.places[number], found.weights[number]
    return {
        "pixel": list(place.pixel),
        "feature_position": list(place.cell),
        "why": place.why,
        "sum": [float(total) for total in weights.sum(axis=1)],
        "neighbours": [
            {"rows": down, "columns": right, "weights": weights[:, index].tolist()}
            for index, (down, right, inside) in enumerate(found.neighbours(number))
            if inside
        ],
    }


def _report(out: Path, found: Explanation, padded: Pixels, pixels: Pixels) -> str:
    lines = [f"{out / PICTURE}: {alternative(found)}", f"{out / NUMBERS}: the same as numbers"]
    if padded.shape != pixels.shape:
        height, width = padded.shape[:2]
        lines.append(f"The picture was continued by its edges to {width}x{height}: the network takes no smaller one.")
    for number, place in enumerate(found.places):
        weights = found.weights[number].mean(axis=0)
        best = int(weights.argmax())
        down, right, _ = list(found.neighbours(number))[best]
        lines.append(
            f"{number + 1}, row {place.pixel[0]}, column {place.pixel[1]}, {place.why}: largest weight "
            f"{weights[best]:.3f}, for the neighbour {down:+d} rows and {right:+d} columns away"
        )
    if found.kind == "mask":
        lines.append(f"Mask, mean over channels: {found.overview.min():.3f} to {found.overview.max():.3f}")
    if found.kind == "uniform":
        lines.append("The weights of a window are equal by construction: there is nothing to draw but the difference.")
    if found.kind == "other":
        lines.append("This distribution has neither mask nor weights to draw: only the difference is shown.")
    return "\n".join([*lines, *textwrap.wrap(found.reading(), _COLUMNS)]) + "\n"
