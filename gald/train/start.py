"""Where a training begins: network and optimiser as drawn and loaded, or as a checkpoint holds them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gald import provenance
from gald.inference import channels_last
from gald.models.segmentor import build_segmentor
from gald.params import TrainParams
from gald.train import aside, checkpoint, history
from gald.train.averaging import Average
from gald.train.interval import Interval
from gald.train.loop import State
from gald.train.norms import refuse_lone_samples, synchronised
from gald.train.optimiser import Optimiser
from gald.train.parallel import World
from gald.train.precision import Precision
from gald.train.recipe import Line, as_record, changed_since
from gald.train.recompute import recompute_blocks
from gald.train.task import Task

_LOG = logging.getLogger("gald.train")


def build_state(task: Task, world: World) -> State:
    """Build network and optimiser, with freshly drawn or pretrained weights; equal in every process."""
    model_params, params = task.run.params.model, task.run.params.train
    torch.manual_seed(params.seed)
    with world.together():
        refuse_lone_samples(task.run.params, world)
        model = build_segmentor(model_params, len(task.classes)).to(world.device)
        model = synchronised(channels_last(model) if params.channels_last else model, world, params)
        if params.activation_checkpointing:
            recompute_blocks(model.backbone)
    average = None if params.average_decay is None else Average(model, params.average_decay)
    network = world.wrap(model)
    if params.compile:
        network = cast(nn.Module, torch.compile(network))
    return State(model, network, Optimiser(model, params), Precision(params), average)


def take_over(task: Task, state: State, world: World, recipe: Sequence[Line]) -> list[dict[str, Any]]:
    """Go on from the newest checkpoint that fits, if there is one.

    Parameters
    ----------
    task : Task
        What is trained.
    state : State
        As built; changed in place.
    world : World
        The first process reads the checkpoint and hands it to the others.
    recipe : sequence of Line
        What this process is about to do.

    Returns
    -------
    list of dict
        What made the state so far, oldest first: code, environment and effective recipe.
    """
    run, params = task.run, task.run.params.train
    # Names the code and the machine: what may change bits although params and data are the same.
    origin = {"code": task.code["digest"], "environment": environment(params, world), "recipe": as_record(recipe)}
    found = world.share(_fitting(task, state) if world.first else None)
    if found is None:
        if world.first:
            checkpoint.clear(task.folder)
            _LOG.info("%s: training %d iterations on %d samples", run.name, params.max_iters, len(task.split))
        return [origin]
    state.model.load_state_dict(found.tensors["model"])
    state.optimiser.load(found.tensors["optimiser"])
    if state.average is not None:
        state.average.load(found.tensors["average"])
    state.precision.load(found.progress["scale"])
    state.iteration, state.best = found.iteration, found.progress["best"]
    state.interval = Interval.resumed(found.progress["interval"])
    origins: list[dict[str, Any]] = found.origins
    if world.first:
        history.truncate(task.growing_history, found.iteration)
        _LOG.info("%s: going on from iteration %d of %d", run.name, found.iteration, params.max_iters)
        if origins[-1] != origin:
            other = changed_since(origin["recipe"], [origins[-1].get("recipe", ())])
            _LOG.warning(
                "%s: the checkpoint was made by other code or on another machine%s; run.json says so",
                run.name, f" (other from here on: {', '.join(other)})" if other else "",
            )  # fmt: skip
    return origins if origins[-1] == origin else [*origins, origin]


def _fitting(task: Task, state: State) -> checkpoint.Checkpoint | None:
    aside.settle(task.folder, task.identity)
    found = checkpoint.load(task.folder, task.identity)
    if found is not None and _shapes(found.tensors) != _shapes(tensors_of(state)):
        _LOG.warning(
            "%s: the checkpoint is of another network, since the code has changed; starting afresh", task.run.name
        )
        return None
    return found


def tensors_of(state: State) -> dict[str, dict[str, Tensor]]:
    """All tensors that a training goes on from, by kind and name."""
    kinds = {"model": state.model.state_dict(), "optimiser": state.optimiser.state}
    return kinds if state.average is None else {**kinds, "average": state.average.tensors}


def _shapes(tensors: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, torch.Size]]:
    return {kind: {name: value.shape for name, value in named.items()} for kind, named in tensors.items()}


def keeper(task: Task, origins: list[dict[str, Any]], world: World) -> Callable[[State], checkpoint.Checkpoint]:
    """Make what turns a state into a checkpoint of this training; every process calls it, since they add up sums."""

    def kept(state: State) -> checkpoint.Checkpoint:
        progress = {"interval": state.interval.sums(world), "scale": state.precision.state, "best": state.best}
        return checkpoint.Checkpoint(state.iteration, task.identity, origins, progress, tensors_of(state))

    return kept


def environment(params: TrainParams, world: World) -> dict[str, Any]:
    """Describe what decides the bits of a training beside its code, params and data."""
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "device": device,
        "processes": world.size,
        "cpu": provenance.cpu_name(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": params.threads,
    }
