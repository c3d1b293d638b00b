import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import gald
from gald import files, paths
from gald.datasets._reader import PreparedSplit
from gald.errors import GaldError, RunBusy
from gald.models.segmentor import build_segmentor
from gald.params import Run
from gald.process import locking
from gald.train import history, parallel
from gald.train import run as train_run
from gald.train.norms import refuse_lone_samples
from gald.train.parallel import World, joined
from gald.train.run import train
from gald.train.validation import Validation
from gald.train.voices import of_several
from tests.processes import children

# `gald train` of runs that lie in no suite, one after the other
CHILD = """
import json, os, sys
from gald import cli
from gald.cli import runs
from gald.params import Run, RunParams
wanted = json.loads(sys.argv[1])
def look_up(name, digest, *, evaluate):
    params = RunParams.model_validate(wanted[name])
    return Run(name, *name.split("/")[:2], "none", params.train.seed, params)
runs._run, runs._store, runs._tell_progress = look_up, lambda: "auto", lambda run: None
for name in wanted:
    cli.LOGGER.handlers.clear()
    status = cli.main(["train", name])
    print(f"rank {os.environ['RANK']} ends with {status}", file=sys.stderr, flush=True)
    if status:
        sys.exit(status)
"""
RECIPE: dict[str, Any] = {"batch_norm": "frozen", "max_iters": 10, "warmup_iters": 2, "log_every": 4}
ENDLESS = {**RECIPE, "max_iters": 100_000, "checkpoint_every": 2, "log_every": 3}
LOSS = {"threshold": 0.7, "min_kept": 100000, "class_weights": None, "label_smoothing": 0.0}
NO_DROPOUT = {"aux_head": {"channels": 8, "relu": True, "dropout": 0.0}}


class Job:
    """Runs that torchrun trains, with what it prints."""

    def __init__(
        self, *wanted: Run, processes: int = 2, options: tuple[str, ...] = ("--standalone",), log: str = "log"
    ):
        Path("child.py").write_text(CHILD)
        self.log = Path(log)
        given = json.dumps({run.name: run.params.model_dump(mode="json") for run in wanted})
        options = (*options, f"--nproc-per-node={processes}", "--local-addr=127.0.0.1")  # names may lead nowhere
        command = [sys.executable, "-m", "torch.distributed.run", *options]
        folders = f"{Path.cwd()}:{Path(gald.__file__).parents[1]}"  # the first one for a sitecustomize.py
        environment = os.environ | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as file:
            self.agent = subprocess.Popen(
                [*command, "child.py", given], stderr=file, stdout=file, env=environment, start_new_session=True
            )

    def workers(self) -> dict[int, int]:
        """Process ids by rank."""
        found = {}
        for pid in children(self.agent.pid):
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
            if rank := re.search(r"\0RANK=(\d+)\0", environment):
                found[int(rank[1])] = pid
        return found

    def workers_left(self) -> list[str]:
        """Command lines of processes that work in this folder and are no test."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if b"child.py" in command and (folder / "cwd").readlink() == Path.cwd():
                    found.append(command.decode())
        return found

    def end(self, seconds: float = 300) -> str:
        try:
            self.agent.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(self.log.read_text())
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], object], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.agent.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


@pytest.fixture
def start() -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def started(*wanted: Run, **options: Any) -> Job:
        jobs.append(Job(*wanted, **options))
        return jobs[-1]

    yield started
    for job in jobs:
        if job.agent.poll() is None:
            for pid in [*job.workers().values(), job.agent.pid]:  # workers lead sessions of their own
                os.kill(pid, signal.SIGKILL)
            job.agent.wait()


def tensors(run: Run) -> dict[str, Tensor]:
    return safetensors.torch.load_file(paths.weights(run.name))


def digest(run: Run) -> str:
    return files.sha256(paths.weights(run.name))


def lines(run: Run) -> list[dict[str, Any]]:
    kept = ("iteration", "loss", "main_loss", "aux_loss", "gradient_norm", "learning_rate", "validation_mean_iou")
    return [{key: line[key] for key in kept if key in line} for line in history.read(paths.history(run.name))]


def assert_close(found: Run, expected: Run, tolerance: float = 2e-5) -> None:
    theirs = tensors(expected)
    for name, value in tensors(found).items():
        torch.testing.assert_close(
            value, theirs[name], atol=tolerance, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    for line, other in zip(lines(found), lines(expected), strict=True):
        assert line == pytest.approx(other, rel=1e-4)


def checkpoints(run: Run) -> list[int]:
    return sorted(int(path.stem) for path in paths.checkpoint_dir(run.name).glob("*.checkpoint"))


def record(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(paths.run_json(run.name).read_text())
    return found


def changes(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """What a resumed training marks as done otherwise before, with both."""
    formerly = {line["what"]: line["effective"] for line in before}
    return {line["what"]: (formerly[line["what"]], line["effective"]) for line in now if line["changed"]}


def told(log: str) -> list[str]:
    """What processes say of how they ended; torchrun's own report left out."""
    return re.findall(r"^(?:process \d of \d: )?gald train: .*", log, re.MULTILINE)


