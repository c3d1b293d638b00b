"""Pictures of what the rows predict: image, truth, each row's prediction, and where it is wrong.

They are drawn from the prepared data and from the predictions that the evaluation keeps. A picture that cannot be had,
or that belongs to other weights, is left out with a note; it never fails the page.
"""

from __future__ import annotations

import csv
import errno
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gald import explanation as explanations
from gald import paths
from gald.datasets import load_spec
from gald.files import sha256, write_bytes
from gald.tables.content import Content, Measured
from gald.tables.explained import alternative, explained_png

SAMPLES = 3  # shown for each benchmark
EXPLAINED = 1  # of these also with what each row's distribution does
MAX_WIDTH = 480  # pixels; wider pictures are reduced
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the gallery's own disk: nothing to leave out
RIGHT, WRONG, IGNORED = (222, 228, 233), (213, 94, 0), (70, 80, 92)


@dataclass(frozen=True)
class Shot:
    """One picture: its file in the gallery's folder, what it shows, and whether it is a photograph-like image."""

    file: str
    text: str
    photo: bool = False


@dataclass(frozen=True)
class Sample:
    """One sample: image and predictions above, truth and differences below, as many of each; then what LD did."""

    id: str
    above: tuple[Shot, ...]
    below: tuple[Shot, ...]
    explained: tuple[Shot, ...] = ()


@dataclass
class Block:
    """One benchmark's pictures."""

    title: str
    samples: list[Sample] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)  # class, CSS colour


def shown_runs(contents: Sequence[Content]) -> dict[str, dict[str, Measured]]:
    """Choose the runs to show: for each benchmark its rows by label, each with its lowest seed."""
    chosen: dict[str, dict[str, Measured]] = {}
    for content in contents:
        for line in content.lines:
            runs = chosen.setdefault(line.dataset, {})
            if line.runs[0].name not in {run.name for run in runs.values()}:
                runs.setdefault(line.label, line.runs[0])
    return chosen


def draw(folder: Path, contents: Sequence[Content]) -> tuple[list[Block], list[str]]:
    """Draw the gallery into `folder`.

    Parameters
    ----------
    folder : Path
        An empty folder; files go to ``<dataset>/<number>-{image,truth}.png``, and for each row to
        ``<dataset>/<number>-<row>-seed<k>.png`` and ``...-wrong.png``; for the first sample and each row with a
        distribution also ``...-explained.png``.
    contents : sequence of Content
        The suite's tables.

    Returns
    -------
    blocks : list of Block
        Benchmarks of which there are pictures.
    notes : list of str
        What was left out, and why.
    """
    blocks, notes = [], []
    for dataset, runs in shown_runs(contents).items():
        predictions: dict[str, _Kept] = {}
        for label, run in runs.items():
            kept, problem = _predictions(run)
            if kept is None:
                notes.append(problem)
            else:
                predictions[label] = kept
        metrics = next(iter(runs.values())).metrics
        edition, split = metrics["edition"], metrics["protocol"]["split"]
        try:
            truth = _truth(edition, dataset, split) if predictions else None
            if truth is not None:
                blocks.append(_block(folder, dataset, predictions, truth))
        except (OSError, SyntaxError, ValueError, KeyError) as error:  # Pillow has several for damaged files
            if isinstance(error, OSError) and error.errno in _UNWRITABLE:
                raise
            notes.append(
                f"{dataset}: a picture cannot be read ({error}); `gald prepare {edition}/{dataset}` renews it."
            )
    return [block for block in blocks if block.samples], notes


