"""Evaluate stage: run.json, weights and manifest in; predictions, counts and, last of all, the metrics out."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from gald import files, paths
from gald.datasets._objects import read_edges
from gald.datasets._reader import PreparedSplit, Store
from gald.errors import DatasetError
from gald.evaluate.cost import cost
from gald.evaluate.counting import Pixels, count_images, identity, place
from gald.evaluate.journal import Journal
from gald.evaluate.predictor import Predictor, palette_png
from gald.evaluate.record import checked_record, metrics
from gald.metrics import Mask
from gald.metrics.counts import CountTable, Layout
from gald.params import Run
from gald.process import locking
from gald.process.threads import torch_threads

_HEADLINE = itemgetter("mean_iou", "trimap_mean_iou_3")
_LOG = logging.getLogger("gald.evaluate")


def evaluate(run: Run, *, store: Store = "auto") -> None:
    """Score a trained run on its evaluation split.

    What is counted is kept image by image, so that after a kill the same command goes on. Under torchrun the processes
    share the images; each is counted once, and the counts add up to those of a single process.

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
    params, shared = run.params.evaluate, place()
    first = shared.rank == 0
    with locking.held(run.name, wait_s=locking.WAIT_S) if first else nullcontext(), torch_threads(params.threads):
        if first and paths.run_dir(run.name).exists():  # else the scores came with a clone, and are not ours to lose
            paths.metrics(run.name).unlink(missing_ok=True)  # numbers of other weights must not outlive a failure
        split = PreparedSplit(
            paths.prepared(run.params.edition, run.dataset), [params.split], store=store, source=run.params.source
        )
        if len(split) == 0:
            raise DatasetError(f"{split.folder}: split {params.split!r} is empty; prepare the dataset again")
        split.check_labels()
        record = checked_record(run, split.manifest_sha256)
        layout = Layout(len(split.manifest["classes"]), read_edges(run.params.edition, run.dataset))
        predictor = Predictor(run, params, split.manifest["classes"], shared.local)
        made_of = identity(run, params, split.manifest_sha256, layout)
        with Journal(
            paths.evaluation_dir(run.name), made_of, layout, shared.rank, shared.size, shared.group
        ) as journal:
            keep = partial(_keep, journal.folder, split, predictor)
            count_images(run.name, split, predictor, journal, layout, shared, keep)
            if not first:
                return
            journal.wait_for(range(len(split)))
            table = CountTable.of(tuple(split.ids), layout, journal.counts(range(len(split))))
            _publish(run, split, journal.folder, table)
            price = cost(predictor.model, run.params.train.crop_size)
            found = metrics(run, record, split, table, price)
            found["counts_sha256"] = files.sha256(paths.counts(run.name))  # by which those of another time are told
            files.write_json(paths.metrics(run.name), found)
            journal.remove()
    _LOG.info("%s: mIoU %s, within 3 px of a boundary %s", run.name, *map(percent, _HEADLINE(found["scores"])))


def percent(score: float | None) -> str:
    """Spell a fraction for a message."""
    return "absent" if score is None else f"{100 * score:.1f} %"


def _kept_name(index: int, sample_id: str) -> str:
    return f"{index:05d}-{sample_id.replace('/', '_')}.png"


def _keep(
    folder: Path, split: PreparedSplit, predictor: Predictor, index: int, image: Pixels, prediction: Mask
) -> None:
    """Keep a prediction as a picture and, beside it, what the network's distribution does there, if it has one."""
    if index not in gallery_indices(len(split), predictor.params.gallery):
        return
    file = folder / _kept_name(index, split.ids[index])
    files.write_bytes(file, palette_png(prediction, split.manifest["palette"]))
    if predictor.explains:
        files.write_bytes(file.with_suffix(".npz"), predictor.explained(image, prediction))


def _publish(run: Run, split: PreparedSplit, kept: Path, table: CountTable) -> None:
    """Give the predictions folder its new content: counts, kept pictures, and the list of both."""

    def listed(file: Path) -> dict[str, str]:
        return {"file": file.name, "sha256": files.sha256(file)}

    with files.replaced_folder(paths.predictions(run.name)) as folder:
        samples: list[dict[str, Any]] = []
        for index in gallery_indices(len(split), run.params.evaluate.gallery):
            name = _kept_name(index, split.ids[index])
            files.write_bytes(folder / name, (kept / name).read_bytes())
            samples.append({"id": split.ids[index], **listed(folder / name)})
            explanation = (kept / name).with_suffix(".npz")
            if explanation.exists():
                files.write_bytes(folder / explanation.name, explanation.read_bytes())
                samples[-1]["explanation"] = listed(folder / explanation.name)
        counts = folder / paths.counts(run.name).name
        files.write_bytes(counts, table.packed())
        run_sha256 = files.sha256(paths.run_json(run.name))
        listing = {"run": run.name, "run_sha256": run_sha256, "samples": samples, "counts": listed(counts)}
        files.write_json(folder / paths.predictions_json(run.name).name, listing)


def gallery_indices(length: int, count: int) -> list[int]:
    """Choose up to `count` samples spread evenly over a split.

    Examples
    --------
    >>> gallery_indices(10, 4), gallery_indices(2, 4)
    ([0, 3, 6, 9], [0, 1])
    """
    return sorted({round(place) for place in np.linspace(0, length - 1, min(count, length))})
