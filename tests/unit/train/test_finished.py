"""A training that has ended is left alone, and nothing that is met afterwards makes it fail."""

import re
import threading
import time
from collections.abc import Callable

import pytest

from gald import paths
from gald.params import Run
from gald.process import locking
from gald.train.publish import publish
from gald.train.run import train


def test_who_waited_for_a_training_to_end_does_not_make_it_again(
    make_run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does who comes after a kill between the last result and the removal of the state; that is removed then."""
    run = make_run()
    kept = paths.checkpoint_dir(run.name)
    train(run)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths.run_dir(run.name).iterdir()}
    kept.mkdir()
    (kept / "history.jsonl").write_text("")
    caplog.set_level("INFO", "gald")
    second = threading.Thread(target=train, args=(run,))
    with locking.held(run.name, wait_s=0):
        second.start()
        time.sleep(0.2)
    second.join()
    assert "none-seed0: trained already" in caplog.text
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert not kept.exists()


def test_what_lies_in_the_checkpoint_folder_costs_no_finished_training(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(train={"max_iters": 4, "warmup_iters": 0})
    copies = paths.checkpoint_dir(run.name) / "copies"
    monkeypatch.setattr("gald.train.run.publish", lambda *given: (copies.mkdir(parents=True), publish(*given)))
    train(run)
    assert paths.run_json(run.name).exists()
    assert list(copies.parent.iterdir()) == [copies]
    assert re.search(r"has ended, but not all of .*: \S+copies is a folder that no training made", caplog.text)
