"""Trials of a run's recipe: do a few samples get learnt, how fast is it, where does the time go, what fits in memory.

A trial is one process, goes through the very loop of a training, and leaves what it leaves in a folder of its own.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gald import files, paths
from gald.datasets._reader import Store
from gald.datasets._samples import Sample, WindowedSample
from gald.errors import GaldError, ParamsError, TrainingInterrupted
from gald.params import PhotometricParams, Run, TrainParams, ValidationParams
from gald.process.watch import watched
from gald.train import history, loop
from gald.train.faults import told
from gald.train.interval import Interval
from gald.train.loader import CachedSamples, Samples
from gald.train.parallel import World, joined
from gald.train.run import reproducible
from gald.train.start import build_state
from gald.train.task import Task, stop_early, task_of, waiting_advice
from gald.train.validation import Validation, published

_SETTLING = 5  # iterations at most that are left out of a speed: caches and allocators are still cold
_PROFILED = 5
_ROWS = 20


class FirstSamples:
    """The first samples of a split, as if there were no others.

    Parameters
    ----------
    samples : Samples
        All of them.
    count : int
        How many to keep.
    """

    def __init__(self, samples: Samples, count: int) -> None:
        self.num_classes = samples.num_classes
        self._samples = samples
        self._count = count

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._count

    def __getitem__(self, index: int, /) -> Sample | WindowedSample:
        """Read one sample."""
        return self._samples[index]

    def id(self, index: int, /) -> str:
        """Name a sample without reading it."""
        return self._samples.id(index)


def overfit(run: Run, count: int, limit: int | None = None, *, store: Store = "auto") -> str:
    """Train on a few samples without augmentation, and score those very samples: a network that works learns them.

    Parameters
    ----------
    run : Run
        The recipe; crops stay as they are, and all else that is drawn at random is off.
    count : int
        Samples to learn, the first ones of the training splits.
    limit : int, optional
        Iterations, over which the learning rate's schedule goes; those of the run by default.
    store : {"auto", "packed", "files"}
        Where pixels are read from, see `PreparedSplit`.

    Returns
    -------
    str
        Loss at the end, and mIoU of whole images.

    Raises
    ------
    ParamsError
        There are not so many samples, or numbers below 1.
    TrainingInterrupted
        Stopped by a signal; trials are not gone on from.
    """
    _check_positive("--overfit", count)
    iterations = _iterations(limit, run.params.train.max_iters)
    run = _changed(run, _plain(run.params.train, count, iterations))
    with prepared(run, store) as (task, world, reason):
        if count > len(task.split):
            raise ParamsError(f"--overfit {count}: {run.name} has {len(task.split)} samples to train on; ask for fewer")
        state = build_state(task, world)
        samples = FirstSamples(CachedSamples(task.split, len(task.classes)), count)
        lines = _loop(task, state, samples, iterations, world, reason)
        folder = paths.trial_dir(run.name)
        found = Validation(run, task.split, folder, world).of(published(state.model, state.average))
        advice = waiting_advice(lines[-1]["data_wait"], task)
    report = {"samples": count, "iterations": iterations, "loss": lines[-1]["loss"], "mean_iou": float(found.mean_iou)}
    files.write_json(folder / "overfit.json", report)
    return (
        f"{run.name}: after {iterations} iterations on {count} samples the loss is {report['loss']:.4f}, and the mIoU "
        f"of these samples {100 * found.mean_iou:.1f} %\n" + (advice and f"{advice}\n")
    )


def limited(run: Run, limit: int, *, store: Store = "auto") -> str:
    """Train the first iterations of a run as it stands, and say how fast that went.

    Parameters
    ----------
    run : Run
        The recipe, unchanged; the learning rate's schedule stays that of all its iterations.
    limit : int
        Iterations to make.
    store : {"auto", "packed", "files"}
        Where pixels are read from, see `PreparedSplit`.

    Returns
    -------
    str
        Images a second, share of the time that passed in waiting for images, loss and memory.

    Raises
    ------
    ParamsError
        `limit` is below 1, or above the run's iterations.
    TrainingInterrupted
        Stopped by a signal; trials are not gone on from.
    """
    _check_positive("--limit", limit)
    params = run.params.train
    if limit > params.max_iters:
        raise ParamsError(f"--limit {limit}: {run.name} has {params.max_iters} iterations; ask for no more than these")
    run = _changed(run, _silent(params).model_copy(update={"log_every": params.max_iters}))
    settling = min(_SETTLING, limit // 2)
    with prepared(run, store) as (task, world, reason):
        state = build_state(task, world)

        def after(iteration: int) -> None:
            if iteration == settling:
                state.interval = Interval()

        samples = CachedSamples(task.split, len(task.classes))
        line = _loop(task, state, samples, limit, world, reason, after)[-1]
        advice = waiting_advice(line["data_wait"], task)
    return (
        f"{run.name}: {line['images_per_second']:.4g} images a second, {100 * line['data_wait']:.1f} % of the time "
        f"waited for images, loss {line['loss']:.4f}, {line['memory_mib']} MiB of memory; iterations "
        f"{settling + 1} to {limit} of {params.max_iters}\n" + (advice and f"{advice}\n")
    )


def profile(run: Run, *, store: Store = "auto") -> str:
    """Measure which operations an iteration spends its time in.

    Parameters
    ----------
    run : Run
        The recipe.
    store : {"auto", "packed", "files"}
        Where pixels are read from, see `PreparedSplit`.

    Returns
    -------
    str
        The operations that take most, and where a trace of all of them lies, for chrome://tracing or Perfetto.

    Raises
    ------
    TrainingInterrupted
        Stopped by a signal; trials are not gone on from.

    References
    ----------
    torch.profiler: https://docs.pytorch.org/docs/stable/profiler.html
    """
    from torch import profiler  # takes a while, and trainings never need it

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler tells its start and end on stderr
    device = run.params.train.device
    activities = [profiler.ProfilerActivity.CPU]
    activities += [profiler.ProfilerActivity.CUDA] if device == "cuda" else []
    schedule = profiler.schedule(wait=_SETTLING - 1, warmup=1, active=_PROFILED, repeat=1)
    iterations = _SETTLING + _PROFILED
    longest = max(iterations + 1, run.params.train.max_iters)  # rates do not matter here
    run = _changed(run, _silent(run.params.train).model_copy(update={"max_iters": longest}))
    with prepared(run, store) as (task, world, reason):
        state = build_state(task, world)
        samples = CachedSamples(task.split, len(task.classes))
        with profiler.profile(activities=activities, schedule=schedule, acc_events=True) as found:
            _loop(task, state, samples, iterations, world, reason, lambda _: found.step())
    trace = paths.trial_dir(run.name) / "trace.json"
    found.export_chrome_trace(str(trace))
    table = found.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=_ROWS)
    return f"{table}\n{run.name}: {_PROFILED} iterations; the trace is {trace}, for chrome://tracing\n"


@contextmanager
def prepared(run: Run, store: Store) -> Iterator[tuple[Task, World, Callable[[], str | None]]]:
    """Set everything up as a training does, but for the run's lock and files.

    Raises
    ------
    GaldError
        Started by torchrun as one of several processes; data or device are not there.
    """
    params = run.params.train
    with watched() as watch, joined(params) as world, reproducible(params):
        if world.size > 1:
            raise GaldError("a trial is of one process; start it without torchrun")
        task = task_of(run, store, watch.reason)
        task.split.check_store(lambda: stop_early(watch.reason))
        paths.trial_dir(run.name).mkdir(parents=True, exist_ok=True)
        yield task, world, watch.reason


def _loop(
    task: Task,
    state: loop.State,
    samples: Samples,
    iterations: int,
    world: World,
    reason: Callable[[], str | None],
    after: Callable[[int], object] = lambda _: None,
) -> list[dict[str, Any]]:
    """Make some iterations and return their history, whose last line is about the last ones in any case."""
    run, params = task.run, task.run.params.train
    grown = paths.trial_dir(run.name) / "history.jsonl"
    grown.unlink(missing_ok=True)
    lines: list[dict[str, Any]] = []
    progress = history.Progress(run.name, 0, iterations)

    def write(line: dict[str, Any]) -> None:
        lines.append(line)
        history.append(grown, line)

    def show(iteration: int, loss: float) -> None:
        progress.show(iteration, loss)
        after(iteration)

    def stop() -> str | None:
        return "the trial is over" if state.iteration == iterations else reason()

    hooks = loop.Hooks(stop, lambda _: None, write, show, lambda _: {})
    try:
        loop.train(state, samples, params, hooks, world)
    except TrainingInterrupted as stopped:
        if state.iteration < iterations:
            raise TrainingInterrupted(
                f"the trial of {run.name} was stopped after iteration {state.iteration} of {iterations}, because "
                f"{reason() or 'it was told to'}; trials start anew each time"
            ) from stopped
    except (MemoryError, RuntimeError, ValueError) as error:
        found = told(error, state.iteration + 1, state.model, params, params.batch_size // params.micro_batches)
        if found is None:
            raise
        raise GaldError(f"{run.name}: {found}") from error
    if state.interval.timed:
        write(state.interval.line(state.iteration, loop.rate_at(state.iteration - 1, params), params.batch_size, world))
    return lines


def _plain(params: TrainParams, count: int, iterations: int) -> TrainParams:
    """Recipe without augmentation, whose schedule ends after some iterations."""
    return _silent(params, count).model_copy(
        update={
            "scale_range": (1.0, 1.0),
            "flip": False,
            "photometric": PhotometricParams(brightness=0, contrast=0, saturation=0, hue=0),
            "max_class_ratio": 1.0,
            "max_iters": iterations,
            "warmup_iters": min(params.warmup_iters, iterations - 1),
        }
    )


def _silent(params: TrainParams, count: int | None = None) -> TrainParams:
    """Recipe that is not validated on the way; the first `count` samples are scored when asked for."""
    never = ValidationParams(every=0, split=params.validation.split, samples=count, patience=None)
    return params.model_copy(update={"validation": never})


def _changed(run: Run, train: TrainParams) -> Run:
    return dataclasses.replace(run, params=run.params.model_copy(update={"train": train}))


def _iterations(limit: int | None, usual: int) -> int:
    if limit is None:
        return usual
    _check_positive("--limit", limit)
    return limit


def _check_positive(flag: str, value: int) -> None:
    if value < 1:
        raise ParamsError(f"{flag} {value}: give a number of at least 1")
