"""What the store shows of a training, from its first interval to its scores."""

import dataclasses
import io
import json

import pytest

from gald import paths, tracking
from gald.files import sha256, write_json, write_text
from gald.tables.run import build_table
from gald.tracking import _live, _store, announced
from gald.tracking._curves import read_lines
from tests.unit.tables.conftest import TABLE, write_params, write_run
from tests.unit.tracking.trainings import NEW, OLD, announce, curve, store, training, write_line


@pytest.mark.parametrize(
    ("uri", "local", "port"),
    [
        ("sqlite:///mlflow.db", True, None),
        ("file:///tmp/mlruns", True, None),
        ("mlruns", True, None),
        ("http://shared", False, 80),
        ("https://shared", False, 443),
        ("http://shared:5000", False, 5000),
        ("postgresql://user:word@shared/mlflow", False, None),  # its own port is the driver's business
        ("postgresql://user:word@shared:5432/mlflow", False, 5432),
        ("databricks://profile", False, None),
    ],
)
def test_what_others_may_share_is_not_taken_for_a_file_of_ours(monkeypatch, uri, local, port):
    asked = []
    monkeypatch.setattr(_store.socket, "create_connection", lambda at, **_: asked.append(at) or io.BytesIO())
    _store.check_server(uri)
    assert _store.is_local(uri) is local
    assert asked == ([] if port is None else [("shared", port)])


@pytest.mark.slow
def test_one_entry_from_the_first_interval_through_a_restart_to_the_scores(suite, run):
    identity = f"run:{run.name}"
    with store() as opened:
        with training(run):
            told = _live.Told(opened, announce(run))
            write_line(run, 10, validation={"mean_iou": 0.25})
            assert told.tell() == "RUNNING"
            first = opened.find(identity)
            assert first.info.status == "RUNNING"
            parent = opened.find("benchmark:tiny/camvid")
            assert first.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert parent.info.end_time is None  # nobody knows yet how long its runs take
            for entry in (first, parent):
                assert [one.dataset.name for one in entry.inputs.dataset_inputs] == ["mini/camvid"]
            assert first.data.params["model.aggregation.name"] == "cgnl"
            assert first.data.metrics == {"loss": 0.2, "aux_loss": 0.0, "validation/mean_iou": 0.25}
            write_line(run, 20)
            write_line(run, 30)
            told.tell()
            assert curve(opened, first) == [(10, 0.2), (20, 0.1), (30, 2 / 30)]
        assert told.tell() == "KILLED"  # the process is gone
        dead = opened.find(identity)
        assert (dead.info.status, dead.info.run_id) == ("KILLED", first.info.run_id)
        assert dead.data.tags["gald.interrupted"].startswith("at iteration 30 of ")
        assert not list(announced.cards())

        with training(run):  # starts again, and says what it fails with
            again = _live.Told(opened, announce(run))
            again.tell()
            assert "gald.interrupted" not in opened.find(identity).data.tags
            announced.tell_failure(run.name, "iteration 31: the loss is inf" + 9000 * "!")
        assert again.tell() == "FAILED"
        failed = opened.find(identity)
        assert (failed.info.status, failed.info.run_id) == ("FAILED", first.info.run_id)
        assert failed.data.tags["gald.failed"].startswith("iteration 31: the loss is inf!!")
        assert "gald.interrupted" not in failed.data.tags
        assert not list(announced.cards())

        with training(run):  # goes on from iteration 10, with other code, another loader and new times
            lines = read_lines(paths.growing_history(run.name))
            write_text(paths.growing_history(run.name), json.dumps(lines[0]) + "\n")
            params = run.params.model_copy(update={"train": run.params.train.model_copy(update={"workers": 7})})
            told = _live.Told(opened, announce(dataclasses.replace(run, params=params), codes=(OLD, NEW)))
            for iteration in (20, 30, 40):
                write_line(run, iteration)
            told.tell()
            again = opened.find(identity)
            assert (again.info.status, again.info.run_id) == ("RUNNING", first.info.run_id)
            assert "gald.failed" not in again.data.tags
            assert [step for step, _ in curve(opened, again)] == [10, 20, 30, 40]  # no step twice

            write_run(run, 0.6, code=NEW)  # with another history, whose later part was never told
            record = json.loads(paths.run_json(run.name).read_text())
            write_json(paths.run_json(run.name), record | {"resumed_from": [{"code": OLD}]})
            assert told.tell() == "FINISHED"
        assert opened.find(identity).info.status == "FINISHED"
        write_metrics(run)
        item = next(item for item in tracking.items(suite) if item.identity == identity)
        assert opened.show(item)
        assert _live.Told(opened, told.card).tell() == "FINISHED"  # its card was left by a kill: nothing to tell
        whole = opened.find(identity)
        assert (whole.info.status, whole.info.run_id) == ("FINISHED", first.info.run_id)
        assert whole.data.metrics["mean_iou"] == 0.6
        assert len(whole.inputs.dataset_inputs) == 1
        steps = [step for step, _ in curve(opened, whole)]
        assert len(steps) == len(set(steps))
        assert steps[-1] == 300
        assert not opened.show(item)

        with training(run):  # trained again from the start: another curve, so another entry
            paths.run_json(run.name).unlink()
            paths.growing_history(run.name).unlink()
            _live.Told(opened, announce(run, codes=(NEW,))).tell()
            assert opened.find(identity).info.run_id != first.info.run_id


