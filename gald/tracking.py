"""The results as MLflow shows them: a view that is rebuilt from the files, and that nothing reads back.

Each thing in the store bears two tags of ours: who it is (``gald.id``), which is searched for before anything is made,
and which files it tells of (``gald.state``), set last. What is there and up to date is left alone; what was told of
other files, or only half, is replaced. So `track` may be called as often as one likes and never makes a duplicate.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gald import paths
from gald.files import digest, sha256, write_json
from gald.locking import held
from gald.params import Run, Suite, Table, read_yaml

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Entry

LOG = logging.getLogger("gald")
EXPERIMENT = "gald"
STEPS = 100  # points kept of each curve: 150 000 metrics take SQLite a minute
_SERVER_SECONDS = 3
_CURVES = ("loss", "main_loss", "aux_loss", "learning_rate", "images_per_second")
_SCORES = ("mean_iou", "boundary_mean_iou", "pixel_accuracy", "mean_accuracy", "parameters", "gmacs")
_SUFFIXES = ("csv", "md", "tex", "html")


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
    metrics : list of tuple
        Name, value, time in ms, step.
    span_ms : tuple of int
        Start and end in ms since the epoch.
    extra : dict
        Further artifacts, sent along but not compared.
    parent : str
        Identity of the item under which it stands, shown before it.
    """

    identity: str
    name: str
    files: dict[str, tuple[Path, ...]]
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    span_ms: tuple[int, int] = (0, 0)
    extra: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    parent: str = ""

    def state(self) -> str:
        """Digest of the files that the item tells of."""
        return digest([[folder, file.name, sha256(file)] for folder, files in self.files.items() for file in files])


def store_uri() -> str:
    """Where the store is: ``MLFLOW_TRACKING_URI``, else a SQLite file in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def track(suites: Sequence[Suite]) -> bool:
    """Bring the store up to date with the files of some suites; never fail for the store's sake.

    Parameters
    ----------
    suites : sequence of Suite
        Runs without results, or with stale ones, are passed over.

    Returns
    -------
    bool
        Whether the store was brought up to date. If not, one line of warning says why.
    """
    reached = True
    try:
        _check_server(store_uri())
        with warnings.catch_warnings(), held("tracking", wait_s=120):
            warnings.simplefilter("ignore")  # of MLflow's own dependencies; none of them is the user's business
            store = _Store(store_uri())
            counts = [store.show(item) for suite in suites for item in items(suite)]
        LOG.info("tracking store: %d shown, %d of them new or changed", len(counts), sum(counts))
    except Exception as error:  # whatever ails the store, the results are complete without it
        reached = False
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        LOG.warning(
            "tracking store not brought up to date (%s); nothing else is lost: `gald track` tries again", reason
        )
    for suite in suites:
        write_json(paths.tracking_stamp(suite.name), {"suite": suite.name, "reached": reached})
    return reached


def _check_server(uri: str) -> None:
    """Raise OSError within seconds when nobody listens, which MLflow itself would take minutes to find out."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=_SERVER_SECONDS).close()


def items(suite: Suite) -> Iterator[Item]:
    """List what a suite has to show: a parent for each benchmark with results, its runs, then the tables."""
    shown: set[str] = set()
    for run in suite.runs:
        if not _is_whole(run):
            continue
        history = _history(run)
        times = [round(1000 * line["timestamp"]) for line in history] or [0]
        parent = f"{run.scale}/{run.dataset}"
        if parent not in shown:
            shown.add(parent)
            tags = {"gald.kind": "benchmark", "gald.edition": suite.edition, "gald.dataset": run.dataset}
            yield Item(f"benchmark:{parent}", parent, {}, tags, span_ms=(times[0], times[0]))
        yield _run_item(suite, run, history, (times[0], times[-1]), f"benchmark:{parent}")
    for table in suite.tables:
        files = tuple(paths.table(suite.name, table.name, suffix) for suffix in _SUFFIXES)
        if all(file.exists() for file in files):
            yield _table_item(suite, table, files)


def _table_item(suite: Suite, table: Table, files: tuple[Path, ...]) -> Item:
    now = round(1000 * time.time())
    with files[0].open(newline="") as file:
        means = [
            (f"{column}/{line['dataset']}/{line['row']}", float(line[column]), now, 0)
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
        span_ms=(now, now),
    )


def _is_whole(run: Run) -> bool:
    """Whether the run has its files, and metrics that belong to its weights."""
    needed = (paths.run_json(run.name), paths.run_params(run.name), paths.metrics(run.name))
    if not all(path.exists() for path in needed):
        return False
    return bool(json.loads(needed[2].read_text())["run_sha256"] == sha256(needed[0]))


