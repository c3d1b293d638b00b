import contextlib
import dataclasses
import gc
import io
import json
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings

import pytest

from gald import follow, locking, paths, tracking
from gald.errors import TrainingDiverged, TrainingInterrupted
from gald.files import sha256, write_json, write_text
from gald.tables.run import build_table
from gald.tracking import _courtesy, _live, _store
from gald.tracking._curves import points, read_lines
from gald.tracking._store import Store
from gald.train import loop
from gald.train.run import train
from gald.train.voices import told_elsewhere
from tests.processes import wait_until
from tests.unit.tables.conftest import TABLE, write_params, write_run

IDENTITY = {"params": "p" * 64, "data": "a" * 64}
CODE = {"commit": "0123456789abcdef"}
START = follow._start_follower
OLD, NEW = "c" * 64, "d" * 64
WITHOUT_REST = """
from gald.commands.track import follow
from gald.tracking import _courtesy
_courtesy.Courtesy.due_s = lambda _: 0.0
follow()
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """Two runs without results, in an empty repository root; no training of theirs starts a follower by itself."""
    monkeypatch.chdir(tmp_path)
    # Absolute, since MLflow keeps one connection for each address and tests share the process.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv(follow.SWITCH, "1")
    monkeypatch.setattr(follow, "_start_follower", lambda: None)
    loaded = write_params(tmp_path, {"components": TABLE}, {"components": {"datasets": ["camvid"], "seeds": [0]}})
    return loaded


@pytest.fixture
def run(suite):
    return suite.runs[0]


def announce(run, codes=(OLD,)):
    follow.announce(run, {"params": run.digest(), "data": "a" * 64}, CODE, codes)
    return next(card for card in follow.cards() if card.run == run.name)


def write_line(run, iteration, **changes):
    line = {"iteration": iteration, "loss": 2.0 / iteration, "aux_loss": 0.0, "timestamp": time.time()} | changes
    path = paths.growing_history(run.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


@contextlib.contextmanager
def training(run):
    with locking.held(run.name, wait_s=0):
        yield


# What a training does about it: no MLflow, and next to no time.


@pytest.mark.parametrize("word", ["0", "off", "No", "false"])
def test_switched_off_nothing_is_left_and_nothing_started(run, monkeypatch, word):
    monkeypatch.setenv(follow.SWITCH, word)
    monkeypatch.setattr(follow, "_start_follower", pytest.fail)
    follow.announce(run, IDENTITY, CODE, [OLD])
    assert not paths.STATE.exists()


def test_a_card_says_who_trains_and_a_follower_is_started_once(run, monkeypatch):
    started = []
    monkeypatch.setattr(follow, "_start_follower", lambda: started.append(1))
    card = announce(run)
    assert (card.run, card.row, card.seed, card.commit) == (run.name, "ga", 0, "0123456789abcdef")
    assert card.values["model"]["aggregation"]["name"] == "cgnl"
    assert card.origin == follow.Origin(run.digest(), "a" * 64, (OLD,))
    with locking.held(follow.follower_lock(), wait_s=0):
        announce(run)
    assert started == [1]


def test_announcing_takes_next_to_no_time_and_costs_a_warning_at_worst(run, monkeypatch, caplog):
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        announce(run)
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.5  # disks may be slow; to import MLflow takes seconds
    shutil.rmtree(paths.STATE)
    write_text(paths.STATE, "not a folder")
    with caplog.at_level(logging.WARNING, logger="gald"):
        follow.announce(run, IDENTITY, CODE, [OLD])
    assert "not shown in the tracking store while it runs" in caplog.text


def test_a_card_is_withdrawn_unless_a_newer_one_lies_there(run):
    first = announce(run)
    second = announce(run)
    follow.withdraw(first)
    assert [card.began for card in follow.cards()] == [second.began]
    follow.withdraw(second)
    assert not list(follow.cards())
    write_text(paths.live_card(run.name), "{")  # cut short by a crash of the machine
    assert not list(follow.cards())


def test_the_command_ends_at_once_beside_another_follower(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths.STATE.mkdir()
    command = [sys.executable, "-m", "gald.cli", "track", "--follow"]
    with locking.held(follow.follower_lock(), wait_s=0):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        assert "another process follows" in done.stderr
        _live.follow()  # also if it comes between the look and the lock
    assert not paths.follow_log().exists()


def test_only_a_session_of_its_own_is_made_nicer(tmp_path):
    """The file of the kernel speaks for a whole session: a command typed at a terminal must not slow the terminal."""

    def said(code: str, own: bool) -> str:
        command = [sys.executable, "-c", f"{code}; print(open('/proc/self/autogroup').read())"]
        return subprocess.run(command, capture_output=True, text=True, start_new_session=own).stdout.strip()

    # Where the kernel has no such groups, was told to make no more, or takes no changes, there is nothing to see.
    before, fresh = (said("pass", own) for own in (False, True))
    changed = said("open('/proc/self/autogroup', 'w').write('19')", True)
    if not before or not fresh or before.split()[0] == fresh.split()[0] or not changed.endswith(" 19"):
        pytest.skip("this kernel does not group processes by session")
    time.sleep(0.2)  # the kernel takes ten changes a second at most
    code = "from gald import follow; follow.lower_priority()"
    assert said(code, own=True).split()[-1] == "19"
    assert said(code, own=False) == before


# What is read.


def test_a_last_line_cut_short_is_left_for_the_next_time(run):
    write_line(run, 10)
    path = paths.growing_history(run.name)
    with path.open("a") as file:
        file.write('{"iteration": 20, "loss": 1')
    assert [line["iteration"] for line in read_lines(path)] == [10]
    with path.open("a") as file:
        file.write('.5, "timestamp": 1.0}\n')
    assert [(name, value, step) for name, value, _, step in points(read_lines(path))][-1] == ("loss", 1.5, 20)
    with path.open("ab") as file:
        file.write(b"\xff\x00\xfe\n")  # of a crash
    assert [line["iteration"] for line in read_lines(path)] == [10, 20]
    assert read_lines(path.with_name("absent")) == []


def test_the_stage_is_read_from_lock_and_record(run):
    card = announce(run)
    assert _live.stage(card) == "KILLED"
    with training(run):
        assert _live.stage(card) == "RUNNING"
        write_run(run, 0.6)
        assert _live.stage(card) == "FINISHED"
        follow.tell_failure(run.name, "the loss is inf")
        assert _live.stage(card) == "FINISHED"
    other = dataclasses.replace(card.origin, data="b" * 64)
    assert _live.stage(dataclasses.replace(card, origin=other)) == "FAILED"
    announce(run)  # a later attempt, which died
    assert _live.stage(dataclasses.replace(card, origin=other)) == "KILLED"


def test_a_silent_training_of_another_machine_is_dead_after_a_while(run):
    paths.run_json(run.name).unlink(missing_ok=True)
    card = dataclasses.replace(announce(run), host="elsewhere")
    assert _live.stage(card) == "RUNNING"  # its lock may not be seen from here
    assert _live.stage(dataclasses.replace(card, began=time.time() - 3600)) == "KILLED"
    write_line(run, 10)
    assert _live.stage(dataclasses.replace(card, began=time.time() - 3600)) == "RUNNING"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TrainingDiverged("iteration 12: the loss is inf"), "iteration 12: the loss is inf"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
        (TrainingInterrupted("stopped after iteration 12, because it was sent SIGTERM"), None),
        (told_elsewhere(TrainingDiverged("process 1 says why")), None),
    ],
)
def test_a_training_leaves_word_of_its_failure_and_none_of_a_stop(make_run, monkeypatch, error, said):
    def fail(*_):
        raise error

    monkeypatch.setenv(follow.SWITCH, "1")
    monkeypatch.setattr(follow, "_start_follower", lambda: None)
    monkeypatch.setattr(loop, "train", fail)
    run = make_run()
    with pytest.raises(type(error)):
        train(run)
    (card,) = follow.cards()
    assert card.failed == said
    assert _live.stage(card) == ("KILLED" if said is None else "FAILED")
    follow.tell_failure("mini/camvid/unknown-seed0", "no card of it")
    assert len(list(follow.cards())) == 1


# A store that does not answer.


def follow_until(run, condition, **options):
    """Follow in a thread while `run` trains, until something has happened; the follower ends soon after that."""
    thread = threading.Thread(target=_live.follow, kwargs={"every_s": 0.1, "linger_s": 0.2} | options)
    with training(run):
        announce(run)
        write_line(run, 10)
        thread.start()
        wait_until(condition)
        assert thread.is_alive()
    thread.join(120)
    assert not thread.is_alive()


def test_a_dead_server_is_tried_ever_more_rarely_and_the_card_stays(run, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, logger="gald"):
        follow_until(run, lambda: len(caplog.records) >= 3)
    waits = [record.args[-1] for record in caplog.records]
    assert waits == pytest.approx([0.1 * 2**tries for tries in range(1, len(waits) + 1)])
    times = [record.created for record in caplog.records]
    assert all(later - earlier >= 0.9 * wait for earlier, later, wait in zip(times, times[1:], waits, strict=False))
    assert [card.run for card in follow.cards()] == [run.name]  # for `gald track`


def test_the_follower_rests_after_a_batch_that_was_in_the_way_and_not_beyond_the_training(run, monkeypatch):
    tried = []
    monkeypatch.setattr(_live._Follower, "_try", lambda _, cards: tried.append(_live.stage(cards[0])))
    monkeypatch.setattr(_courtesy.Courtesy, "due_s", lambda _: 60.0)
    follow_until(run, lambda: tried)
    assert tried[0] == "RUNNING"
    assert set(tried[1:]) == {"KILLED"}  # told of its end at once


def test_a_training_that_ends_during_a_batch_longer_than_the_follower_lingers_is_told_yet(run, monkeypatch):
    tried, ended = [], threading.Event()

    def try_slowly(_, cards):
        tried.append(_live.stage(cards[0]))
        if len(tried) == 1:
            ended.wait(60)
            time.sleep(0.3)

    monkeypatch.setattr(_live._Follower, "_try", try_slowly)
    thread = threading.Thread(target=_live.follow, kwargs={"every_s": 0.05, "linger_s": 0.2})
    with training(run):
        announce(run)
        thread.start()
        wait_until(lambda: tried)
    ended.set()
    thread.join(120)
    assert tried[:2] == ["RUNNING", "KILLED"]


def test_a_rest_is_a_hundred_times_what_was_taken_from_others(monkeypatch):
    looks = [
        (1.0, 0.0, 5),
        (1.1, 0.1, 9),  # alone on a core, but for the kernel itself
        (1.2, 9.0, 12),  # waited for an answer
        (1.3, 10.0, 23),
        (9.3, 90.0, 1022),
        (9.3, 91.0, 1022),
    ]
    looks = iter([_courtesy._Look(*look) for look in looks])
    monkeypatch.setattr(_courtesy.Courtesy, "_look", lambda _: next(looks))
    courtesy = _courtesy.Courtesy()
    assert [courtesy.due_s() for _ in range(5)] == [0.0, 0.0, pytest.approx(10.0), 60.0, 0.0]


def test_a_long_call_rests_again_and_again(monkeypatch):
    rests = []
    monkeypatch.setattr(_courtesy.Courtesy, "due_s", lambda _: rests.append(1) or 0.0)
    before = signal.getsignal(signal.SIGPROF)
    with _courtesy.resting():
        while len(rests) < 3:
            assert time.process_time() < 600
    assert signal.getsignal(signal.SIGPROF) is before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    elsewhere = threading.Thread(target=lambda: rests.clear() or _courtesy.resting().__enter__())
    elsewhere.start()
    elsewhere.join()
    assert not rests  # signals are the main thread's


@pytest.mark.parametrize("damage", ["{", "[]", "null", "3", '"text"', "{}"])
def test_a_damaged_card_is_passed_over(run, damage):
    card = announce(run)
    write_text(paths.live_card(run.name), damage)
    assert not list(follow.cards())
    follow.withdraw(card)
    assert paths.live_card(run.name).exists()


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


def test_the_follower_ends_when_its_folder_goes_away(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    thread = threading.Thread(target=_live.follow, kwargs={"every_s": 60.0, "linger_s": 60.0})
    with training(run):
        announce(run)
        thread.start()
        time.sleep(0.3)
        shutil.rmtree(paths.STATE)
        thread.join(120)
    assert not thread.is_alive()
    assert not paths.STATE.exists()


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["", "HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\n\r\n"])
def test_a_silent_or_full_server_is_waited_for_with_bounds(run, tmp_path, answer):
    """A process of its own, since MLflow reads its bounds when it is imported."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if answer:
            threading.Thread(target=refuse, args=(server, answer.encode()), daemon=True).start()
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with training(run):
            announce(run)
            write_line(run, 10)
            follower = subprocess.Popen(
                [sys.executable, "-c", WITHOUT_REST],
                env=os.environ | {"MLFLOW_TRACKING_URI": uri},
                stderr=subprocess.DEVNULL,
            )
            log = paths.follow_log()
            wait_until(lambda: log.exists() and "next try" in log.read_text(), seconds=600)
        paths.STATE.rename("elsewhere")
        assert follower.wait(120) == 0


