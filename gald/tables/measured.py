"""A run's results, read from its boundary files and refused unless they belong together."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gald import paths
from gald.errors import StaleMetrics
from gald.files import sha256
from gald.params import SCORES, Run
from gald.tables.content import Measured, Protocol


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Source(_Part):
    name: str
    about: str


class _Class(_Part):
    name: str
    iou: float | None


class _Protocol(_Part):
    name: str
    text: str
    split: str
    classes: int


class _Code(_Part):
    commit: str | None
    digest: str
    dirty: bool | None  # like the commit, unknown where the package lies outside git


class _Environment(_Part):
    cpu: str
    device: str
    instruction_set: str
    threads: int
    torch: str


class _Weights(_Part):
    sha256: str


class _Trained(_Part):
    weights: _Weights
    iterations: int
    code: _Code
    environment: _Environment
    determinism: str
    resumed_from: list[dict[str, Any]]


class _Metrics(_Part):
    """What tables and comparisons read of a metrics file, whatever else it holds."""

    run: str
    dataset: str
    edition: str
    source: _Source
    skipped: dict[str, int]
    protocol: _Protocol
    scores: dict[str, float | None]
    per_class: list[_Class]
    absent: list[str]
    area_edges: list[int]
    parameters: int
    gmacs: float
    gmacs_size: Annotated[list[int], Field(min_length=2, max_length=2)]
    manifest_sha256: str
    evaluation_code_digest: str
    params_sha256: str
    evaluate_sha256: str
    trained: _Trained | None = None

    @model_validator(mode="after")
    def _check(self) -> _Metrics:
        missing = [name for name in SCORES if name not in self.scores]
        if missing:
            raise ValueError(f"scores: {missing[0]} is missing")
        return self


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
    metrics_file = paths.metrics(run.name)
    metrics = _read(metrics_file, f"run `gald evaluate {run.name}`")
    _refuse_malformed(metrics, metrics_file, run)
    if metrics["run"] != run.name:
        raise StaleMetrics(f"{metrics_file} holds scores of {metrics['run']}: run `gald evaluate {run.name}`")
    record = _record(run, metrics)
    if metrics["edition"] != edition:
        raise StaleMetrics(
            f"{metrics_file} was measured on edition {metrics['edition']!r}, the table is about {edition!r}, and the "
            f"two are never mixed: run `gald train {run.name}`, then `gald evaluate {run.name}`"
        )
    return Measured(
        name=run.name,
        dataset=run.dataset,
        row=run.row,
        seed=run.seed,
        metrics=metrics,
        record=record,
        params_match=metrics["params_sha256"] == run.digest() and metrics["evaluate_sha256"] == run.evaluate_digest(),
    )


def _record(run: Run, metrics: dict[str, Any]) -> dict[str, Any]:
    """How the run was trained: of its run.json, or as its scores say where there is nothing but published scores.

    A run whose folder is there, but not its run.json, is being trained or has failed: its scores are of other weights.
    """
    run_file, metrics_file = paths.run_json(run.name), paths.metrics(run.name)
    if run_file.exists():
        if metrics.get("run_sha256") != sha256(run_file):
            raise StaleMetrics(
                f"{metrics_file} belongs to other weights than {run_file}: run `gald evaluate {run.name}`"
            )
        return _read(run_file, f"run `gald train {run.name}`")
    trained = metrics.get("trained")
    if run_file.parent.exists() or paths.checkpoint_dir(run.name).exists() or not isinstance(trained, dict):
        raise StaleMetrics(
            f"{run_file} is missing: run `gald train {run.name}`, then `gald evaluate {run.name}`, or `snakemake` with "
            "the suite, which makes all that is missing"
        )
    return trained


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise StaleMetrics(f"{path} is missing: {remedy}") from None
    except ValueError as error:
        raise StaleMetrics(f"{path} is no valid JSON ({error}): delete it and {remedy}") from error
    if not isinstance(content, dict):
        raise StaleMetrics(f"{path} holds no JSON object with names: delete it and {remedy}")
    return content


def _refuse_malformed(metrics: dict[str, Any], path: Path, run: Run) -> None:
    """Refuse a metrics file that lacks what is read of it, before anything reads it."""
    try:
        _Metrics.model_validate(metrics)
    except ValidationError as error:
        finding = error.errors()[0]
        where = ".".join(map(str, finding["loc"]))
        what = "is missing" if finding["type"] == "missing" else finding["msg"].removeprefix("Value error, ")
        told = f"{where}: {what[0].lower()}{what[1:]}" if where else what
        raise StaleMetrics(
            f"{path}: {told}; it is damaged, or an older version wrote it: run `gald evaluate {run.name}`"
        ) from None


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
