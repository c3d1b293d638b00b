"""What one of several processes does by itself: what it refuses, tells and waits for."""

import contextlib
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from gald.errors import GaldError
from gald.models.segmentor import build_segmentor
from gald.params import Run
from gald.train import parallel
from gald.train import run as train_run
from gald.train.norms import refuse_lone_samples
from gald.train.parallel import World, joined
from gald.train.run import train
from gald.train.voices import of_several


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