def stops(log: str) -> list[str]:
    return re.findall(r"stopped after iteration .*", log)


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


BREAKABLE = {"max_iters": 60, "warmup_iters": 2, "checkpoint_every": 2, "log_every": 7}


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


def test_what_cannot_be_shared_is_said(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(GaldError, match=r"batch_size 4 cannot be shared by 3 .* make it a multiple of 3, or"):
        train(make_run())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        GaldError, match=r"batch_size 6 .* by 2 processes with 2 micro-batches each; make it a multiple"
    ):
        train(make_run(train={"batch_size": 6, "micro_batches": 2}))
    with pytest.raises(GaldError, match=r"batch_norm is 'sync', which torch has on GPUs only; .*'local' or 'frozen'"):
        train(make_run(train={"batch_norm": "sync"}))
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(GaldError, match=r"WORLD_SIZE is 2, .*MASTER_ADDR.*torchrun"), joined(make_run().params.train):
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    with joined(make_run().params.train) as world:
        assert (world.rank, world.size, world.first) == (0, 1, True)
        assert not torch.distributed.is_initialized()


POOLED = [
    ({"aggregation": {"name": "psp"}}, [32, 48], "the 1x1 bin of aggregation 'psp'"),
    ({"aggregation": {"name": "aspp"}}, [32, 48], "the pooled image of aggregation 'aspp'"),
    ({"distribution": {"name": "mask"}}, [60, 60], "the 1x1 mask of distribution 'mask'"),
    ({"aggregation": {"name": "psp", "bins": [2, 3]}}, [32, 48], None),
    ({"distribution": {"name": "mask"}}, [60, 124], None),
    ({"aggregation": {"name": "non_local"}}, [32, 48], None),
]


@pytest.mark.filterwarnings("ignore:distribution mask")  # of small maps
@pytest.mark.parametrize(("model", "crop_size", "what"), POOLED)
def test_norms_that_would_see_one_value_are_refused_before_any_work_and_no_others_are(
    model: dict[str, Any], crop_size: list[int], what: str | None, make_run: Callable[..., Run]
) -> None:
    backbone = {"name": "tiny", "width": 16, "stem_width": 8}
    run = make_run(model={**model, "backbone": backbone}, train={"crop_size": crop_size})
    network = build_segmentor(run.params.model, 4).train()
    image = torch.zeros(1, 3, *crop_size)
    for changes, processes, refused in (
        ({}, 2, False), ({}, 4, True), ({"micro_batches": 2}, 2, True), ({"batch_norm": "frozen"}, 4, False),
        ({"batch_norm": "sync"}, 4, False),
    ):  # fmt: skip
        params = run.params.model_copy(update={"train": run.params.train.model_copy(update=changes)})
        if refused and what is not None:
            with pytest.raises(GaldError, match=rf"each of {processes} processes one sample .* on {what}: start fewer"):
                refuse_lone_samples(params, World(0, processes, torch.device("cpu")))
            with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
                network(image, full_size=False)
        else:
            refuse_lone_samples(params, World(0, processes, torch.device("cpu")))
    if what is None:
        network(image, full_size=False)


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


THREE = {**RECIPE, "batch_size": 6}


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
    assert loss == "OHEM, threshold 0.05, at least 500 pixels of the 2 samples that a device sees at once"
    # 500 of two samples by each device are another choice than 500 of all six
    assert lines(mined)[0]["main_loss"] != pytest.approx(lines(once)[0]["main_loss"], rel=1e-3)
    assert tensors(mined).keys() == tensors(once).keys()


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


class Fellows(World):
    """A process among others that fail, or do not, as told."""

    def gathered(self, value: Any) -> list[Any]:
        return [value if rank == self.rank else rank in FAILING for rank in range(self.size)]


FAILING = (1, 2)


