"""Train stage: manifest and params in; weights, history and, last of all, run.json out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils import deterministic

from gald import files, follow, locking, paths, provenance
from gald.datasets._reader import PreparedSplit, Store
from gald.errors import DatasetError, GaldError, TrainingInterrupted
from gald.inference import channels_last
from gald.memory import keep_freed_memory
from gald.models import weights
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import Run, TrainParams
from gald.train import checkpoint, history, loop
from gald.train.loader import CachedSamples
from gald.train.optimiser import SGD
from gald.watch import watched

_LOG = logging.getLogger("gald.train")


@dataclass(frozen=True)
class _Task:
    """A run together with what it is trained on."""

    run: Run
    split: PreparedSplit
    code: dict[str, Any]  # as it was when the training began: files may change while it runs

    @property
    def classes(self) -> list[str]:
        names: list[str] = self.split.manifest["classes"]
        return names

    @property
    def identity(self) -> dict[str, str]:
        return {"params": self.run.digest(), "data": self.split.manifest_sha256}

    @property
    def folder(self) -> Path:
        return paths.checkpoint_dir(self.run.name)

    @property
    def growing_history(self) -> Path:
        # Beside the checkpoints: Snakemake removes declared outputs, and a linked DVC cache makes them read-only.
        return paths.growing_history(self.run.name)


def train(run: Run, *, store: Store = "auto") -> None:
    """Train a run to its end, going on from its last checkpoint if there is one.

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
    TrainingDiverged
        The loss is not finite; the last good checkpoint stays.
    TrainingInterrupted
        Stopped by a signal, or because the parent process died; the same command goes on.
    """
    params = run.params.train
    with locking.held(run.name, wait_s=locking.WAIT_S), watched() as watch, reproducible(params):
        task = _task(run, store)
        task.split.check_store(partial(_stop_early, watch.reason))
        paths.run_json(run.name).unlink(missing_ok=True)  # it promises weights that are about to change
        state, origins = _start(task)
        follow.announce(run, task.identity, task.code, [origin["code"] for origin in origins])
        progress = history.Progress(run.name, state.iteration, params.max_iters)
        hooks = loop.Hooks(
            stop=watch.reason,
            keep=lambda state: checkpoint.save(task.folder, _checkpoint(task, state, origins)),
            write=partial(history.append, task.growing_history),
            show=progress.show,
        )
        loop.train(state, CachedSamples(task.split, len(task.classes)), params, hooks)
        _publish(task, state.model, origins)
        checkpoint.clear(task.folder)


@contextmanager
def reproducible(params: TrainParams) -> Iterator[None]:
    """Set torch up so that a run on the CPU can be repeated bit for bit; put everything back afterwards.

    Raises
    ------
    GaldError
        The device asked for is not there.
    """
    if params.device == "cuda" and not torch.cuda.is_available():
        raise GaldError("train.device is 'cuda', but torch finds no CUDA device; choose a suite with device 'cpu'")
    keep_freed_memory()
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(params.threads)
    # Not use_deterministic_algorithms(), which imports the compiler of PyTorch to say the same.
    torch.set_deterministic_debug_mode("error" if params.device == "cpu" else "default")
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # debugging aid, costs time
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]  # torch's default


def _task(run: Run, store: Store) -> _Task:
    name = f"{run.params.edition}/{run.dataset}"
    if store != "files":  # one under way is worth the wait: without it every image would be decoded again and again
        locking.wait_until_free(f"pack/{name}", say=_LOG.info)
    folder = paths.prepared(run.params.edition, run.dataset)
    split = PreparedSplit(folder, run.params.train.splits, store=store, source=run.params.source)
    if len(split) == 0:
        raise DatasetError(f"{split.folder}: no samples in {', '.join(split.splits)}; prepare the dataset again")
    if store == "auto" and not paths.packed_json(run.params.edition, run.dataset).exists():
        _LOG.info("%s: images are decoded while training; after `gald pack %s` they would come faster", run.name, name)
    code = {"commit": provenance.commit(), "digest": provenance.code_digest(), "dirty": provenance.is_dirty()}
    return _Task(run, split, code)


def _stop_early(reason: Callable[[], str | None]) -> None:
    why = reason()
    if why is not None:
        raise TrainingInterrupted(f"stopped before the first iteration, because {why}; the same command goes on")


def _start(task: _Task) -> tuple[loop.State, list[dict[str, Any]]]:
    """Build network and optimiser, and take over a checkpoint; also return whatever made that, oldest first."""
    run, params = task.run, task.run.params
    torch.manual_seed(params.train.seed)
    model = channels_last(build_segmentor(params.model, len(task.classes)).to(params.train.device))
    state = loop.State(model, SGD(model, params.train))
    # Names the code and the machine: what may change bits although params and data are the same.
    origin = {"code": task.code["digest"], "environment": environment(params.train)}
    found = checkpoint.load(task.folder, task.identity)
    if found is not None and not _fits(found, state):
        _LOG.warning("%s: the checkpoint is of another network, since the code has changed; starting afresh", run.name)
        found = None
    if found is None:
        checkpoint.clear(task.folder)
        _LOG.info("%s: training %d iterations on %d samples", run.name, params.train.max_iters, len(task.split))
        return state, [origin]
    state.model.load_state_dict(found.model)
    state.optimiser.load(found.momenta)
    state.iteration = found.iteration
    state.interval = loop.Interval.resumed(found.interval)
    history.truncate(task.growing_history, found.iteration)
    _LOG.info("%s: going on from iteration %d of %d", run.name, found.iteration, params.train.max_iters)
    if found.origins[-1] == origin:
        return state, found.origins
    _LOG.warning("%s: the checkpoint was made by other code or on another machine; run.json says so", run.name)
    return state, [*found.origins, origin]


def _fits(found: checkpoint.Checkpoint, state: loop.State) -> bool:
    pairs = ((found.model, state.model.state_dict()), (found.momenta, state.optimiser.momenta))
    return all(
        {name: value.shape for name, value in kept.items()} == {name: value.shape for name, value in built.items()}
        for kept, built in pairs
    )


def _checkpoint(task: _Task, state: loop.State, origins: list[dict[str, Any]]) -> checkpoint.Checkpoint:
    return checkpoint.Checkpoint(
        iteration=state.iteration,
        identity=task.identity,
        origins=origins,
        interval=state.interval.sums,
        model=state.model.state_dict(),
        momenta=state.optimiser.momenta,
    )


def environment(params: TrainParams) -> dict[str, Any]:
    """Describe what decides the bits of a training beside its code, params and data."""
    device = torch.cuda.get_device_name() if params.device == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "device": device,
        "cpu": provenance.cpu_name(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": params.threads,
    }


def _publish(task: _Task, model: Segmentor, origins: list[dict[str, Any]]) -> None:
    """Write the run's files, run.json last, so that it never promises what is not there."""
    run = task.run
    _check_unchanged(task)
    lines = history.read(task.growing_history)
    files.write_bytes(paths.history(run.name), task.growing_history.read_bytes())
    files.write_text(paths.history_csv(run.name), history.as_csv(lines))
    merged = {"run": run.name, **run.params.model_dump(mode="json")}
    files.write_text(paths.run_params(run.name), yaml.safe_dump(merged, sort_keys=False))
    weights.save(paths.weights(run.name), model, run.params.model, task.classes)
    files.write_json(paths.run_json(run.name), _record(task, model, origins))


