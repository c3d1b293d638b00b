"""Several processes learn what one does."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gald
from gald import paths
from gald.datasets._reader import PreparedSplit
from gald.params import Run
from gald.train import history
from gald.train.parallel import World
from gald.train.run import train
from gald.train.validation import Validation
from tests.unit.train.jobs import (
    BREAKABLE,
    LOSS,
    NO_DROPOUT,
    RECIPE,
    THREE,
    Job,
    assert_close,
    changes,
    checkpoints,
    digest,
    lines,
    record,
    tensors,
)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(make_run: Callable[..., Run], start: Callable[..., Job]) -> None:
    def variants(prefix: str) -> list[Run]:
        validated = {"validation": {"every": 5, "split": "test", "samples": None, "patience": None}}
        changes: list[dict[str, Any]] = [
            {"train": RECIPE, "model": NO_DROPOUT},
            {"train": {**RECIPE, "micro_batches": 2, "clip_gradient_norm": 1.0}, "model": NO_DROPOUT},
            {"train": {**RECIPE, **validated, "average_decay": 0.9}, "model": NO_DROPOUT},
        ]
        return [make_run(f"mini/camvid/{prefix}{index}-seed0", **change) for index, change in enumerate(changes)]

    shared, alone = variants("shared"), variants("alone")
    again = make_run("mini/camvid/again-seed0", train=RECIPE, model=NO_DROPOUT)
    local = {
        **RECIPE,
        "batch_norm": "local",
        "validation": {"every": 10, "split": "test", "samples": 5, "patience": None},
    }
    norms = make_run("mini/camvid/norms-seed0", train=local)
    job = start(*shared, again, norms)
    for run in alone:
        train(run)
    log = job.end()
    assert job.agent.returncode == 0, log
    for ours, theirs in zip(shared, alone, strict=True):
        assert_close(ours, theirs)
        assert record(ours)["environment"]["processes"] == 2
    assert digest(again) == digest(shared[0])
    assert lines(again) == lines(shared[0])
    assert "(2 x 1 x 2: devices, samples, micro-batches)" in log
    assert log.count("training 10 iterations") == len(shared) + 2, "only one process speaks"
    split, alone_now = PreparedSplit(paths.prepared("mini", "camvid"), ["test"]), World(0, 1, torch.device("cpu"))
    validation = Validation(norms, split, Path("best"), alone_now)
    state: Any = SimpleNamespace(model=gald.load(paths.weights(norms.name)), average=None, best=None, iteration=10)
    assert validation.score(state)["validation_mean_iou"] == lines(norms)[-1]["validation_mean_iou"]


@pytest.mark.slow
def test_another_number_of_processes_goes_on_and_two_machines_do(
    make_run: Callable[..., Run], start: Callable[..., Job]
) -> None:
    run = make_run(train=BREAKABLE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={address}", "--rdzv-id=test", "--max-restarts=1")
    machines = [start(run, processes=1, options=options, log=f"log{index}") for index in range(2)]
    machines[0].wait_for(lambda: checkpoints(run))
    for machine in machines:
        machine.agent.send_signal(signal.SIGTERM)
    logs = [machine.end() for machine in machines]
    assert sum(log.count("the same command goes on") for log in logs) == 1  # of the first process, wherever it is
    stopped = checkpoints(run)[-1]
    assert 0 < stopped < 60
    train(run)
    assert record(run)["determinism"] == "seeded"
    (origin,) = record(run)["resumed_from"]
    assert (origin["environment"]["processes"], record(run)["environment"]["processes"]) == (2, 1)
    assert changes(origin["recipe"], record(run)["recipe"]) == {
        "global batch": ("4 (2 x 2 x 1: devices, samples, micro-batches)", "4"),
        "batch norm sees": ("2 samples", "4 samples"),
    }
    assert lines(run)[-1]["iteration"] == 60


SLOW_READER = """
import os, time
if os.environ.get("RANK") == "1":
    from gald.train.loader import CachedSamples
    read = CachedSamples.__getitem__
    def slowly(samples, index):
        time.sleep(0.1)
        return read(samples, index)
    CachedSamples.__getitem__ = slowly
"""


@pytest.mark.slow
def test_processes_stop_early_together_and_tell_of_the_one_that_waits(
    make_run: Callable[..., Run], start: Callable[..., Job]
) -> None:
    """At a rate at which nothing is learnt, so that no validation is better than the first one."""
    patience = {"every": 2, "split": "test", "samples": 4, "patience": 2}
    run = make_run(train={**RECIPE, "learning_rate": 1e-12, "log_every": 2, "validation": patience}, model=NO_DROPOUT)
    Path("sitecustomize.py").write_text(SLOW_READER)
    job = start(run)
    log = job.end(100)
    assert job.agent.returncode == 0, log
    assert (record(run)["iterations"], record(run)["stopped_early"]) == (6, True)
    assert record(run)["best"]["iteration"] == 2
    assert [line["iteration"] for line in lines(run)] == [2, 4, 6]
    assert min(line["data_wait"] for line in history.read(paths.history(run.name))) > 0.5, "of process 1, which waits"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_synchronised_norms_on_two_gpus_see_what_one_sees(
    make_run: Callable[..., Run], start: Callable[..., Job]
) -> None:
    recipe = {**RECIPE, "batch_norm": "sync", "device": "cuda", "determinism": "seeded"}
    shared, alone = (make_run(f"mini/camvid/{name}-seed0", train=recipe, model=NO_DROPOUT) for name in "ab")
    job = start(shared)
    log = job.end()
    assert job.agent.returncode == 0, log
    train(alone)
    for line, other in zip(lines(shared), lines(alone), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-3)


@pytest.mark.slow
def test_three_processes_learn_what_one_does_and_one_of_them_speaks(
    make_run: Callable[..., Run], start: Callable[..., Job]
) -> None:
    ohem = {"loss": {**LOSS, "name": "ohem", "threshold": 0.05, "min_kept": 500}}
    shared, mined = (
        make_run(f"mini/camvid/{name}-seed0", train=THREE | change, model=NO_DROPOUT)
        for name, change in (("shared", {}), ("mined", ohem))
    )
    alone, once = (
        make_run(f"mini/camvid/{name}-seed0", train=THREE | change, model=NO_DROPOUT)
        for name, change in (("alone", {}), ("once", ohem))
    )
    job = start(shared, mined, processes=3)
    for run in (alone, once):
        train(run)
    log = job.end()
    assert job.agent.returncode == 0, log
    assert_close(shared, alone)
    assert record(shared)["environment"]["processes"] == 3
    for line in ("images are decoded while training", "training 10 iterations", "batches of 6 (3 x 2 x 1"):
        assert log.count(line) == 2, log  # once for each run
    assert "process 1" not in log
    loss = {line["what"]: line["effective"] for line in record(mined)["recipe"]}["loss"]
    assert loss == "OHEM, threshold 0.05, at least 167 pixels of the 2 samples that a device sees at once"
    # 167 of two samples by each device are another choice than 500 of all six
    assert lines(mined)[0]["main_loss"] != pytest.approx(lines(once)[0]["main_loss"], rel=1e-3)
    assert tensors(mined).keys() == tensors(once).keys()
