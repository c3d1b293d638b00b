"""Several processes that train one network together, as torchrun starts them; alone without it.

Each process computes its part of an iteration's batch, and gradients are averaged over all (data parallelism). Which
samples an iteration sees does not depend on the number of processes.

References
----------
Li et al.: PyTorch Distributed: Experiences on Accelerating Data Parallel Training, VLDB 2020.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from gald.errors import GaldError, TrainingInterrupted
from gald.params import TrainParams
from gald.process.ranks import ranks
from gald.train.voices import of_several, told_elsewhere

_TIMEOUT = timedelta(minutes=10)  # validation by one process, or a slow disk, may hold the others up
_LOOK_S = 0.01
_SAID = 400  # characters of what NCCL says
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")


@dataclass(frozen=True)
class World:
    """The processes of a training.

    Attributes
    ----------
    rank, size : int
        Which process this is, from 0, and how many there are.
    device : torch.device
        Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place; the same bits in each."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return flag if self.size == 1 else bool(self.total(torch.tensor(float(flag), device=self.device)).item())

    def largest(self, value: float) -> float:
        """Largest of the values of all processes."""
        if self.size == 1:
            return value
        boxed = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(boxed, distributed.ReduceOp.MAX)
        return float(boxed.item())

    def share(self, value: Any) -> Any:
        """Hand a value of the first process to all; what the others pass does not count."""
        if self.size == 1:
            return value
        boxed = [value]
        distributed.broadcast_object_list(boxed, src=0, device=self.device)
        return boxed[0]

    def gathered(self, value: Any) -> list[Any]:
        """Hand the values of all processes to all, in their order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        """Fail in every process where one fails in the block, and let one of them say why.

        Without it the others would wait for the one that failed in whatever they have to do together next.
        """
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        failures = [rank for rank, found in enumerate(self.gathered(failed is not None)) if found]
        if not failures:
            return
        if failed is not None and self.rank == failures[0]:
            raise failed
        raise told_elsewhere(TrainingInterrupted(f"process {failures[0]} failed and says why")) from failed

    def wrap(self, model: nn.Module) -> nn.Module:
        """Network whose gradients are averaged over all processes."""
        if self.size == 1:
            return model
        # Of 1x1 kernels, whose memory order has two spellings; every process would say it, and nobody can act on it.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    @torch.no_grad()
    def align(self, model: nn.Module) -> None:
        """Give all the buffers of the first process: statistics of local norms differ until the next forward pass."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def accumulating(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Context of a micro-batch: gradients travel with the last one only."""
        wrapped = getattr(network, "_orig_mod", network)  # where torch.compile keeps what it compiles
        if last or not isinstance(wrapped, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return wrapped.no_sync()


@contextmanager
def joined(params: TrainParams) -> Iterator[World]:
    """Join the other processes of this training for the length of the block.

    Parameters
    ----------
    params : TrainParams
        `device` decides the backend: NCCL on GPUs, gloo on the CPU.

    Raises
    ------
    GaldError
        The device asked for is not there, or the batch cannot be shared evenly.
    ParamsError
        The environment does not say which process this is, see `gald.process.ranks`.
    """
    rank, size, place = ranks()
    of_several()
    try:
        _check(params, size, place)
    except GaldError as error:  # the same in all processes of a machine, of which the first one speaks
        raise error if place == 0 else told_elsewhere(error) from None
    device = torch.device("cuda", place) if params.device == "cuda" else torch.device("cpu")
    if size == 1:
        yield World(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = _store_of_this_life(rank, size)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    try:
        yield World(rank, size, device)
    except BaseException:
        if backend != "nccl":  # which would wait here for the others, and they wait for this one
            distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


def _store_of_this_life(rank: int, size: int) -> Store:
    """Where the processes find each other's addresses; torchrun's store, which may still hold those of killed ones.

    torchrun keeps its store when it starts processes again, and counts restarts for each machine by itself. So the
    first process invents a prefix, and hands it to every other one that is alive.
    """
    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=_TIMEOUT))
    except (ValueError, distributed.DistError) as error:
        raise GaldError(
            f"WORLD_SIZE is {size}, but the other processes are not to be found ({error}); start with torchrun, or "
            "unset WORLD_SIZE"
        ) from error
    own = uuid4().hex
    if rank > 0:
        store.set(f"gald/hello/{rank}", own)
        prefix = store.get(f"gald/reply/{own}").decode()
        store.set(f"gald/{prefix}/{rank}", "heard")
        return PrefixStore(prefix, store)
    deadline = time.monotonic() + _TIMEOUT.total_seconds()
    silent = set(range(1, size))
    while silent and time.monotonic() < deadline:
        for other in silent:
            if store.check([f"gald/hello/{other}"]):  # perhaps of a killed one, whose answer nobody reads
                store.set(f"gald/reply/{store.get(f'gald/hello/{other}').decode()}", own)
        silent = {other for other in silent if not store.check([f"gald/{own}/{other}"])}
        time.sleep(_LOOK_S)
    return PrefixStore(own, store)


def _check(params: TrainParams, size: int, place: int) -> None:
    if params.device == "cuda" and not torch.cuda.is_available():
        raise GaldError("train.device is 'cuda', but torch finds no CUDA device; choose a suite with device 'cpu'")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", place + 1))
    if params.device == "cuda" and here > torch.cuda.device_count():
        raise GaldError(
            f"{here} processes on this machine need a GPU each, and it has {torch.cuda.device_count()}; lower "
            "torchrun's --nproc-per-node"
        )
    parts = size * params.micro_batches
    if params.batch_size % parts:
        raise GaldError(
            f"train.batch_size {params.batch_size} cannot be shared by {size} processes with {params.micro_batches} "
            f"micro-batches each; make it a multiple of {parts}, or change train.micro_batches"
        )
    if params.batch_norm == "sync" and size > 1 and params.device == "cpu":
        raise GaldError(
            "train.batch_norm is 'sync', which torch has on GPUs only; for several processes on a CPU choose "
            "'local' or 'frozen'"
        )


def lost_peer(error: RuntimeError) -> bool:
    """Whether a collective operation failed because another process is gone, whose own message says why."""
    text = str(error)
    return isinstance(error, distributed.DistError) or any(sign in text for sign in _GONE)


def peer_lost(error: RuntimeError) -> str:
    """Say that another process is gone; NCCL's words with it, since a fault of its own looks the same from here."""
    text = " ".join(str(error).split())
    said = f" (or NCCL failed: {text[:_SAID]})" if "NCCL" in text else ""
    return f"another process is gone{said}, and says why unless it was killed"