@pytest.mark.slow
def test_trained_again_before_its_scores_were_shown_it_is_another_curve(suite, run):
    identity = f"run:{run.name}"
    with store() as opened:
        with training(run):
            told = _live.Told(opened, announce(run))
            write_line(run, 10)
            told.tell()
            write_run(run, 0.6, code=OLD)
            assert told.tell() == "FINISHED"
        first = opened.find(identity)
        with training(run):  # forced, with the same params, data and code
            paths.run_json(run.name).unlink()
            paths.growing_history(run.name).unlink()
            told = _live.Told(opened, announce(run))
            write_line(run, 10, loss=7.0)
            told.tell()
            second = opened.find(identity)
            assert second.info.run_id != first.info.run_id
            assert curve(opened, second) == [(10, 7.0)]
            told.tell()
            assert opened.find(identity).info.run_id == second.info.run_id


@pytest.mark.slow
def test_a_server_s_entries_of_other_clones_are_left_alone(run, tmp_path, monkeypatch):
    identity = f"run:{run.name}"
    with store() as opened:
        theirs = opened.create(identity, run.name, 1000, {})
        opened.local = False
        assert opened.find(identity).info.run_id == theirs.info.run_id
        elsewhere = tmp_path / "clone"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        paths.STATE.mkdir()
        assert opened.find(identity) is None
        assert opened.entries() == {}
        assert _live.close_dead(opened) == 0
        with training(run):
            _live.Told(opened, announce(run)).tell()
            assert opened.find(identity).info.run_id != theirs.info.run_id
        monkeypatch.chdir(tmp_path)
        assert opened.find(identity).info.run_id == theirs.info.run_id
        assert opened.find(identity).info.status == "RUNNING"


def write_metrics(run):
    """Let the metrics belong to the run.json that lies there."""
    metrics = json.loads(paths.metrics(run.name).read_text())
    write_json(paths.metrics(run.name), metrics | {"run_sha256": sha256(paths.run_json(run.name))})


@pytest.mark.slow
def test_track_closes_the_dead_and_puts_away_what_params_no_longer_list(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(_live, "_SILENT_S", 0.0)
    with store() as opened:
        for run in suite.runs:
            with training(run):
                card = announce(run)
                write_line(run, 10)
                _live.Told(opened, card).tell()
        announced.withdraw(card)  # the second one's: its entry alone tells that it ran
    assert tracking.track([suite])
    with store() as opened:
        for run in suite.runs:
            assert opened.find(f"run:{run.name}").info.status == "KILLED"
    assert not list(announced.cards())

    for run in suite.runs:
        write_run(run, 0.6)
    build_table(suite, "components")
    assert tracking.track([suite])
    left = {key: value for key, value in TABLE.items() if key not in ("main", "labels")}
    left["rows"] = {"ga": TABLE["rows"]["ga"]}
    smaller = write_params(tmp_path, {"components": left}, {"components": {"datasets": ["camvid"], "seeds": [0]}})
    assert tracking.track([smaller])
    with store() as opened:
        shown = opened.entries()
    assert set(shown) == {"benchmark:tiny/camvid", "run:tiny/camvid/ga-seed0", "table:tiny/components"}
