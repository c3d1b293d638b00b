"""Train stage: manifest and params in; weights, history and, last of all, run.json out."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils import deterministic

from gald import paths
from gald.datasets._reader import Store
from gald.errors import GaldError, TrainingInterrupted
from gald.params import Run, TrainParams
from gald.process import locking
from gald.process.memory import keep_freed_memory
from gald.process.ranks import ranks
from gald.process.watch import watched
from gald.progress import TRAINED, is_trained, read_record
from gald.tracking import announced
from gald.train import aside, checkpoint, history, loop
from gald.train.faults import told
from gald.train.loader import CachedSamples
from gald.train.norms import training_mode
from gald.train.parallel import World, joined, lost_peer, peer_lost
from gald.train.publish import publish
from gald.train.recipe import Line, as_table, effective_recipe, in_short, refuse_departures
from gald.train.start import build_state, keeper, take_over
from gald.train.task import Task, stop_early, task_of, waiting_advice
from gald.train.validation import Validation, drop_other_bests
from gald.train.voices import is_told_elsewhere, told_elsewhere

_LOG = logging.getLogger("gald.train")
_PATIENCE_S = 20.0  # of a process that was told to stop and may wait for one that is gone
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SETTLED_S = 20.0


def train(run: Run, *, store: Store = "auto") -> None:
    """Train a run to its end, going on from its last checkpoint if there is one; do nothing if it is trained already.

    Started by torchrun, it is one of the processes that train together.

    Parameters
    ----------
    run : Run
        Name and params; its dataset must be prepared.
    store : {"auto", "packed", "files"}
        Where pixels are read from, see `PreparedSplit`; it changes no bit.

    Raises
    ------
    DatasetError
        The dataset is not prepared or of another source, a sample or the packed store is damaged, or the data changed
        during the training.
    RunBusy
        Another process trains this run.
    ParamsError
        The recipe departs from the paper's, and the params are strict.
    TrainingDiverged
        Loss or gradient is not finite; the last good checkpoint stays.
    TrainingInterrupted
        Stopped by a signal, or because the parent or another process of the training died; the same command goes on.
    GaldError
        Memory ran out; the message says what to lower.
    """
    params = run.params.train
    with ExitStack() as stack:
        # First of all: a signal that comes while the others or the lock are waited for must not kill.
        watch = stack.enter_context(watched(_PATIENCE_S if ranks().size > 1 else None))
        world = stack.enter_context(joined(params))
        if world.first:
            stack.enter_context(locking.held(run.name, wait_s=locking.WAIT_S))
        stack.enter_context(reproducible(params))
        try:
            _train(run, store, world, watch.reason)
        except RuntimeError as error:
            if world.size == 1 or not lost_peer(error):
                raise
            lost = TrainingInterrupted(f"{peer_lost(error)}; started again, they go on from the last checkpoint")
            raise lost if world.first else told_elsewhere(lost) from error


def _train(run: Run, store: Store, world: World, reason: Callable[[], str | None]) -> None:
    with world.together():
        done = world.first and _is_done(run)
    if world.share(done):
        return
    with world.together():
        task = task_of(run, store, reason)
        task.split.check_store(partial(stop_early, reason))
    with world.together():
        _check_alike(task, world)
    state = build_state(task, world)
    recipe = effective_recipe(run, state.model, len(task.split), world)
    _tell(run, recipe, world)
    with world.together():
        refuse_departures(run, recipe)
    if world.first:  # not before: what was refused leaves the finished training as it is
        paths.run_json(run.name).unlink(missing_ok=True)  # it promises weights that are about to change
    origins = take_over(task, state, world, recipe)
    if world.first:
        announced.announce(run, task.identity, task.code, [origin["code"] for origin in origins])
    with _failure_told(run, world):
        _finish(task, state, origins, recipe, world, reason)


def _is_done(run: Run) -> bool:
    """Leave a finished training alone: a command typed twice may have waited here for the first one to end."""
    if not is_trained(run):
        return False
    record = read_record(paths.run_json(run.name)) or {}
    aside.end(paths.checkpoint_dir(run.name), {"params": run.digest(), "data": record.get("manifest_sha256", "")})
    _LOG.info(TRAINED, run.name, paths.run_json(run.name))
    return True


def _finish(
    task: Task,
    state: loop.State,
    origins: list[dict[str, Any]],
    recipe: Sequence[Line],
    world: World,
    reason: Callable[[], str | None],
) -> None:
    """Train to the end, and leave what a finished training leaves."""
    run, params = task.run, task.run.params.train
    try:
        samples = CachedSamples(task.split, len(task.classes))
        with _room_asked_for(run):
            loop.train(state, samples, params, _hooks(task, state, origins, world, reason), world)
    except (MemoryError, RuntimeError, ValueError) as error:
        each = params.batch_size // (world.size * params.micro_batches)
        found = told(error, state.iteration + 1, state.model, params, each)
        if found is None:
            raise
        raise GaldError(f"{run.name}: {found}") from error
    if world.first:
        if state.best is not None and state.iteration < params.max_iters:
            _LOG.info(
                "%s: ended early, after iteration %d of %d: no validation since that of iteration %d was better",
                run.name, state.iteration, params.max_iters, state.best["iteration"],
            )  # fmt: skip
        with _room_asked_for(run):
            publish(task, state, origins, recipe, world)
        aside.end(task.folder, task.identity)
    world.share(None)  # nobody leaves before the files are there


@contextmanager
def _failure_told(run: Run, world: World) -> Iterator[None]:
    """Leave word of a failure for the tracking store, to which a death or a stop would else look the same."""
    try:
        yield
    except Exception as error:
        lost = world.size > 1 and isinstance(error, RuntimeError) and lost_peer(error)
        if not (lost or isinstance(error, TrainingInterrupted) or is_told_elsewhere(error)):
            kind = "" if isinstance(error, GaldError) else f"{type(error).__name__}: "
            announced.tell_failure(run.name, f"{kind}{error}")
        raise


def _check_alike(task: Task, world: World) -> None:
    """Refuse to train together on what is not the same, as where machines share no folder.

    Raises
    ------
    GaldError
        A process has other params, data or code than the first one.
    """
    own = task.identity | {"code": task.code["digest"]}
    found = world.gathered((socket.gethostname(), own))
    place, expected = found[0]
    for rank, (host, theirs) in enumerate(found):
        other = [kind for kind, digest in expected.items() if theirs[kind] != digest]
        if other:
            raise GaldError(
                f"{task.run.name}: process {rank} on {host} has other {' and '.join(other)} than process 0 on {place}; "
                "start all of them in one folder that every machine sees, or in equal copies"
            )


@contextmanager
def _room_asked_for(run: Run) -> Iterator[None]:
    """Say of a disk that is full what can be done."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise GaldError(f"{run.name}: {error}; make room, then the same command goes on") from error


