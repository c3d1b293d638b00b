"""A run's results, read from its boundary files and refused unless they belong together."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gald import paths
from gald.errors import StaleMetrics
from gald.files import sha256
from gald.params import Run
from gald.tables.content import Measured, Protocol


def measure(run: Run, edition: str) -> Measured:
    """Read one run's results and refuse them unless they belong to its present weights.

    Parameters
    ----------
    run : Run
        As the suite asks for it now.
    edition : str
        Edition of the data that the table is about.

    Raises
    ------
    StaleMetrics
        The run or its metrics are missing, the metrics belong to other weights, to another edition of the data, or
        were written by an older version; the message ends with the command to run.
    """
    run_file, metrics_file = paths.run_json(run.name), paths.metrics(run.name)
    if not run_file.exists():
        raise StaleMetrics(
            f"{run_file} is missing: run `gald train {run.name}`, then `gald evaluate {run.name}`, or `snakemake` with "
            "the suite, which makes all that is missing"
        )
    metrics = _read(metrics_file, run)
    if metrics.get("run_sha256") != sha256(run_file):
        raise StaleMetrics(f"{metrics_file} belongs to other weights than {run_file}: run `gald evaluate {run.name}`")
    if metrics["edition"] != edition:
        raise StaleMetrics(
            f"{metrics_file} was measured on edition {metrics['edition']!r}, the table is about {edition!r}, and the "
            f"two are never mixed: run `gald train {run.name}`, then `gald evaluate {run.name}`"
        )
    if not (isinstance(metrics.get("scores"), dict) and isinstance(metrics.get("protocol"), dict)):
        raise StaleMetrics(
            f"{metrics_file} has no scores by name with their protocol; an older version wrote it: run "
            f"`gald evaluate {run.name}`"
        )
    return Measured(
        name=run.name,
        dataset=run.dataset,
        row=run.row,
        seed=run.seed,
        metrics=metrics,
        record=_read(run_file, run),
        params_match=metrics["params_sha256"] == run.digest() and metrics["evaluate_sha256"] == run.evaluate_digest(),
    )


def _read(path: Path, run: Run) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise StaleMetrics(f"{path} is missing: run `gald evaluate {run.name}`") from None
    except ValueError as error:
        raise StaleMetrics(
            f"{path} is no valid JSON ({error}): delete it and run `gald evaluate {run.name}`"
        ) from error
    return content


def refuse_mixed_data(runs: Iterable[Measured]) -> None:
    """Refuse runs of one benchmark that were scored on different prepared data, or by other sizes of objects.

    Raises
    ------
    StaleMetrics
        The message names the first run that departs, and what to do.
    """
    seen: dict[str, Measured] = {}
    for run in runs:
        other = seen.setdefault(run.dataset, run)
        if other.metrics["manifest_sha256"] != run.metrics["manifest_sha256"]:
            raise StaleMetrics(
                f"{other.name} and {run.name} were scored on different prepared data of {run.dataset}: run "
                f"`gald train` and `gald evaluate` for the one that does not match "
                f"{paths.manifest(run.metrics['edition'], run.dataset)}"
            )
        if other.metrics.get("area_edges") != run.metrics.get("area_edges"):
            raise StaleMetrics(
                f"{other.name} and {run.name} were scored with different sizes of objects of {run.dataset}: run "
                f"`gald evaluate` for the one that does not match {paths.objects(run.metrics['edition'], run.dataset)}"
            )


def one_protocol(runs: Iterable[Measured]) -> Protocol:
    """Find the protocol of a row's seeds, which are averaged and therefore have one.

    Raises
    ------
    StaleMetrics
        Two of them were scored by different protocols.
    """
    first, *others = ((run, Protocol.of(run.metrics)) for run in runs)
    for run, protocol in others:
        if not protocol.same(first[1]):
            raise StaleMetrics(
                f"{first[0].name} was scored by {first[1].name} ({first[1].text}), {run.name} by {protocol.name} "
                f"({protocol.text}), and seeds of one row are never averaged over two protocols: run `gald evaluate` "
                "for the one that the params do not ask for"
            )
    return first[1]
