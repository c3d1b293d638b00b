"""What there is to show of a suite: benchmarks, runs and tables, read from the files; nothing here knows of MLflow."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gald import paths
from gald.files import digest, sha256
from gald.params import COSTS, Run, Suite, Table, read_yaml
from gald.tracking._curves import Point, points, read_lines, spelt
from gald.tracking.announced import Origin

STEPS = 100  # points kept of each curve that was not shown while it grew: 150 000 of them take SQLite a minute
_SUFFIXES = ("csv", "md", "tex", "html")
_DIGITS = 12  # of a digest; MLflow takes up to 36


@dataclass(frozen=True)
class Dataset:
    """Prepared data to train on: their name, the first digits of their manifest's sha256, and where it lies."""

    name: str
    digest: str
    source: str


@dataclass(frozen=True)
class Item:
    """One thing to show in the store.

    Attributes
    ----------
    identity, name : str
        Who it is, for ever; and what is shown.
    files : dict
        Artifact folder to local files. Their bytes decide whether the store is up to date.
    tags, params : dict
        Text to text.
    metrics, curves : list of tuple
        Name, value, time in ms, step: figures of the whole, and those that grew interval by interval.
    span_ms : tuple of int
        Start and end in ms since the epoch; an end of 0 is not known.
    extra : dict
        Further artifacts, sent along but not compared.
    parent : str
        Identity of the item under which it stands, shown before it.
    datasets : tuple of Dataset
        What it was trained on.
    origin : Origin, optional
        What a training is made of, which tells whether an entry that was begun while it ran is this one.
    """

    identity: str
    name: str
    files: dict[str, tuple[Path, ...]]
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[Point] = field(default_factory=list)
    curves: list[Point] = field(default_factory=list)
    span_ms: tuple[int, int] = (0, 0)
    extra: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    parent: str = ""
    datasets: tuple[Dataset, ...] = ()
    origin: Origin | None = None

    def state(self) -> str:
        """Digest of the files that the item tells of."""
        return digest([[folder, file.name, sha256(file)] for folder, files in self.files.items() for file in files])


def items(suite: Suite) -> Iterator[Item]:
    """List what a suite has to show: a parent for each benchmark with results, its runs, then the tables."""
    parents: dict[str, list[Item]] = {}
    shown: dict[str, list[Item]] = {}
    for run in suite.runs:
        if _is_whole(run):
            item = _run_item(suite, run)
            parents.setdefault(item.parent, []).append(item)
            for name in run.tables:
                shown.setdefault(name, []).append(item)
    for runs in parents.values():
        yield benchmark(runs[0].name, suite.edition, _span(runs), _datasets(runs))
        yield from runs
    for table in suite.tables:
        files = tuple(paths.table(suite.name, table.name, suffix) for suffix in _SUFFIXES)
        if all(file.exists() for file in files):
            yield _table_item(suite, table, files, shown.get(table.name, []))


def benchmark(run: str, edition: str, span_ms: tuple[int, int], datasets: tuple[Dataset, ...]) -> Item:
    """Make the parent of all runs of one benchmark at one scale."""
    name = run.rpartition("/")[0]
    tags = {"gald.kind": "benchmark", "gald.edition": edition, "gald.dataset": name.rpartition("/")[2]}
    return Item(_parent(run), name, {}, tags, span_ms=span_ms, datasets=datasets)


def _parent(run: str) -> str:
    return f"benchmark:{run.rpartition('/')[0]}"


def dataset(edition: str, name: str, manifest_sha256: str) -> Dataset:
    """Describe the prepared data that a manifest vouches for."""
    return Dataset(f"{edition}/{name}", manifest_sha256[:_DIGITS], str(paths.manifest(edition, name)))


def _datasets(runs: Iterable[Item]) -> tuple[Dataset, ...]:
    return tuple(dict.fromkeys(one for run in runs for one in run.datasets))


def _span(runs: Iterable[Item]) -> tuple[int, int]:
    """From the first start to the last end of some trainings."""
    return min(run.span_ms[0] for run in runs), max(run.span_ms[1] for run in runs)


