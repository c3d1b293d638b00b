"""A process that dies or fails: what the others do, and what is said."""

import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gald import paths
from gald.errors import RunBusy
from gald.params import Run
from gald.process import locking
from tests.unit.train.jobs import BREAKABLE, ENDLESS, THREE, Job, checkpoints, digest, lines, record, stops, told


def assert_unbroken(broken: Run, unbroken: Run) -> None:
    assert digest(broken) == digest(unbroken)
    for line, other in zip(lines(broken), lines(unbroken), strict=True):
        assert line == pytest.approx(other, rel=1e-12)  # sums over processes are added up in another order
    assert not paths.checkpoint_dir(broken.name).exists()


@pytest.mark.slow
def test_a_job_goes_on_after_a_signal_and_after_the_death_of_a_process(
    make_run: Callable[..., Run], start: Callable[..., Job]
) -> None:
    names = ["unbroken", "signalled", "killed"]
    unbroken, signalled, killed = (make_run(f"mini/camvid/{name}-seed0", train=BREAKABLE) for name in names)
    job = start(unbroken)
    assert "rank 0 ends with 0" in job.end()

    job = start(signalled)
    job.wait_for(lambda: checkpoints(signalled))
    os.kill(job.workers()[1], signal.SIGTERM)
    log = job.end()
    assert job.agent.returncode != 0
    assert not paths.run_json(signalled.name).exists()
    assert told(log) == [f"process 0 of 2: gald train: {line}" for line in stops(log)], log
    assert "because of process 1: it was sent SIGTERM; the same command goes on" in log
    stopped = int(re.findall(r"stopped after iteration (\d+) of 60", log)[0])
    assert checkpoints(signalled)[-1] == stopped
    assert "ends with 75" in log
    job = start(signalled)
    log = job.end()
    assert f"going on from iteration {stopped} of 60" in log
    assert_unbroken(signalled, unbroken)

    job = start(killed, options=("--standalone", "--max-restarts=1"))
    job.wait_for(lambda: checkpoints(killed))
    os.kill(job.workers()[1], signal.SIGKILL)
    log = job.end()
    assert job.agent.returncode == 0, log
    assert "going on from iteration" in log
    assert_unbroken(killed, unbroken)


@pytest.mark.slow
def test_a_process_that_fails_takes_the_others_down_and_its_message_is_the_only_one(
    make_run: Callable[..., Run], start: Callable[..., Job], prepared: Path
) -> None:
    run = make_run(train=ENDLESS)
    job = start(run)
    job.wait_for(lambda: checkpoints(run))
    with pytest.raises(RunBusy, match="is busy"), locking.held(run.name, wait_s=0):
        pass
    os.kill(job.agent.pid, signal.SIGTERM)
    assert "because it was sent SIGTERM; the same command goes on" in job.end()
    stopped = checkpoints(run)[-1]
    assert job.workers_left() == []

    damaged = prepared / "images/train/scene03.png"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:200])
    job = start(run)
    job.wait_for(lambda: "going on from iteration" in job.log.read_text())
    log = job.end()
    assert job.agent.returncode != 0
    reasons = [line for line in told(log) if "another process is gone" not in line]
    assert reasons
    assert all(re.match(r"process \d of 2: gald train: sample train/scene03: ", line) for line in reasons)
    assert len(reasons) <= 2  # a batch over the end of an epoch may hold the sample twice
    assert len(told(log)) <= len(reasons) + 1
    assert not re.search(r"File .*gald/train", log)  # no traceback but the agent's own
    assert checkpoints(run)[-1] >= stopped
    assert not paths.run_json(run.name).exists()


@pytest.mark.slow
def test_where_one_of_two_machines_is_lost_the_other_goes_on(
    make_run: Callable[..., Run], start: Callable[..., Job]
) -> None:
    """Killed whole: neither its agent nor its process says a word."""
    run = make_run(train={**BREAKABLE, "max_iters": 300})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    waits = "last_call_timeout=15,keep_alive_interval=1,keep_alive_max_attempt=3"  # minutes in all by default
    options = ("--nnodes=1:2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test",
               f"--rdzv-conf={waits}", "--max-restarts=3")  # fmt: skip
    survivor = start(run, processes=1, options=options, log="log0")
    survivor.wait_for(lambda: listens(port))  # the first one keeps what the agents tell each other
    lost = start(run, processes=1, options=options, log="log1")
    survivor.wait_for(lambda: checkpoints(run))
    for pid in (lost.agent.pid, *lost.workers().values()):
        os.kill(pid, signal.SIGKILL)
    log = survivor.end(150)
    assert survivor.agent.returncode == 0, log
    assert re.search(r"going on from iteration [1-9]\d* of 300", log), log
    assert [origin["environment"]["processes"] for origin in record(run)["resumed_from"]] == [2], log
    assert (record(run)["environment"]["processes"], record(run)["iterations"]) == (1, 300)
    assert [line["iteration"] for line in lines(run)] == [*range(7, 300, 7), 300]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "precision"),
    [("loss", "float32"), ("loss", "bf16"), ("loss", "fp16"), ("synchronised loss", "float32"), ("code", "float32")],
)
def test_of_three_processes_the_one_that_fails_says_why_and_only_it(
    make_run: Callable[..., Run], start: Callable[..., Job], fault: str, precision: str
) -> None:
    run = make_run(train={**THREE, "max_iters": 100_000, "precision": precision})
    Path("sitecustomize.py").write_text(FAULTS[fault])
    job = start(run, processes=3)
    log = job.end(100)
    assert job.agent.returncode != 0
    assert job.workers_left() == []
    spoken = [line for line in told(log) if "another process is gone" not in line]
    if fault != "code":
        assert len(told(log)) == 1, log
        assert re.match(r"process 2 of 3: gald train: iteration 4: the loss is inf .* on samples \S+, \S+; ", spoken[0])
        assert log.count("not finite first: the loss itself") == 1
        assert checkpoints(run) == []
    else:
        assert spoken == []
        assert log.count("ZeroDivisionError: of process 1") == 1
        assert log.count("in train_one_iteration") <= 1  # the traceback is that of one process


FAULTS = {
    "loss": """
import os
if os.environ.get("RANK") == "2":
    from gald.train import loop
    real, seen = loop.segmentation_loss, []
    def explode(*given, **options):
        losses = real(*given, **options)
        seen.append(0)
        return losses._replace(total=losses.total * float("inf")) if len(seen) >= 4 else losses
    loop.segmentation_loss = explode
""",
    "code": """
import os
if os.environ.get("RANK") == "1":
    from gald.train import loop
    real = loop.train_one_iteration
    def fail(state, batch, params, iteration, *rest):
        if iteration == 3:
            raise ZeroDivisionError("of process 1")
        return real(state, batch, params, iteration, *rest)
    loop.train_one_iteration = fail
""",
}
# Norms that wait for each other forwards and backwards, as synchronised ones do, which torch has on GPUs only.
FAULTS["synchronised loss"] = (
    FAULTS["loss"]
    + """
if "RANK" in os.environ:
    import torch
    from gald.train import start
    class Together(torch.autograd.Function):
        @staticmethod
        def forward(ctx, feature):
            torch.distributed.all_reduce(torch.zeros(1))
            return feature.clone()  # a ReLU changes it in place
        @staticmethod
        def backward(ctx, gradient):
            torch.distributed.all_reduce(torch.zeros(1))
            return gradient
    def synchronised(model, world, params):
        norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.register_forward_hook(lambda norm, given, found: Together.apply(found))
        return model
    start.synchronised = synchronised
"""
)