def _predictions(run: Measured) -> tuple[_Kept | None, str]:
    """Find a run's kept predictions by sample; the second value says what is wrong with them, if anything."""
    path = paths.predictions_json(run.name)
    if not path.exists():
        return None, f"{run.name}: no predictions are kept here; `gald evaluate {run.name}` makes them."
    try:
        kept, problem = _kept(run, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        kept, problem = None, f"{path}, the list of its predictions, is damaged ({error})"
    return kept, f"{run.name}: {problem}; `gald evaluate {run.name}` renews them." if problem else ""


def _kept(run: Measured, content: dict[str, Any]) -> tuple[_Kept | None, str]:
    """Take the predictions that a list names, if they are those that were scored."""
    if content["run_sha256"] != run.metrics["run_sha256"]:
        return None, "the predictions belong to other weights"
    if run.metrics.get("counts_sha256") not in (None, content.get("counts", {}).get("sha256")):
        return None, "the predictions belong to another evaluation"
    samples, folder = content["samples"], paths.predictions(run.name)
    explained = {sample["id"]: sample["explanation"] for sample in samples if "explanation" in sample}
    if not all(_is_whole(folder, promised) for promised in (*samples, *explained.values())):
        return None, "a prediction is missing or damaged"
    files = {sample["id"]: folder / sample["file"] for sample in samples}
    explanations = {name: folder / promised["file"] for name, promised in explained.items()}
    return _Kept(run.name.rpartition("/")[2], files, explanations), ""


def _is_whole(folder: Path, promised: dict[str, str]) -> bool:
    file = folder / promised["file"]
    return file.is_file() and sha256(file) == promised["sha256"]


@dataclass(frozen=True)
class _Kept:
    leaf: str  # last part of the run's name
    files: dict[str, Path]  # sample -> predicted mask
    explanations: dict[str, Path]  # sample -> what the distribution did; none where there is no distribution


@dataclass(frozen=True)
class _Truth:
    folder: Path
    samples: dict[str, dict[str, str]]
    classes: list[str]
    palette: npt.NDArray[np.uint8]  # (256, 3): train id -> colour; everything beyond the classes is ignored
    ignore_index: int


def _truth(edition: str, dataset: str, split: str) -> _Truth | None:
    manifest_file = paths.manifest(edition, dataset)
    if not manifest_file.exists():
        return None
    manifest: dict[str, Any] = json.loads(manifest_file.read_text())
    folder = paths.prepared(edition, dataset)
    with (folder / manifest["splits"][split]["index"]).open(newline="") as file:
        samples = {entry["id"]: entry for entry in csv.DictReader(file)}
    palette = np.full((256, 3), IGNORED, dtype=np.uint8)
    palette[: len(manifest["palette"])] = manifest["palette"]
    return _Truth(folder, samples, manifest["classes"], palette, manifest["ignore_index"])


def _block(folder: Path, dataset: str, predictions: dict[str, _Kept], truth: _Truth) -> Block:
    block, seen = Block(load_spec(dataset).title), set[int]()
    common = [name for name in truth.samples if all(name in kept.files for kept in predictions.values())]
    for number, name in enumerate(common[:SAMPLES]):
        with Image.open(truth.folder / truth.samples[name]["image"]) as picture:
            image = picture.convert("RGB")
        mask = _read_ids(truth.folder / truth.samples[name]["mask"])
        prefix = f"{dataset}/{number}"
        above = [_save(folder, f"{prefix}-image.png", reduced(image, Image.Resampling.LANCZOS), "image", photo=True)]
        below = [_save(folder, f"{prefix}-truth.png", indexed(mask, truth.palette), "truth")]
        for label, kept in predictions.items():
            predicted = _read_ids(kept.files[name])
            seen |= set(np.unique(predicted).tolist())
            differs, share = difference(predicted, mask, truth.ignore_index)
            above.append(_save(folder, f"{prefix}-{kept.leaf}.png", indexed(predicted, truth.palette), label))
            colors = np.array([RIGHT, WRONG, IGNORED], dtype=np.uint8)
            text = f"{100 * share:.1f} % of pixels right"
            below.append(_save(folder, f"{prefix}-{kept.leaf}-wrong.png", indexed(differs, colors), text))
        seen |= set(np.unique(mask).tolist())
        explained = _explained(folder, prefix, image, name, predictions, truth) if number < EXPLAINED else ()
        block.samples.append(Sample(name, tuple(above), tuple(below), tuple(explained)))
    block.legend = list(_legend(truth, seen))
    return block


def _explained(
    folder: Path, prefix: str, image: Image.Image, sample: str, predictions: dict[str, _Kept], truth: _Truth
) -> Iterator[Shot]:
    """Draw what each row's distribution did to one sample."""
    for label, kept in predictions.items():
        if sample not in kept.explanations:
            continue
        explanation = explanations.read(kept.explanations[sample])
        size = (explanation.labels.shape[1], explanation.labels.shape[0])
        pixels = np.asarray(image if image.size == size else image.resize(size, Image.Resampling.LANCZOS))
        file = f"{prefix}-{kept.leaf}-explained.png"
        title = f"{label}, {sample}"
        write_bytes(folder / file, explained_png(explanation, pixels, truth.palette, truth.classes, title=title))
        yield Shot(file, f"{label}: {alternative(explanation)}", photo=True)


def difference(
    predicted: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], ignore_index: int
) -> tuple[npt.NDArray[np.uint8], float]:
    """Mark each pixel as right (0), wrong (1) or ignored (2).

    Parameters
    ----------
    predicted, mask : ndarray of uint8, shape (h, w)
        Train ids.
    ignore_index : int
        Train id of pixels that do not count.

    Returns
    -------
    marks : ndarray of uint8, shape (h, w)
    share : float
        Right pixels among those that count; 0 when none counts.

    Examples
    --------
    >>> marks, share = difference(np.array([[1, 2, 3]], np.uint8), np.array([[1, 1, 255]], np.uint8), 255)
    >>> marks.tolist(), share
    ([[0, 1, 2]], 0.5)
    """
    marks = (predicted != mask).astype(np.uint8)
    marks[mask == ignore_index] = 2
    counts = np.bincount(marks.ravel(), minlength=3)
    return marks, float(counts[0] / max(counts[0] + counts[1], 1))


def _legend(truth: _Truth, seen: set[int]) -> Iterator[tuple[str, str]]:
    for train_id, name in enumerate(truth.classes):
        if train_id in seen:
            yield name, "#{:02x}{:02x}{:02x}".format(*truth.palette[train_id])
    if truth.ignore_index in seen:
        yield "ignored", "#{:02x}{:02x}{:02x}".format(*IGNORED)


def _read_ids(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture, dtype=np.uint8)


def indexed(ids: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]) -> Image.Image:
    """Draw ids, uint8 (h, w), in the colours of a palette, uint8 (n, 3); reduced where it is wide."""
    picture = reduced(Image.fromarray(ids), Image.Resampling.NEAREST)
    picture.putpalette(palette.tobytes())
    return picture


def reduced(picture: Image.Image, how: Image.Resampling) -> Image.Image:
    """Reduce a picture to `MAX_WIDTH`, if it is wider."""
    if picture.width <= MAX_WIDTH:
        return picture
    return picture.resize((MAX_WIDTH, round(picture.height * MAX_WIDTH / picture.width)), how)


def _save(folder: Path, name: str, picture: Image.Image, text: str, photo: bool = False) -> Shot:
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    write_bytes(folder / name, out.getvalue())
    return Shot(name, text, photo)
