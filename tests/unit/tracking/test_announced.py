"""What a training does to be shown: no MLflow, and next to no time."""

import logging
import shutil
import subprocess
import sys
import time

import pytest

from gald import paths
from gald.errors import TrainingDiverged, TrainingInterrupted
from gald.files import write_text
from gald.process import locking
from gald.tracking import _live, announced
from gald.train import loop
from gald.train.run import train
from gald.train.voices import told_elsewhere
from tests.unit.tracking.trainings import CODE, IDENTITY, OLD, announce


@pytest.mark.parametrize("word", ["0", "off", "No", "false"])
def test_switched_off_nothing_is_left_and_nothing_started(run, monkeypatch, word):
    monkeypatch.setenv(announced.SWITCH, word)
    monkeypatch.setattr(announced, "_start_follower", pytest.fail)
    announced.announce(run, IDENTITY, CODE, [OLD])
    assert not paths.STATE.exists()


def test_a_card_says_who_trains_and_a_follower_is_started_once(run, monkeypatch):
    started = []
    monkeypatch.setattr(announced, "_start_follower", lambda: started.append(1))
    card = announce(run)
    assert (card.run, card.row, card.seed, card.commit) == (run.name, "ga", 0, "0123456789abcdef")
    assert card.values["model"]["aggregation"]["name"] == "cgnl"
    assert card.origin == announced.Origin(run.digest(), "a" * 64, (OLD,))
    with locking.held(announced.follower_lock(), wait_s=0):
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
        announced.announce(run, IDENTITY, CODE, [OLD])
    assert "not shown in the tracking store while it runs" in caplog.text


def test_a_card_is_withdrawn_unless_a_newer_one_lies_there(run):
    first = announce(run)
    second = announce(run)
    announced.withdraw(first)
    assert [card.began for card in announced.cards()] == [second.began]
    announced.withdraw(second)
    assert not list(announced.cards())
    write_text(paths.live_card(run.name), "{")  # cut short by a crash of the machine
    assert not list(announced.cards())


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
    code = "from gald.tracking.announced import lower_priority; lower_priority()"
    assert said(code, own=True).split()[-1] == "19"
    assert said(code, own=False) == before


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

    monkeypatch.setenv(announced.SWITCH, "1")
    monkeypatch.setattr(announced, "_start_follower", lambda: None)
    monkeypatch.setattr(loop, "train", fail)
    run = make_run()
    with pytest.raises(type(error)):
        train(run)
    (card,) = announced.cards()
    assert card.failed == said
    assert _live.stage(card) == ("KILLED" if said is None else "FAILED")
    announced.tell_failure("mini/camvid/unknown-seed0", "no card of it")
    assert len(list(announced.cards())) == 1


@pytest.mark.parametrize("damage", ["{", "[]", "null", "3", '"text"', "{}"])
def test_a_damaged_card_is_passed_over(run, damage):
    card = announce(run)
    write_text(paths.live_card(run.name), damage)
    assert not list(announced.cards())
    announced.withdraw(card)
    assert paths.live_card(run.name).exists()
