"""Evaluate stage: run.json, weights and manifest in; predictions and, last of all, the metrics out."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from gald import files, locking, paths, provenance
from gald.datasets._reader import PreparedSplit, Sample, Store
from gald.errors import DatasetError, StaleMetrics
from gald.evaluate.cost import Cost, cost
from gald.evaluate.explain import distribution_of, explain
from gald.inference import channels_last, for_prediction, predict
from gald.memory import keep_freed_memory
from gald.metrics import Counts, Mask, Scores, boundary_band, confusion_matrix, scores
from gald.models import weights
from gald.models.segmentor import Segmentor
from gald.params import EvaluateParams, Run
from gald.transforms import resize_image

_TELL_EVERY_S = 15.0
_HEADLINE = itemgetter("mean_iou", "boundary_mean_iou")
_LOG = logging.getLogger("gald.evaluate")


@dataclass
class Tally:
    """Counts of a whole split, and of each of its images.

    Attributes
    ----------
    confusion, boundary : int64 array (K, K)
        Of all pixels, and of those in the boundary band.
    images : list of int64 array (K, K)
        Of all pixels, image by image.
    """

    confusion: Counts
    boundary: Counts
    images: list[Counts]

    @classmethod
    def empty(cls, num_classes: int) -> Tally:
        """Count nothing yet."""
        return cls(np.zeros((num_classes, num_classes), np.int64), np.zeros((num_classes, num_classes), np.int64), [])

    def add(self, truth: Mask, prediction: Mask, boundary_width: int) -> None:
        """Count one image."""
        num_classes = len(self.confusion)
        image = confusion_matrix(truth, prediction, num_classes)
        band = boundary_band(truth, boundary_width)
        self.confusion += image
        self.boundary += confusion_matrix(truth, prediction, num_classes, where=band)
        self.images.append(image)

    def packed(self) -> bytes:
        """Spell the counts as an .npz; those of the images as (image, cell = truth * K + prediction, count) triples."""
        triples = [(np.flatnonzero(counts), counts.ravel()) for counts in self.images]
        buffer = BytesIO()
        np.savez_compressed(
            buffer,
            confusion=self.confusion,
            boundary=self.boundary,
            image=np.repeat(np.arange(len(triples), dtype=np.int32), [len(cells) for cells, _ in triples]),
            cell=np.concatenate([cells.astype(np.int32) for cells, _ in triples]),
            count=np.concatenate([counts[cells] for cells, counts in triples]),
        )
        return buffer.getvalue()


def evaluate(run: Run, *, store: Store = "auto") -> None:
    """Score a trained run on its evaluation split.

    Parameters
    ----------
    run : Run
        Name and params; it must be trained, with the very params it has now.
    store : {"auto", "packed", "files"}
        Where pixels are read from, see `PreparedSplit`; every sample is held against its digests either way.

    Raises
    ------
    StaleMetrics
        The run is not trained, or its weights, params or data are not those that run.json promises.
    DatasetError
        The split is missing, empty, damaged or of another source.
    """
    params = run.params.evaluate
    with locking.held(run.name, wait_s=locking.WAIT_S), _threads(params.threads):
        if paths.run_dir(run.name).exists():  # else the scores came with a clone, and are not this folder's to lose
            paths.metrics(run.name).unlink(missing_ok=True)  # numbers of other weights must not outlive a failure
        folder = paths.prepared(run.params.edition, run.dataset)
        split = PreparedSplit(folder, [params.split], store=store, source=run.params.source)
        if len(split) == 0:
            raise DatasetError(f"{split.folder}: split {params.split!r} is empty; prepare the dataset again")
        record = _checked_record(run, split.manifest_sha256)
        model = weights.load(paths.weights(run.name), classes=split.manifest["classes"])
        model = channels_last(model.to(run.params.train.device))
        with files.replaced_folder(paths.predictions(run.name)) as predictions:
            tally = _predict_split(run, for_prediction(model), split, predictions)
        price = cost(model, run.params.train.crop_size)
        metrics = _metrics(run, record, split, tally, price)
        files.write_json(paths.metrics(run.name), metrics)
    _LOG.info("%s: mIoU %s, in the boundary band %s", run.name, *map(_percent, _HEADLINE(metrics)))


def _percent(score: float | None) -> str:
    return "absent" if score is None else f"{100 * score:.1f} %"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _checked_record(run: Run, manifest_sha256: str) -> dict[str, Any]:
    """Read run.json and hold it against the params, the manifest and the weights that are there now."""
    path = paths.run_json(run.name)
    again = f"run `gald train {run.name}` again"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StaleMetrics(f"{path} is missing: {again}") from None
    except ValueError as error:
        raise StaleMetrics(f"{path} is damaged ({error}): {again}") from None
    weights_path, manifest = paths.weights(run.name), paths.manifest(run.params.edition, run.dataset)
    if not weights_path.exists():
        raise StaleMetrics(f"{weights_path} is missing: {again}")
    for key, expected, what in (
        ("run", run.name, "it is another run's"),
        ("params_sha256", run.digest(), "the run's params have changed since it was trained"),
        ("manifest_sha256", manifest_sha256, f"{manifest} has changed since the run was trained"),
    ):
        if record.get(key) != expected:
            raise StaleMetrics(f"{path}: {what} ({key} is {record.get(key)}, expected {expected}): {again}")
    found, expected = files.sha256(weights_path), record.get("weights", {}).get("sha256")
    if found != expected:
        raise StaleMetrics(f"{weights_path} is not what {path} promises (sha256 {found}, expected {expected}): {again}")
    return record


def _predict_split(run: Run, model: Segmentor, split: PreparedSplit, folder: Path) -> Tally:
    """Predict every image; count, and keep a few predictions and the list of what is kept."""
    params, manifest = run.params.evaluate, split.manifest
    tally = Tally.empty(len(manifest["classes"]))
    kept = gallery_indices(len(split), params.gallery)
    samples, told = [], time.monotonic()
    for index in range(len(split)):
        sample = split.verified(index)
        prediction = _predict_sample(model, sample, params)
        tally.add(sample.mask, prediction, params.boundary_width)
        if index in kept:
            file = folder / f"{index:05d}-{sample.id.replace('/', '_')}.png"
            files.write_bytes(file, _palette_png(prediction, manifest["palette"]))
            kept_files = {"id": sample.id, "file": file.name, "sha256": files.sha256(file)}
            samples.append(kept_files | _explained(model, sample, prediction, params, file))
        if time.monotonic() - told > _TELL_EVERY_S:
            told = time.monotonic()
            _LOG.info("%s: %d of %d images", run.name, index + 1, len(split))
    counts = folder / "confusion.npz"
    files.write_bytes(counts, tally.packed())
    listing = {
        "run": run.name,
        "run_sha256": files.sha256(paths.run_json(run.name)),
        "samples": samples,
        "confusion": {"file": counts.name, "sha256": files.sha256(counts)},
    }
    files.write_json(folder / paths.predictions_json(run.name).name, listing)
    return tally


def _predict_sample(model: Segmentor, sample: Sample, params: EvaluateParams) -> Mask:
    return predict(model, _input(sample, params), (sample.mask.shape[0], sample.mask.shape[1]))


def _input(sample: Sample, params: EvaluateParams) -> npt.NDArray[np.uint8]:
    return sample.image if params.image_size is None else resize_image(sample.image, params.image_size)


def _explained(
    model: Segmentor, sample: Sample, prediction: Mask, params: EvaluateParams, beside: Path
) -> dict[str, dict[str, str]]:
    """Keep what the network's distribution does to a sample, if it has one, beside the prediction."""
    if distribution_of(model) is None:
        return {}
    file = beside.with_suffix(".npz")
    files.write_bytes(file, explain(model, _input(sample, params), prediction).packed())
    return {"explanation": {"file": file.name, "sha256": files.sha256(file)}}


