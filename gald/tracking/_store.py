"""The tracking store: the only file that imports mlflow, and only when a store is opened."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gald.tracking._curves import Point
from gald.tracking._items import Dataset, Item
from gald.tracking.announced import Origin

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Entry

EXPERIMENT = "gald"
_DESCRIPTION = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "Runs stand under their benchmark, tables beside them. Scores are fractions, each under the "
    "protocol of the tags `gald.protocol` and `gald.protocol.text`. Where no runs are shown, choose *Model training* "
    "at the top left. Told from the files by `gald track`; nothing is read back.",
}
LOCK = "tracking"
"""Name of the lock under which the store is changed: making its database twice at once would break it."""
_INTERRUPTED = "gald.interrupted"
_FAILED = "gald.failed"
_LONGEST_TAG = 5000  # characters that every version of a server takes
_SERVER_SECONDS = 3
_MOST_PARAMS, _MOST_METRICS = 100, 1000  # the largest batches that a server takes


def store_uri() -> str:
    """Where the store is: ``MLFLOW_TRACKING_URI``, else a SQLite file in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def is_local(uri: str) -> bool:
    """Whether a store is a file of this machine rather than a server that others may share."""
    return urlsplit(uri).scheme in ("", "file", "sqlite")


def page_of(uri: str, experiment: str) -> str:
    """Address of an experiment's runs in a browser; empty where a store has none that is known.

    MLflow's first page is about chat models and shows no runs; this leads past it.

    Examples
    --------
    >>> page_of("https://me:secret@host:8080/", "3")
    'https://host:8080/#/experiments/3/runs?workflowType=machine_learning'
    """
    parts = urlsplit("http://127.0.0.1:5000" if is_local(uri) else uri)  # where `mlflow ui` listens
    if parts.scheme not in ("http", "https"):
        return ""
    server = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    return f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning"


def check_server(uri: str) -> None:
    """Raise OSError within seconds when nobody listens, which MLflow itself would take minutes to find out."""
    parts = urlsplit(uri)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    if not is_local(uri) and parts.hostname and port is not None:
        socket.create_connection((parts.hostname, port), timeout=_SERVER_SECONDS).close()


def load_mlflow() -> None:
    """Import MLflow, which takes seconds, with bounded waits and nothing told to its makers."""
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_SERVER_SECONDS))
    import mlflow  # noqa: F401 - what is imported later is a part of it

    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.WARNING)


