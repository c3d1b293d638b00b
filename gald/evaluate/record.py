"""What an evaluation reads of a run and writes of it: run.json held against what is there now, and metrics.json."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from gald import files, paths, provenance
from gald.datasets._reader import PreparedSplit
from gald.errors import StaleMetrics
from gald.evaluate.cost import Cost
from gald.evaluate.protocol import protocol
from gald.metrics import scores
from gald.metrics.counts import CountTable
from gald.metrics.detail import detail_per_class, detail_scores
from gald.params import SCORES, Run

TRAINED = ("weights", "iterations", "code", "environment", "resumed_from", "determinism")
"""What of run.json goes with the scores, so that who has the scores alone knows how they came about."""


def checked_record(run: Run, manifest_sha256: str) -> dict[str, Any]:
    """Read run.json and hold it against the params, the manifest and the weights that are there now.

    Parameters
    ----------
    run : Run
    manifest_sha256 : str
        Digest of the manifest that the evaluation reads.

    Raises
    ------
    StaleMetrics
        Something is missing, damaged or another; the message names it and says what to run.
    """
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


def scored(table: CountTable, classes: list[str]) -> dict[str, Any]:
    """Compute everything that counts say.

    Parameters
    ----------
    table : CountTable
        Counts of each image.
    classes : list of str
        Names of the classes, in train id order.

    Returns
    -------
    dict
        ``scores`` by the names of `gald.params.SCORES`, ``per_class``, ``absent``; fractions, None where absent.
    """
    whole = scores(table.total("rings").sum(axis=0))
    values = {
        "mean_iou": whole.mean_iou,
        "pixel_accuracy": whole.pixel_accuracy,
        "mean_accuracy": whole.mean_accuracy,
        "frequency_weighted_iou": whole.frequency_weighted_iou,
        **detail_scores(table),
    }
    columns = {"iou": whole.iou, "accuracy": whole.accuracy, **detail_per_class(table, width=3)}
    return {
        "scores": {name: number(values[name]) for name in SCORES},
        "per_class": [
            {"name": name, **{key: number(column[index]) for key, column in columns.items()}}
            for index, name in enumerate(classes)
        ],
        "absent": [classes[index] for index in whole.absent],
    }


def metrics(run: Run, record: dict[str, Any], split: PreparedSplit, table: CountTable, price: Cost) -> dict[str, Any]:
    """Spell what stands in ``reports/<scale>/metrics/<run>.json``."""
    params, manifest = run.params.evaluate, split.manifest
    return {
        "run": run.name,
        "dataset": run.dataset,
        "source": {"name": manifest["source"], "about": manifest["about_source"]},
        "edition": run.params.edition,
        "row": run.row,
        "seed": run.seed,
        "split": params.split,
        "protocol": protocol(params, len(manifest["classes"])),
        "images": len(split),
        "skipped": {name: len(manifest["skipped"][name]) for name in (*run.params.train.splits, params.split)},
        **scored(table, manifest["classes"]),
        "area_edges": list(table.layout.area_edges),
        "parameters": price.parameters,
        "gmacs": price.gmacs,
        "gmacs_size": list(price.size),
        "run_sha256": files.sha256(paths.run_json(run.name)),
        "manifest_sha256": record["manifest_sha256"],
        "code_digest": record["code"]["digest"],
        "trained": {key: record[key] for key in TRAINED},
        "evaluation_code_digest": provenance.code_digest(),
        "params_sha256": run.digest(),
        "evaluate_sha256": run.evaluate_digest(),
    }


def number(value: float | np.floating[Any]) -> float | None:
    """Spell a score as JSON has it: None where there is nothing to score."""
    return None if math.isnan(value) else float(value)
