"""The share of the time that a training waits for images."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gald import paths
from gald.params import Run
from gald.prepare.pack import pack
from gald.train import checkpoint, history, loop, trial
from gald.train import run as train_run
from gald.train.interval import Interval, IterationLosses
from gald.train.loader import CachedSamples
from gald.train.parallel import World
from gald.train.run import train


def test_the_time_of_a_checkpoint_is_no_wait_for_data(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that a look moves by a second, and a checkpoint by an hour."""

    def look() -> float:
        clock[0] += 1
        return clock[0]

    def save(*given: Any) -> None:
        clock[0] += 3600
        real(*given)

    clock, real = [0.0], checkpoint.save
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=look))
    monkeypatch.setattr(checkpoint, "save", save)
    run = make_run(train={"checkpoint_every": 2, "max_iters": 9, "log_every": 3})
    train(run)
    lines = history.read(paths.history(run.name))
    assert [line["data_wait"] for line in lines] == [0.5, 0.5, 0.5]
    assert [line["images_per_second"] for line in lines] == [2.0, 2.0, 2.0]


class SlowSamples(CachedSamples):
    """Samples that take a second of a clock each."""

    def __getitem__(self, index: int, /) -> Any:
        CLOCK[0] += 1
        return super().__getitem__(index)


CLOCK = [0.0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that reading samples moves, by four seconds an iteration, and computing, by one."""

    def compute(*given: Any) -> Any:
        CLOCK[0] += 1
        return real(*given)

    CLOCK[0] = 0.0
    real = loop.train_one_iteration
    monkeypatch.setattr(loop, "train_one_iteration", compute)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: CLOCK[0]))
    monkeypatch.setattr(train_run, "time", SimpleNamespace(monotonic=lambda: CLOCK[0]))
    for module in (train_run, trial):
        monkeypatch.setattr(module, "CachedSamples", SlowSamples)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("store", "iterations", "told"),
    [
        ("files", 4, ""),  # twenty seconds, in which no training has settled
        ("files", 5, "80 % of the time goes by in waiting for images; run `gald pack mini/camvid`, or raise train.w"),
        ("auto", 5, "80 % of the time goes by in waiting for images; raise train.workers (now 0)"),
    ],
)
def test_who_waits_for_images_is_told_once_what_to_change(
    store: Any, iterations: int, told: str, make_run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    if store == "auto":
        pack("mini", "camvid")
    run = make_run(train={"max_iters": iterations + 3 * bool(told), "log_every": 1})
    train(run, store=store)
    assert [line["data_wait"] for line in history.read(paths.history(run.name))][:3] == [0.8, 0.8, 0.8]
    found = [message for message in caplog.messages if "waiting for images" in message]
    assert [message.startswith(f"{run.name}: {told}") for message in found] == ([True] if told else [])


@pytest.mark.usefixtures("clock")
def test_trials_tell_it_too(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    advice = "80 % of the time goes by in waiting for images; run `gald pack mini/camvid`, or raise train.workers"
    run = make_run(train={"log_every": 2})
    assert advice in trial.limited(run, 4)
    assert advice in trial.overfit(run, 4, 4)
    monkeypatch.setattr(trial, "CachedSamples", CachedSamples)
    assert "waiting for images" not in trial.limited(run, 4)


class TwoThatWait(World):
    """A process whose fellow waits more."""

    def total(self, tensor: Any) -> Any:
        return 2 * tensor

    def largest(self, value: float) -> float:
        return max(value, 0.75)


def test_the_share_of_waiting_is_that_of_whoever_waits_most() -> None:
    losses = IterationLosses(1.0, 1.0, 0.0, 1.0)
    for world, share in ((World(0, 1, torch.device("cpu")), 0.25), (TwoThatWait(0, 2, torch.device("cpu")), 0.75)):
        interval = Interval()
        interval.add(losses, 2.0, 0.5)
        assert interval.line(1, 0.1, 4, world)["data_wait"] == share
