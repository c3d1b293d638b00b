import contextlib
import gc
import json
import logging
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from gald import paths, tracking
from gald.files import write_json, write_text
from gald.params import SCORES
from gald.tables.run import build_table
from gald.tracking._store import page_of
from tests.unit.tables.conftest import TABLE, write_params, write_run


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """Two runs with results, and their table, in an empty repository root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uses = {"components": {"datasets": ["camvid"], "seeds": [0]}}
    loaded = write_params(tmp_path, {"components": TABLE}, uses)
    for run in loaded.runs:
        write_run(run, 0.6)
    build_table(loaded, "components")
    return loaded


@pytest.fixture
def client():
    """Ask the store in the current folder; MLflow's own warnings and open connections stay out of the test."""

    @contextlib.contextmanager
    def opened():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient

            yield MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")  # MLflow keeps a store open by this name
            gc.collect()

    return opened


def by_identity(client):
    with client() as opened:
        experiment = opened.get_experiment_by_name("gald").experiment_id
        entries = opened.search_runs([experiment])
    found = {entry.data.tags["gald.id"]: entry for entry in entries}
    assert len(found) == len(entries)
    return found


def test_what_a_suite_has_to_show(suite):
    items = {item.identity: item for item in tracking.items(suite)}
    assert list(items) == [
        "benchmark:tiny/camvid", "run:tiny/camvid/ga-seed0", "run:tiny/camvid/ga-ld-seed0", "table:tiny/components",
    ]  # fmt: skip
    run = items["run:tiny/camvid/ga-ld-seed0"]
    assert run.parent == "benchmark:tiny/camvid"
    assert run.params["model.aggregation.name"] == "cgnl"
    assert run.tags["gald.table.tiny.components"] == "shown"
    assert ("loss", 0.2, 1700000010000, 10) in run.curves + run.metrics
    assert ("mean_iou", 0.6, 1700000300000, 300) in run.curves + run.metrics
    assert not [metric for metric in run.metrics if metric[0] == "iou/sky"]  # absent, and never a zero
    assert items["table:tiny/components"].tags["mlflow.note.content"].startswith("# Components")


def later(run, seconds):
    """Let a run's training have ended later."""
    with paths.history(run.name).open("a") as file:
        file.write(json.dumps({"iteration": 999, "loss": 0.1, "timestamp": 1700000300.0 + seconds}) + "\n")


def test_benchmarks_and_tables_last_as_long_as_their_runs_and_name_their_data(suite):
    later(suite.runs[1], 60)
    items = {item.identity: item for item in tracking.items(suite)}
    assert items["run:tiny/camvid/ga-seed0"].span_ms == (1700000010000, 1700000300000)
    for name in ("benchmark:tiny/camvid", "table:tiny/components"):
        assert items[name].span_ms == (1700000010000, 1700000360000)
    (data,) = {one for item in items.values() for one in item.datasets}
    assert (data.name, data.digest, data.source) == ("mini/camvid", 12 * "a", str(paths.manifest("mini", "camvid")))
    assert all(len(item.datasets) == 1 for item in items.values())


def test_every_score_that_there_is_is_shown_and_none_that_is_not(suite):
    run = suite.runs[0]
    scores = dict.fromkeys(SCORES) | {"mean_iou": 0.6, "trimap_mean_iou_3": 0.5}
    per_class = [{"name": "road", "iou": 0.7, "boundary_f_3": 0.2}, {"name": "sky (high)", "iou": None}]
    protocol = {"name": "slide", "text": "tiles of 96x96, overlap 1/3"}
    write_run(run, 0.6, scores=scores, per_class=per_class, protocol=protocol, parameters=1234567, gmacs=0.5)
    item = next(item for item in tracking.items(suite) if item.identity == f"run:{run.name}")
    shown = {name: value for name, value, _, _ in item.metrics}
    assert shown == {
        "mean_iou": 0.6, "trimap_mean_iou_3": 0.5, "iou/road": 0.7, "boundary_f_3/road": 0.2, "parameters": 1234567.0,
        "gmacs": 0.5,
    }  # fmt: skip
    assert {step for _, _, _, step in item.metrics} == {300}
    assert (item.tags["gald.protocol"], item.tags["gald.protocol.text"]) == ("slide", "tiles of 96x96, overlap 1/3")


def test_metrics_of_an_older_version_are_passed_over_and_not_misread(suite):
    path = paths.metrics(suite.runs[0].name)
    metrics = json.loads(path.read_text())
    write_json(path, {key: value for key, value in metrics.items() if key != "scores"})
    assert f"run:{suite.runs[0].name}" not in {item.identity for item in tracking.items(suite)}


def test_curves_are_thinned_and_keep_their_end(suite):
    run = suite.runs[0]
    line = {"loss": 1.0, "timestamp": 1.0}
    write_text(paths.history(run.name), "".join(json.dumps(line | {"iteration": i}) + "\n" for i in range(1, 1000)))
    item = next(item for item in tracking.items(suite) if item.identity == f"run:{run.name}")
    steps = [step for name, _, _, step in item.curves if name == "loss"]
    assert len(steps) <= tracking.STEPS
    assert steps[-1] == 999