def _check_unchanged(task: _Task) -> None:
    """Refuse weights of data that are no longer there: some samples may have been of these, some of those."""
    run = task.run
    manifest = paths.manifest(run.params.edition, run.dataset)
    if not manifest.exists():  # nobody knows yet whether the data will be the same again, so the checkpoint stays
        raise DatasetError(
            f"{manifest} went away during the training; run `gald prepare {run.params.edition}/{run.dataset}`, then "
            "the same command again"
        )
    if files.sha256(manifest) != task.split.manifest_sha256:
        checkpoint.clear(task.folder)
        raise DatasetError(
            f"{manifest} changed during the training of {run.name}, so its weights are of mixed data and were dropped; "
            f"run `gald train {run.name}` again"
        )


def _record(task: _Task, model: Segmentor, origins: list[dict[str, Any]]) -> dict[str, Any]:
    run, params = task.run, task.run.params.train
    file = paths.weights(run.name)
    return {
        "run": run.name,
        "dataset": run.dataset,
        "edition": run.params.edition,
        "seed": run.seed,
        "params_sha256": run.digest(),
        "manifest_sha256": task.split.manifest_sha256,
        "weights": {"file": file.name, "sha256": files.sha256(file)},
        "iterations": params.max_iters,
        "num_classes": len(task.classes),
        "code": task.code,
        "environment": environment(params),
        "pretrained": model.coverage,
        "resumed_from": origins[:-1],  # other code or machines that made a part of it; those promise no bits
        "determinism": "bitwise" if params.device == "cpu" and len(origins) == 1 else "seeded",
    }