def gallery_indices(length: int, count: int) -> list[int]:
    """Choose up to `count` samples spread evenly over a split.

    Examples
    --------
    >>> gallery_indices(10, 4), gallery_indices(2, 4)
    ([0, 3, 6, 9], [0, 1])
    """
    return sorted({round(place) for place in np.linspace(0, length - 1, min(count, length))})


def _palette_png(prediction: Mask, palette: list[list[int]]) -> bytes:
    picture = Image.fromarray(prediction)
    picture.putpalette([value for colour in palette for value in colour])
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _metrics(run: Run, record: dict[str, Any], split: PreparedSplit, tally: Tally, price: Cost) -> dict[str, Any]:
    params, manifest, classes = run.params.evaluate, split.manifest, split.manifest["classes"]
    whole, boundary = scores(tally.confusion), scores(tally.boundary)
    return {
        "run": run.name,
        "dataset": run.dataset,
        "source": {"name": manifest["source"], "about": manifest["about_source"]},
        "edition": run.params.edition,
        "row": run.row,
        "seed": run.seed,
        "split": params.split,
        "protocol": protocol(params),
        "mean_iou": _number(whole.mean_iou),
        "boundary_mean_iou": _number(boundary.mean_iou),
        "boundary_width": params.boundary_width,
        "pixel_accuracy": _number(whole.pixel_accuracy),
        "mean_accuracy": _number(whole.mean_accuracy),
        "images": len(split),
        "skipped": {name: len(manifest["skipped"][name]) for name in (*run.params.train.splits, params.split)},
        "parameters": price.parameters,
        "gmacs": price.gmacs,
        "gmacs_size": list(price.size),
        "per_class": _per_class(classes, whole, boundary),
        "absent": [classes[index] for index in whole.absent],
        "run_sha256": files.sha256(paths.run_json(run.name)),
        "manifest_sha256": record["manifest_sha256"],
        "code_digest": record["code"]["digest"],
        "evaluation_code_digest": provenance.code_digest(),
        "params_sha256": run.digest(),
        "evaluate_sha256": run.evaluate_digest(),
    }


def protocol(params: EvaluateParams) -> str:
    """Say in words how scores come about.

    Every number travels with this line.
    """
    size = "native size" if params.image_size is None else "input {}x{}".format(*params.image_size)
    return f"whole image, {size}, single scale, no flip, scored at the mask's size on {params.split}"


def _per_class(classes: list[str], whole: Scores, boundary: Scores) -> list[dict[str, Any]]:
    rows = zip(classes, whole.iou, boundary.iou, strict=True)
    return [{"name": name, "iou": _number(iou), "boundary_iou": _number(band)} for name, iou, band in rows]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