def test_runs_without_or_with_stale_results_are_passed_over(suite):
    paths.metrics(suite.runs[0].name).unlink()
    record = paths.run_json(suite.runs[1].name)
    write_json(record, json.loads(record.read_text()) | {"iterations": 301})
    assert [item.identity for item in tracking.items(suite)] == ["table:tiny/components"]


@pytest.mark.parametrize("dead", ["http://127.0.0.1:9", "http://no-such-host.invalid", "sqlite:////dev/null/x.db"])
def test_a_store_that_is_not_there_costs_one_warning(suite, monkeypatch, caplog, dead):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="gald"):
        assert not tracking.track([suite])
    assert time.monotonic() - began < 180  # an unbounded client would wait four minutes
    assert [record.message for record in caplog.records if "`gald track` tries again" in record.message]
    assert len(caplog.records) == 1
    assert json.loads(paths.tracking_stamp("tiny").read_text()) == {"suite": "tiny", "reached": False}


@pytest.fixture
def silent_server():
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_a_server_that_never_answers_costs_seconds(suite, monkeypatch, silent_server):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    began = time.monotonic()
    assert not tracking.track([suite])
    assert time.monotonic() - began < 180


def test_the_store_follows_the_files_without_duplicates(suite, client, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "gald")
    assert tracking.track([suite])
    first = by_identity(client)
    with client() as opened:
        shown = opened.get_experiment_by_name("gald")
        assert "gald.protocol" in shown.tags["mlflow.note.content"]
        opened.set_experiment_tag(shown.experiment_id, "mlflow.note.content", "mine")
    address = f"http://127.0.0.1:5000/#/experiments/{shown.experiment_id}/runs?workflowType=machine_learning"
    assert f"shown by `mlflow ui` at {address}" in caplog.text
    assert len(first) == 4
    parent, run = first["benchmark:tiny/camvid"], first["run:tiny/camvid/ga-seed0"]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.metrics["mean_iou"] == 0.6
    assert run.data.params["train.max_iters"] == str(suite.runs[0].params.train.max_iters)
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (1700000010000, 1700000300000)
    with client() as opened:
        assert {file.path for file in opened.list_artifacts(run.info.run_id)} == {"metrics", "params.yaml", "run.json"}
        assert len(opened.get_metric_history(run.info.run_id, "loss")) == 30
    table = first["table:tiny/components"]
    assert table.data.metrics["mean_iou/camvid/ga"] == 0.6

    for entry in first.values():
        (shown,) = entry.inputs.dataset_inputs
        assert (shown.dataset.name, shown.dataset.digest) == ("mini/camvid", 12 * "a")
    assert (parent.info.start_time, parent.info.end_time) == (1700000010000, 1700000300000)

    later(suite.runs[1], 60)
    assert tracking.track([suite])  # nothing new but the benchmark's end: the very same entries
    assert by_identity(client)["benchmark:tiny/camvid"].info.end_time == 1700000360000
    ids = {identity: entry.info.run_id for identity, entry in first.items()}
    assert {identity: entry.info.run_id for identity, entry in by_identity(client).items()} == ids
    with client() as opened:
        assert opened.get_experiment_by_name("gald").tags["mlflow.note.content"] == "mine"

    write_run(suite.runs[0], 0.7, code="e" * 64)  # trained again: replaced, and nothing else
    assert tracking.track([suite])
    second = by_identity(client)
    assert second.keys() == first.keys()
    changed = {identity for identity, entry in second.items() if entry.info.run_id != ids[identity]}
    assert changed == {"run:tiny/camvid/ga-seed0"}
    assert second["run:tiny/camvid/ga-seed0"].data.metrics["mean_iou"] == 0.7

    with client() as opened:  # told by halves, as a kill would leave it
        opened.delete_tag(second["run:tiny/camvid/ga-ld-seed0"].info.run_id, "gald.state")
    assert tracking.track([suite])
    assert by_identity(client).keys() == first.keys()

    with (
        client() as opened
    ):  # as in a fresh clone, which has the tables and not the runs: nobody knows how long those took
        opened.delete_run(table.info.run_id)
    for run in suite.runs:
        paths.run_json(run.name).unlink()
    assert tracking.track([suite])
    entry = by_identity(client)["table:tiny/components"]
    assert (entry.info.status, entry.info.end_time) == ("FINISHED", None)


def test_a_store_without_pages_has_no_address():
    assert page_of("postgresql://me:secret@host/runs", "3") == ""


@pytest.mark.slow
def test_a_moved_repository_gets_a_new_experiment(suite, client, tmp_path, monkeypatch):
    command = [sys.executable, "-m", "gald.cli", "track", suite.name]  # a process each: one keeps its store open
    subprocess.run(command, check=True)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(elsewhere)
    monkeypatch.chdir(elsewhere)
    subprocess.run(command, check=True)
    for entry in by_identity(client).values():
        assert str(elsewhere) in entry.info.artifact_uri