class Store:
    """The experiment in the store, and what it already shows.

    Parameters
    ----------
    uri : str
        See `store_uri`.
    """

    def __init__(self, uri: str) -> None:
        load_mlflow()
        from mlflow import MlflowClient

        self.local = is_local(uri)
        self._client: MlflowClient = MlflowClient(tracking_uri=uri)
        self._experiment: str = self._find_experiment()
        self._describe_experiment()
        self._known: dict[str, Entry] = {}

    def _find_experiment(self) -> str:
        """Find or make the experiment; one whose artifacts lie in a folder that was since moved is put away."""
        from mlflow.entities import ViewType

        wanted = Path("mlruns").resolve().as_uri() if self.local else None
        for known in self._client.search_experiments(view_type=ViewType.ALL, filter_string=f"name = '{EXPERIMENT}'"):
            if known.lifecycle_stage == "active" and wanted in (None, known.artifact_location):
                return str(known.experiment_id)
            if known.lifecycle_stage != "active":
                self._client.restore_experiment(known.experiment_id)  # only a live one can be renamed
            self._client.rename_experiment(known.experiment_id, f"{EXPERIMENT} (put away {known.experiment_id})")
            self._client.delete_experiment(known.experiment_id)
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=wanted))

    def _describe_experiment(self) -> None:
        """Say what the experiment holds, unless a user has said it in other words."""
        known = self._client.get_experiment(self._experiment).tags
        for key, value in _DESCRIPTION.items():
            if key not in known:
                self._client.set_experiment_tag(self._experiment, key, value)

    def page(self) -> str:
        """Address of the experiment's runs, see `page_of`."""
        return page_of(self._client.tracking_uri, self._experiment)

    def entries(self) -> dict[str, Entry]:
        """Look up all that the store shows of ours, by identity."""
        self._known = {entry.data.tags["gald.id"]: entry for entry in self._search("")}
        return dict(self._known)

    def find(self, identity: str) -> Entry | None:
        """Look up one thing anew."""
        self._known.pop(identity, None)
        for entry in self._search(f"tags.`gald.id` = '{identity}'"):
            self._known[identity] = entry
        return self._known.get(identity)

    def _search(self, which: str) -> list[Entry]:
        """List what this folder made, the newest last: a server may also show the runs of other clones."""
        found: list[Entry] = []
        page: str | None = ""
        while page is not None:
            part = self._client.search_runs([self._experiment], which, max_results=1000, page_token=page or None)
            found += part
            page = part.token or None
        here = str(Path.cwd())
        ours = [entry for entry in found if self.local or entry.data.tags.get("gald.folder") == here]
        return [entry for entry in reversed(ours) if "gald.id" in entry.data.tags]

    def show(self, item: Item) -> bool:
        """Make the store show an item; return whether anything had to be made."""
        tags, state, known = dict(item.tags), item.state(), self._known.get(item.identity)
        if item.parent:
            tags["mlflow.parentRunId"] = self.run_id(item.parent)
        if known is not None and known.data.tags.get("gald.state") == state:
            self.set_tags(known, tags)
            self.log_datasets(known, item.datasets)
            if item.span_ms[1] > (known.info.end_time or 0):  # of a benchmark, when another of its runs has ended
                self.set_status(known, "FINISHED", item.span_ms[1])
            return False
        if known is not None and not belongs(known, item.origin):
            self._client.delete_run(known.info.run_id)
            known = None
        if known is None:
            known = self.create(item.identity, item.name, item.span_ms[0], tags)
        self._fill(known, item, tags)
        self.set_status(known, "FINISHED", item.span_ms[1] or None)
        self._client.set_tag(known.info.run_id, "gald.state", state)  # last: whatever lacks it was told by halves
        return True

    def _fill(self, entry: Entry, item: Item, tags: dict[str, str]) -> None:
        """Tell all of an item that an entry, which may have been begun while its training ran, does not show yet."""
        highest = self.highest(entry)
        self.reopen(entry)
        self.set_tags(entry, tags)
        self.log_params(entry, item.params)
        self.log_datasets(entry, item.datasets)
        self.log_points(entry, [point for point in item.curves if point[3] > highest.get(point[0], -1)] + item.metrics)
        for folder, files in (item.files | item.extra).items():
            for file in files:
                self._client.log_artifact(entry.info.run_id, str(file), folder or None)

    def create(self, identity: str, name: str, start_ms: int, tags: Mapping[str, str]) -> Entry:
        """Begin an entry, which is RUNNING."""
        tags = {**tags, "gald.id": identity, "gald.folder": str(Path.cwd())}
        self._known[identity] = self._client.create_run(self._experiment, start_ms, tags, run_name=name)
        return self._known[identity]

    def set_tags(self, entry: Entry, tags: Mapping[str, str]) -> None:
        """Set the tags that an entry does not bear yet."""
        for key, value in tags.items():
            if entry.data.tags.get(key) != value:
                self._client.set_tag(entry.info.run_id, key, value)

    def log_params(self, entry: Entry, params: Mapping[str, str]) -> None:
        """Add the params that an entry does not have yet; those that it has cannot be changed."""
        from mlflow.entities import Param

        new = [Param(key, value) for key, value in params.items() if key not in entry.data.params]
        for first in range(0, len(new), _MOST_PARAMS):
            self._client.log_batch(entry.info.run_id, params=new[first : first + _MOST_PARAMS])

    def log_datasets(self, entry: Entry, datasets: Sequence[Dataset]) -> None:
        """Add the data that an entry is not known to be trained on yet."""
        from mlflow.entities import Dataset as Source
        from mlflow.entities import DatasetInput, InputTag

        shown = [(one.dataset.name, one.dataset.digest) for one in entry.inputs.dataset_inputs] if entry.inputs else []
        new = [one for one in datasets if (one.name, one.digest) not in shown]
        sources = [Source(one.name, one.digest, "local", json.dumps({"uri": one.source})) for one in new]
        if sources:
            tags = [InputTag("mlflow.data.context", "training")]
            self._client.log_inputs(entry.info.run_id, [DatasetInput(source, tags) for source in sources])

    def log_points(self, entry: Entry, points: Sequence[Point]) -> None:
        """Add points to an entry's curves."""
        from mlflow.entities import Metric

        metrics = [Metric(*point) for point in points]
        for first in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(entry.info.run_id, metrics=metrics[first : first + _MOST_METRICS])

    def highest(self, entry: Entry) -> dict[str, int]:
        """Step up to which the store has each curve of an entry."""
        steps: dict[str, int] = {}
        for name in entry.data.metrics:
            steps[name] = max(point.step for point in self._client.get_metric_history(entry.info.run_id, name))
        return steps

    def interrupt(self, entry: Entry, where: str, end_ms: int) -> None:
        """Say that an entry's process is gone."""
        self.set_tags(entry, {_INTERRUPTED: f"{where}; the same command goes on"})
        self.set_status(entry, "KILLED", end_ms)

    def fail(self, entry: Entry, message: str, end_ms: int) -> None:
        """Say what an entry's training failed with."""
        self.set_tags(entry, {_FAILED: message[:_LONGEST_TAG]})
        self.set_status(entry, "FAILED", end_ms)

    def reopen(self, entry: Entry) -> None:
        """Say that an entry that may have been interrupted, or failed, goes on."""
        for tag in (_INTERRUPTED, _FAILED):
            if tag in entry.data.tags:
                self._client.delete_tag(entry.info.run_id, tag)
        if entry.info.status != "RUNNING":
            self.set_status(entry, "RUNNING")

    def run_id(self, identity: str) -> str:
        """MLflow's own name of a known entry."""
        return str(self._known[identity].info.run_id)

    def set_status(self, entry: Entry, status: str, end_ms: int | None = None) -> None:
        """Say that an entry is RUNNING, or how and when it ended."""
        if end_ms is None:
            self._client.update_run(entry.info.run_id, status)
        else:
            self._client.set_terminated(entry.info.run_id, status, end_ms)

    def put_away(self, entry: Entry, reason: str) -> None:
        """Move an entry to the deleted ones, where MLflow shows it on demand and from where it can be restored."""
        self._client.set_tag(entry.info.run_id, "gald.put_away", reason)
        self._client.delete_run(entry.info.run_id)
        self._known.pop(entry.data.tags["gald.id"], None)

    def ours(self) -> list[tuple[str, Entry]]:
        """List the known entries by identity."""
        return list(self._known.items())


def belongs(entry: Entry, origin: Origin | None) -> bool:
    """Whether an entry was begun while this very training ran, and was not completed since."""
    tags = entry.data.tags
    return (
        origin is not None
        and "gald.state" not in tags
        and tags.get("gald.live") == origin.key
        and tags.get("gald.code") in origin.codes
    )
