"""The follower: what it makes of cards and histories, and of servers that are not there."""

import contextlib
import dataclasses
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from gald import paths
from gald.process import locking
from gald.tracking import _courtesy, _live, announced
from gald.tracking._curves import points, read_lines
from tests.processes import wait_until
from tests.unit.tables.conftest import write_run
from tests.unit.tracking.trainings import announce, training, write_line

START = announced._start_follower
WITHOUT_REST = """
from gald.commands.track import follow
from gald.tracking import _courtesy
_courtesy.Courtesy.due_s = lambda _: 0.0
follow()
"""


def test_the_command_ends_at_once_beside_another_follower(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths.STATE.mkdir()
    command = [sys.executable, "-m", "gald.cli", "track", "--follow"]
    with locking.held(announced.follower_lock(), wait_s=0):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        assert "another process follows" in done.stderr
        _live.follow()  # also if it comes between the look and the lock
    assert not paths.follow_log().exists()


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
        announced.tell_failure(run.name, "the loss is inf")
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
    assert [card.run for card in announced.cards()] == [run.name]  # for `gald track`


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


@pytest.mark.slow
def test_a_training_starts_a_follower_that_shows_it_and_ends(run, monkeypatch):
    monkeypatch.setattr(announced, "_start_follower", START)
    with training(run):
        announce(run)
        write_line(run, 10)
        log, deadline = paths.follow_log(), time.monotonic() + 600  # it rests beside busy cores
        while not locking.is_held(announced.follower_lock()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        holder = int(paths.lock(announced.follower_lock()).read_text().split()[1])
        assert os.getpriority(os.PRIO_PROCESS, holder) == 19
        assert os.getsid(holder) != os.getsid(0)
        while not shown(run):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
    while list(announced.cards()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    paths.STATE.rename("elsewhere")
    assert announced._started.pop().wait(60) == 0


def shown(run):
    """Whether the database has the run's first point; asked without MLflow, which would make the tables itself."""
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect("mlflow.db")) as database:
        return database.execute("select count(*) from metrics where key = 'loss' and step = 10").fetchone()[0] == 1
    return False