def _history(run: Run) -> list[dict[str, Any]]:
    path = paths.history(run.name)
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    stride = max(1, -(-len(lines) // STEPS))
    return lines[::-1][::stride][::-1]  # thinned from the end, so that the last one stays


def _run_item(suite: Suite, run: Run, history: list[dict[str, Any]], span_ms: tuple[int, int], parent: str) -> Item:
    metrics = json.loads(paths.metrics(run.name).read_text())
    record = json.loads(paths.run_json(run.name).read_text())
    last = history[-1]["iteration"] if history else 0
    final = {name: metrics[name] for name in _SCORES}
    final |= {f"iou/{_spelt(entry['name'])}": entry["iou"] for entry in metrics["per_class"]}
    curves = [
        (name, float(line[name]), round(1000 * line["timestamp"]), int(line["iteration"]))
        for line in history
        for name in _CURVES
        if line.get(name) is not None
    ]
    leaf = run.name.rpartition("/")[2]
    pictures = sorted((paths.gallery(suite.name) / run.dataset).glob(f"[0-9]-{leaf}*.png"))
    tags = {
        "gald.kind": "run",
        "gald.edition": suite.edition,
        "gald.dataset": run.dataset,
        "gald.row": run.row,
        "gald.seed": str(run.seed),
        "gald.protocol": metrics["protocol"],
        "gald.commit": str(record["code"]["commit"]),
        **{f"gald.table.{suite.name}.{table}": "shown" for table in run.tables},
    }
    return Item(
        identity=f"run:{run.name}",
        name=run.name,
        files={"": (paths.run_params(run.name), paths.run_json(run.name)), "metrics": (paths.metrics(run.name),)},
        tags=tags,
        params=dict(_flat(read_yaml(paths.run_params(run.name)))),
        metrics=curves + [(name, float(v), span_ms[1], last) for name, v in final.items() if v is not None],
        span_ms=span_ms,
        extra={"gallery": tuple(pictures)},
        parent=parent,
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _spelt(name: str) -> str:
    """Spell a class name with the characters that MLflow allows in a metric's name."""
    return "".join(character if character.isalnum() or character in "_-. " else "_" for character in name)


class _Store:
    """The experiment in the store, and what it already shows."""

    def __init__(self, uri: str) -> None:
        os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_SERVER_SECONDS))
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client: MlflowClient = MlflowClient(tracking_uri=uri)
        self._experiment: str = self._find_experiment(local=urlsplit(uri).scheme not in ("http", "https"))
        self._known: dict[str, Entry] = {}
        page: str | None = ""
        while page is not None:
            found = self._client.search_runs([self._experiment], max_results=1000, page_token=page or None)
            self._known |= {entry.data.tags["gald.id"]: entry for entry in found if "gald.id" in entry.data.tags}
            page = found.token or None

    def _find_experiment(self, *, local: bool) -> str:
        """Find or make the experiment; one whose artifacts lie in a folder that was since moved is put away."""
        from mlflow.entities import ViewType

        wanted = Path("mlruns").resolve().as_uri() if local else None
        for known in self._client.search_experiments(view_type=ViewType.ALL, filter_string=f"name = '{EXPERIMENT}'"):
            if known.lifecycle_stage == "active" and wanted in (None, known.artifact_location):
                return str(known.experiment_id)
            if known.lifecycle_stage != "active":
                self._client.restore_experiment(known.experiment_id)  # only a live one can be renamed
            self._client.rename_experiment(known.experiment_id, f"{EXPERIMENT} (put away {known.experiment_id})")
            self._client.delete_experiment(known.experiment_id)
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=wanted))

    def show(self, item: Item) -> bool:
        """Make the store show an item; return whether anything had to be made."""
        tags, state, known = dict(item.tags), item.state(), self._known.get(item.identity)
        if item.parent:
            tags["mlflow.parentRunId"] = self._known[item.parent].info.run_id
        if known is not None and known.data.tags.get("gald.state") == state:
            self._update_tags(known, tags)
            return False
        if known is not None:
            self._client.delete_run(known.info.run_id)
        self._known[item.identity] = self._create(item, tags, state)
        return True

    def _update_tags(self, known: Entry, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            if known.data.tags.get(key) != value:
                self._client.set_tag(known.info.run_id, key, value)

    def _create(self, item: Item, tags: dict[str, str], state: str) -> Entry:
        from mlflow.entities import Metric, Param

        tags |= {"gald.id": item.identity}
        entry = self._client.create_run(self._experiment, item.span_ms[0], tags, run_name=item.name)
        run_id = entry.info.run_id
        params = [Param(key, value) for key, value in item.params.items()]
        metrics = [Metric(key, value, time_ms, step) for key, value, time_ms, step in item.metrics]
        for first in range(0, len(params), 100):  # the largest batches that a server takes
            self._client.log_batch(run_id, params=params[first : first + 100])
        for first in range(0, len(metrics), 1000):
            self._client.log_batch(run_id, metrics=metrics[first : first + 1000])
        for folder, files in (item.files | item.extra).items():
            for file in files:
                self._client.log_artifact(run_id, str(file), folder or None)
        self._client.set_terminated(run_id, "FINISHED", item.span_ms[1])
        self._client.set_tag(run_id, "gald.state", state)  # last: whatever lacks it was told by halves
        return entry