def refuse(server, answer):
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)


# The store itself.


@contextlib.contextmanager
def store():
    """The store in the current folder; MLflow's own warnings and open connections stay out of the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Store(tracking.store_uri())
        gc.collect()


def curve(opened, entry, name="loss"):
    found = opened._client.get_metric_history(entry.info.run_id, name)
    return sorted((point.step, point.value) for point in found)


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
        assert not list(follow.cards())

        with training(run):  # starts again, and says what it fails with
            again = _live.Told(opened, announce(run))
            again.tell()
            assert "gald.interrupted" not in opened.find(identity).data.tags
            follow.tell_failure(run.name, "iteration 31: the loss is inf" + 9000 * "!")
        assert again.tell() == "FAILED"
        failed = opened.find(identity)
        assert (failed.info.status, failed.info.run_id) == ("FAILED", first.info.run_id)
        assert failed.data.tags["gald.failed"].startswith("iteration 31: the loss is inf!!")
        assert "gald.interrupted" not in failed.data.tags
        assert not list(follow.cards())

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
        follow.withdraw(card)  # the second one's: its entry alone tells that it ran
    assert tracking.track([suite])
    with store() as opened:
        for run in suite.runs:
            assert opened.find(f"run:{run.name}").info.status == "KILLED"
    assert not list(follow.cards())

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


@pytest.mark.slow
def test_a_training_starts_a_follower_that_shows_it_and_ends(run, monkeypatch):
    monkeypatch.setattr(follow, "_start_follower", START)
    with training(run):
        announce(run)
        write_line(run, 10)
        log, deadline = paths.follow_log(), time.monotonic() + 600  # it rests beside busy cores
        while not locking.is_held(follow.follower_lock()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        holder = int(paths.lock(follow.follower_lock()).read_text().split()[1])
        assert os.getpriority(os.PRIO_PROCESS, holder) == 19
        assert os.getsid(holder) != os.getsid(0)
        while not shown(run):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
    while list(follow.cards()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    paths.STATE.rename("elsewhere")
    assert follow._started.pop().wait(60) == 0


def shown(run):
    """Whether the database has the run's first point; asked without MLflow, which would make the tables itself."""
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect("mlflow.db")) as database:
        return database.execute("select count(*) from metrics where key = 'loss' and step = 10").fetchone()[0] == 1
    return False
