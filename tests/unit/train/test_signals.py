"""A signal at any moment leaves a state that the same command goes on from, bit for bit."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from gald import paths
from gald.errors import TrainingInterrupted
from gald.params import Run
from gald.process import locking
from gald.train import checkpoint, loop
from gald.train import run as train_run
from gald.train import start as start_of
from gald.train import task as task_module
from gald.train.run import train
from gald.train.validation import Validation
from tests.unit.train.stopped import outcome

VALIDATED = {"validation": {"every": 4, "split": "test", "samples": 1, "patience": None}, "max_iters": 16}


def at_call(count: int, real: Callable[..., Any], number: signal.Signals) -> Callable[..., Any]:
    """Let this process be sent a signal when `real` is called for the count-th time."""
    calls: list[int] = []

    def called(*given: Any, **options: Any) -> Any:
        calls.append(0)
        if len(calls) == count:
            os.kill(os.getpid(), number)
        return real(*given, **options)

    return called


MOMENTS: dict[str, tuple[Any, str, int]] = {
    "setting up": (train_run, "task_of", 1),
    "building the network": (start_of, "build_segmentor", 1),
    "reading a checkpoint": (checkpoint, "load", 1),
    "an iteration": (loop, "train_one_iteration", 6),
    "validation": (Validation, "of", 2),
    "the write of a checkpoint": (checkpoint.files, "write_bytes", 4),
}


QUICK = ("an iteration", "the write of a checkpoint")


@pytest.mark.parametrize(
    "moment", [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in MOMENTS]
)
def test_a_signal_at_any_moment_changes_no_bit(
    moment: str, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And another number of loader threads goes on, as after a requeue."""
    number = signal.SIGUSR1 if len(moment) % 2 else signal.SIGTERM
    unbroken, broken = (make_run(f"mini/camvid/none-seed{index}", train=VALIDATED) for index in (0, 1))
    train(unbroken)
    where, name, count = MOMENTS[moment]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, at_call(count, getattr(where, name), number))
        with pytest.raises(TrainingInterrupted, match=f"was sent {number.name}; the same command goes on"):
            train(broken)
    assert not paths.run_json(broken.name).exists()
    assert not list(paths.checkpoint_dir(broken.name).glob(".*"))
    train(make_run(broken.name, train={**VALIDATED, "workers": 2}))
    assert outcome(broken)[0] == outcome(unbroken)[0]
    assert outcome(broken)[2:] == outcome(unbroken)[2:]


def test_waiting_for_a_store_can_be_stopped(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module.time, "sleep", at_call(2, lambda _: None, signal.SIGTERM))
    with (
        locking.held("pack/mini/camvid", wait_s=0),
        pytest.raises(TrainingInterrupted, match="before the first iteration, because it was sent SIGTERM"),
    ):
        train(make_run())


def test_waiting_for_the_others_can_be_stopped(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal while processes find each other is kept until the training asks."""
    monkeypatch.setattr(train_run, "joined", at_call(1, train_run.joined, signal.SIGUSR1))
    with pytest.raises(TrainingInterrupted, match="because it was sent SIGUSR1"):
        train(make_run())