def _table_item(suite: Suite, table: Table, files: tuple[Path, ...], runs: list[Item]) -> Item:
    start, end = _span(runs) if runs else (round(1000 * time.time()), 0)
    with files[0].open(newline="") as file:
        means = [
            (f"{column}/{line['dataset']}/{line['row']}", float(line[column]), end or start, 0)
            for line in csv.DictReader(file)
            for column in table.columns
            if line.get(column)
        ]
    tags = {"gald.kind": "table", "gald.edition": suite.edition, "mlflow.note.content": files[1].read_text()}
    return Item(
        identity=f"table:{suite.name}/{table.name}",
        name=f"table {suite.name}/{table.name}",
        files={"table": files},
        tags=tags,
        metrics=means,
        span_ms=(start, end),
        datasets=_datasets(runs),
    )


def _is_whole(run: Run) -> bool:
    """Whether the run has its files, and metrics, as this version writes them, that belong to its weights."""
    needed = (paths.run_json(run.name), paths.run_params(run.name), paths.metrics(run.name))
    if not all(path.exists() for path in needed):
        return False
    metrics = json.loads(needed[2].read_text())
    return "scores" in metrics and bool(metrics["run_sha256"] == sha256(needed[0]))


def _history(run: Run) -> list[dict[str, Any]]:
    lines = read_lines(paths.history(run.name))
    stride = max(1, -(-len(lines) // STEPS))
    return lines[::-1][::stride][::-1]  # thinned from the end, so that the last one stays


def _run_item(suite: Suite, run: Run) -> Item:
    history = _history(run)
    times = [round(1000 * line["timestamp"]) for line in history] or [0]
    metrics = json.loads(paths.metrics(run.name).read_text())
    record = json.loads(paths.run_json(run.name).read_text())
    origin = origin_of(record)
    last = history[-1]["iteration"] if history else 0
    final = metrics["scores"] | {name: metrics.get(name) for name in COSTS}
    for scores in metrics["per_class"]:
        final |= {f"{name}/{spelt(scores['name'])}": score for name, score in scores.items() if name != "name"}
    leaf = run.name.rpartition("/")[2]
    pictures = sorted((paths.gallery(suite.name) / run.dataset).glob(f"[0-9]-{leaf}*.png"))
    tags = {
        "gald.kind": "run",
        "gald.edition": suite.edition,
        "gald.dataset": run.dataset,
        "gald.row": run.row,
        "gald.seed": str(run.seed),
        "gald.protocol": metrics["protocol"]["name"],
        "gald.protocol.text": metrics["protocol"]["text"],
        "gald.commit": str(record["code"]["commit"]),
        **origin_tags(origin),
        **{f"gald.table.{suite.name}.{table}": "shown" for table in run.tables},
    }
    return Item(
        identity=f"run:{run.name}",
        name=run.name,
        files={"": (paths.run_params(run.name), paths.run_json(run.name)), "metrics": (paths.metrics(run.name),)},
        tags=tags,
        params=dict(flat(read_yaml(paths.run_params(run.name)))),
        metrics=[(name, float(v), times[-1], last) for name, v in final.items() if v is not None],
        curves=list(points(history)),
        span_ms=(times[0], times[-1]),
        extra={"gallery": tuple(pictures)},
        parent=_parent(run.name),
        datasets=(dataset(suite.edition, run.dataset, record["manifest_sha256"]),),
        origin=origin,
    )


def origin_of(record: Mapping[str, Any]) -> Origin:
    """Tell from a run.json what its training was made of."""
    codes = [str(made["code"]) for made in record.get("resumed_from", ())]
    return Origin(record["params_sha256"], record["manifest_sha256"], (*codes, str(record["code"]["digest"])))


def origin_tags(origin: Origin) -> dict[str, str]:
    """Tags by which an entry is known as this training's own."""
    return {"gald.live": origin.key, "gald.code": origin.codes[-1]}


def read_run(run: str) -> dict[str, Any] | None:
    """Record of a finished training; None if there is none."""
    try:
        record: dict[str, Any] = json.loads(paths.run_json(run).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """List nested values as text, their keys joined by dots."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