@pytest.mark.parametrize(("rank", "fails", "says"), [(0, False, False), (1, True, True), (2, True, False)])
def test_where_one_process_fails_all_do_and_the_first_of_them_says_why(
    rank: int, fails: bool, says: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", str(rank))
    of_several()
    log = logging.getLogger("gald")
    with pytest.raises(GaldError) as raised, Fellows(rank, 3, torch.device("cpu")).together():  # noqa: PT012
        if fails:
            raise GaldError("no samples on this machine")
    log.error("gald %s: %s", "train", raised.value)
    assert caplog.messages == ([f"process {rank} of 3: gald train: no samples on this machine"] if says else [])


@pytest.mark.parametrize(("rank", "size"), [(0, 1), (0, 2), (1, 2)])
def test_what_happens_to_all_is_told_by_the_first_process(
    rank: int, size: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(size))
    monkeypatch.setenv("RANK", str(rank))
    of_several()
    caplog.set_level("INFO", "gald")
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("gald.train").log(level, "of %d", level)
    whose = f"process {rank} of {size}: "
    assert (
        caplog.messages
        == {
            (0, 1): ["of 20", "of 30", "of 40"],
            (0, 2): ["of 20", "of 30", whose + "of 40"],
            (1, 2): [whose + "of 30", whose + "of 40"],
        }[rank, size]
    )


@pytest.mark.parametrize("place", [0, 1])
def test_what_a_machine_lacks_is_told_by_its_first_process(
    place: int, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in (("WORLD_SIZE", 2), ("RANK", place), ("LOCAL_RANK", place), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(GaldError, match="2 processes on this machine need a GPU each, and it has 1; lower") as raised:
        train(make_run(train={"device": "cuda"}))
    logging.getLogger("gald").error("gald %s: %s", "train", raised.value)
    assert len(caplog.messages) == (1 if place == 0 else 0)


class Backend:
    """What a process of two does with its backend."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
        self.done: list[str] = []
        for name, value in (("WORLD_SIZE", 2), ("RANK", 1), ("LOCAL_RANK", 1), ("LOCAL_WORLD_SIZE", 2)):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: backend == "nccl")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: self.done.append(f"on {device}"))
        monkeypatch.setattr(parallel, "_store_of_this_life", lambda *_: None)
        distributed = torch.distributed
        monkeypatch.setattr(distributed, "init_process_group", lambda name, **_: self.done.append(name))
        monkeypatch.setattr(distributed, "destroy_process_group", lambda: self.done.append("left"))


@pytest.mark.parametrize(
    ("device", "fails", "done"),
    [
        ("cpu", False, ["gloo", "left"]),
        ("cpu", True, ["gloo", "left"]),
        ("cuda", False, ["on cuda:1", "nccl", "left"]),
        ("cuda", True, ["on cuda:1", "nccl"]),
    ],
)
def test_a_process_that_failed_does_not_wait_in_nccl_for_the_others(
    device: str, fails: bool, done: list[str], make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Backend(monkeypatch, "nccl" if device == "cuda" else "gloo")
    params = make_run(train={"device": device}).params.train
    with contextlib.suppress(GaldError), joined(params):
        if fails:
            raise GaldError("a sample is damaged")
    assert found.done == done


def test_what_nccl_says_is_told_since_its_own_faults_look_like_lost_processes() -> None:
    gone = RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:4242")
    assert parallel.lost_peer(gone)
    assert parallel.peer_lost(gone) == "another process is gone, and says why unless it was killed"
    fault = torch.distributed.DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:94, invalid usage, NCCL version 2.28\n"
        "Last error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 1b000"
    )
    assert parallel.lost_peer(fault)
    assert "NCCL version 2.28 Last error: Duplicate GPU detected : rank 1 and rank 0" in parallel.peer_lost(fault)


MAIN = """
import atexit, os, sys, time
import gald.cli
atexit.register(lambda: print("left in order"))
def main():
    print("its message")
    if sys.argv[1] == "raises":
        raise RuntimeError("a bug")
    return int(sys.argv[1])
gald.cli.main = main
import runpy
runpy.run_module("gald.cli", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("size", "ending", "status", "in_order"),
    [("2", "75", 75, False), ("2", "raises", 1, False), ("2", "0", 0, True), ("1", "75", 75, True)],
)
def test_one_of_several_processes_that_failed_is_gone_once_it_has_said_so(
    size: str, ending: str, status: int, in_order: bool
) -> None:
    environment = os.environ | {"WORLD_SIZE": size}
    found = subprocess.run(
        [sys.executable, "-c", MAIN, ending], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == status
    assert found.stdout.splitlines() == ["its message", *(["left in order"] if in_order else [])]
    assert ("RuntimeError: a bug" in found.stderr) == (ending == "raises")


def test_the_two_spellings_of_a_small_kernels_order_are_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", lambda model, **_: model)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        World(1, 2, torch.device("cpu")).wrap(torch.nn.Conv2d(2, 2, 1))
        warnings.warn("Grad strides do not match bucket view strides. This may indicate", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(one.message) for one in told] == ["something else"]


class Elsewhere(World):
    """A process whose fellow, of rank 1, is on another machine with something else there."""

    def gathered(self, value: Any) -> list[Any]:
        _, own = value
        return [("login", own), ("node7", own | OTHER)]


OTHER: dict[str, str] = {}


@pytest.mark.parametrize(
    ("other", "what"),
    [({}, None), ({"data": "x"}, "data"), ({"params": "x", "code": "y"}, "params and code")],
)
def test_processes_of_other_data_or_code_do_not_train_together(
    other: dict[str, str], what: str | None, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "OTHER", other)
    run = make_run()
    task = train_run.task_of(run, "auto", lambda: None)
    world = Elsewhere(0, 2, torch.device("cpu"))
    if what is None:
        train_run._check_alike(task, world)
        return
    with pytest.raises(GaldError, match=f"process 1 on node7 has other {what} than process 0 on login; start all"):
        train_run._check_alike(task, world)