def _hooks(
    task: Task, state: loop.State, origins: list[dict[str, Any]], world: World, reason: Callable[[], str | None]
) -> loop.Hooks:
    """What this process does for the loop: the first one writes and speaks, every one validates."""
    params = task.run.params.train
    kept = keeper(task, origins, world)
    progress = history.Progress(task.run.name, state.iteration, params.max_iters)
    validation = None if task.validation is None else Validation(task.run, task.validation, task.folder, world)
    warned: list[bool] = []
    began = time.monotonic()

    def keep(state: loop.State) -> None:
        found = kept(state)
        if world.first:
            checkpoint.save(task.folder, found)
            drop_other_bests(task.folder, checkpoint.bests(task.folder))
        world.share(None)  # a process that leaves takes the others down, the one that writes among them

    def write(line: dict[str, Any]) -> None:
        if world.first:
            history.append(task.growing_history, line)
            # Not of the first intervals, in which the system's cache and ours are still empty.
            advice = waiting_advice(line["data_wait"], task)
            if advice and not warned and time.monotonic() - began > _SETTLED_S:
                warned.append(True)
                _LOG.warning("%s: %s", task.run.name, advice)

    def validate(state: loop.State) -> dict[str, float]:
        if validation is None:
            return {}
        found = validation.score(state)
        training_mode(state.model, params)
        if world.first and found:
            _LOG.info(
                "%s: iteration %d, mIoU %.1f %% on %s",
                task.run.name, state.iteration, 100 * found["validation_mean_iou"], params.validation.split,
            )  # fmt: skip
        return found

    return loop.Hooks(reason, keep, write, progress.show if world.first else lambda *_: None, validate)


def _tell(run: Run, recipe: Sequence[Line], world: World) -> None:
    """Say before the first iteration what is about to happen; of miniatures, which depart in everything, in a line."""
    if not world.first:
        return
    if run.params.edition == "mini":
        _LOG.info("%s: %s", run.name, in_short(recipe))
        return
    departures = sum(line.departs for line in recipe)
    _LOG.info("%s: the recipe, %d departures from the paper's marked !\n%s", run.name, departures, as_table(recipe))


def _one_choice_of_kernels() -> AbstractContextManager[None]:
    """Keep the compiler from choosing GPU kernels, and with them orders of sums, by how fast each is just now."""
    from torch._inductor import config  # with the whole compiler, which is about to be needed

    return config.patch(deterministic=True)  # type: ignore[no-any-return]


@contextmanager
def reproducible(params: TrainParams) -> Iterator[None]:
    """Set torch up for the level of determinism that the params ask for; put everything back afterwards."""
    keep_freed_memory()
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    torch.set_num_threads(params.threads)
    strict = params.device == "cpu" or params.determinism == "bitwise"
    if strict and params.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first matrix product runs
    # Not use_deterministic_algorithms(), which imports the compiler of PyTorch to say the same.
    torch.set_deterministic_debug_mode("error" if strict else "default")
    torch.backends.cudnn.benchmark = not strict
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # debugging aid, costs time
    try:
        with _one_choice_of_kernels() if strict and params.compile else nullcontext():
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        torch.backends.cudnn.benchmark = before[2]
        deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]  # torch's default
