"""A training whose process is told to stop, or left alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gald
from gald import paths
from gald.errors import RunBusy
from gald.params import Run
from gald.process import locking
from tests.processes import wait_until
from tests.unit.train.stopped import CHILD, start

LONG = {"max_iters": 100_000, "checkpoint_every": 50_000}


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_ends_with_a_message(make_run: Callable[..., Run], number: signal.Signals) -> None:
    run = make_run(train=LONG)
    child = start(run)
    wait_until(lambda: (paths.checkpoint_dir(run.name) / "history.jsonl").exists())
    child.send_signal(number)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "TrainingInterrupted: stopped after iteration" in errors
    assert f"because it was sent {number.name}; the same command goes on" in errors
    assert len(list(paths.checkpoint_dir(run.name).glob("*.checkpoint"))) == 1
    assert not paths.run_json(run.name).exists()


@pytest.mark.slow
def test_an_orphan_saves_and_stops(make_run: Callable[..., Run]) -> None:
    run = make_run(train=LONG)
    # a parent like Snakemake, which starts the training and is killed
    waiting = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    environment = os.environ | {"PYTHONPATH": str(Path(gald.__file__).parents[1])}
    command = [sys.executable, "-c", CHILD, run.name, run.params.model_dump_json()]
    with Path("log").open("w") as log:
        parent = subprocess.Popen([sys.executable, "-c", waiting, *command], stderr=log, env=environment)
    kept = paths.checkpoint_dir(run.name)
    wait_until((kept / "history.jsonl").exists)
    with (
        pytest.raises(RunBusy, match=r"is busy: process \d+ on \S+ holds"),
        locking.held(run.name, wait_s=0),
    ):
        pass
    parent.kill()
    parent.wait()
    with locking.held(run.name, wait_s=120):  # free as soon as the orphan has ended
        assert len(list(kept.glob("*.checkpoint"))) == 1
    assert f"because the process that started it ({parent.pid}) is gone" in Path("log").read_text()
