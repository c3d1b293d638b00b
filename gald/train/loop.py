"""The training loop: batch, loss, gradient, update, and what is written down on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gald.errors import TrainingDiverged, TrainingInterrupted
from gald.inference import as_input
from gald.losses import Losses, segmentation_loss, valid_weight
from gald.models.segmentor import Segmentor
from gald.params import TrainParams
from gald.train import faults
from gald.train.aside import AFRESH
from gald.train.averaging import Average
from gald.train.interval import Interval, IterationLosses
from gald.train.loader import Batch, Samples, batches
from gald.train.norms import training_mode
from gald.train.optimiser import Optimiser
from gald.train.parallel import World
from gald.train.precision import Precision
from gald.train.schedule import learning_rate
from gald.train.seeding import seed_dropout
from gald.train.voices import told_elsewhere


@dataclass
class State:
    """All that changes while a network is trained.

    Attributes
    ----------
    model : Segmentor
        The network.
    network : nn.Module
        What is called to compute its logits: the model itself, compiled, or wrapped for several processes.
    average : Average or None
        Moving average of its weights.
    best : dict or None
        ``iteration`` and ``mean_iou`` of the best validation so far, and how many came after it (``since``).
    """

    model: Segmentor
    network: nn.Module
    optimiser: Optimiser
    precision: Precision
    average: Average | None = None
    iteration: int = 0
    interval: Interval = field(default_factory=Interval)
    best: dict[str, Any] | None = None


@dataclass(frozen=True)
class Hooks:
    """What the loop tells the outside, and what it asks.

    Attributes
    ----------
    stop : callable
        Asked once an iteration: a reason to stop, or None.
    keep : callable
        Told to write a checkpoint.
    write : callable
        Given a history line.
    show : callable
        Told iteration and loss, for the terminal.
    validate : callable
        Asked for scores after the iterations that the params name; returns numbers for the history line.
    """

    stop: Callable[[], str | None]
    keep: Callable[[State], None]
    write: Callable[[dict[str, Any]], None]
    show: Callable[[int, float], None]
    validate: Callable[[State], dict[str, float]]


def train(state: State, samples: Samples, params: TrainParams, hooks: Hooks, world: World) -> None:
    """Train from `state.iteration` to `params.max_iters`, or to where validation ends it early.

    Parameters
    ----------
    state : State
        Network and optimiser, changed in place.
    samples : Samples
        Where batches come from.
    params : TrainParams
        The recipe.
    hooks : Hooks
        `write` gets a history line every `log_every` iterations and at the end, `keep` the state every
        `checkpoint_every` iterations and before a stop.
    world : World
        The processes that share each batch.

    Raises
    ------
    TrainingDiverged
        Loss or gradient is not finite.
    TrainingInterrupted
        `hooks.stop` gave a reason; the state was kept.
    DatasetError
        A sample cannot be read.
    """
    training_mode(state.model, params)
    ended = time.perf_counter()
    for iteration, batch in batches(samples, params, state.iteration, rank=world.rank, world=world.size):
        if ended_early(state, params):
            return
        waited = time.perf_counter() - ended
        rate = rate_at(iteration, params)
        losses = train_one_iteration(state, batch, params, iteration, rate, world)
        state.iteration = iteration + 1
        ended, began = time.perf_counter(), ended
        state.interval.add(losses, ended - began, waited)
        last = state.iteration == params.max_iters
        scored = hooks.validate(state) if _due(state.iteration, params.validation.every, last) else {}
        if scored or last or state.iteration % params.log_every == 0:
            hooks.write(state.interval.line(state.iteration, rate, params.batch_size, world) | scored)
            state.interval = Interval()
        hooks.show(state.iteration, losses.total)
        if last:
            return
        reason = hooks.stop()
        if world.any(reason is not None):
            hooks.keep(state)
            raise _stopped(state.iteration, params, reason, world)
        if state.iteration % params.checkpoint_every == 0:
            hooks.keep(state)
        ended = time.perf_counter()  # scores and checkpoints are no part of an iteration, and nobody waits for data


def _stopped(iteration: int, params: TrainParams, reason: str | None, world: World) -> TrainingInterrupted:
    """What ends a training that was told to stop; the first process says so, with the reason of whoever had one."""
    reasons = world.gathered(reason)
    rank = next(rank for rank, found in enumerate(reasons) if found is not None)
    whose = f"of process {rank}: " if rank else ""
    error = TrainingInterrupted(
        f"stopped after iteration {iteration} of {params.max_iters}, because {whose}{reasons[rank]}; the same command "
        "goes on from there"
    )
    return error if world.first else told_elsewhere(error)


def train_one_iteration(
    state: State, batch: Batch, params: TrainParams, iteration: int, rate: float, world: World
) -> IterationLosses:
    """Forward, backward and update on one batch, in as many parts as the params say.

    Raises
    ------
    TrainingDiverged
        Loss or gradient is not finite; the network was not updated.
    """
    masks = batch.masks.to(world.device, non_blocking=True)
    # The pixels of all parts and processes together: a mean of their means would weigh pixels unequally.
    denominator = world.total(_valid(state, params, masks)) / world.size
    seen: list[Losses] = []
    for part, (images, mask) in enumerate(_parts(batch.images, masks, params)):
        seed_dropout(params.seed, iteration, world.rank * params.micro_batches + part)
        inputs = _inputs(images, params, world)
        with world.accumulating(state.network, part + 1 == params.micro_batches):
            with state.precision.autocast():
                scores = state.network(inputs, with_aux=state.model.aux_head is not None, full_size=False)
            losses = _loss(state, params, mask, denominator, world)(scores)
            torch.autograd.backward(state.precision.scaled(losses.total))
        seen.append(losses)
    state.precision.unscale(state.optimiser)
    gradients = [value.grad for value in state.model.parameters() if value.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    numbers = IterationLosses.of(seen, norm)
    finite = math.isfinite(numbers.total) and (math.isfinite(numbers.gradient_norm) or state.precision.overflows)
    if world.any(not finite):  # of one process's loss the gradient tells the others nothing where fp16 may overflow
        raise _diverged(state, batch, params, iteration, rate, numbers, world)
    if params.clip_gradient_norm is not None:
        nn.utils.clip_grads_with_norm_(list(state.model.parameters()), params.clip_gradient_norm, norm)
    state.precision.step(state.optimiser, rate)
    state.optimiser.drop_gradients()
    if state.average is not None:
        state.average.update(state.model, iteration)
    return numbers


def _parts(images: Tensor, masks: Tensor, params: TrainParams) -> zip[tuple[Tensor, Tensor]]:
    """Cut a process's share of the batch into micro-batches."""
    return zip(images.chunk(params.micro_batches), masks.chunk(params.micro_batches), strict=True)


def _inputs(images: Tensor, params: TrainParams, world: World) -> Tensor:
    """What the network takes, in the memory order that its weights have."""
    inputs = as_input(images.to(world.device, non_blocking=True))
    return inputs if params.channels_last else inputs.contiguous()


def _valid(state: State, params: TrainParams, masks: Tensor) -> Tensor:
    return valid_weight(masks, state.model.num_classes, params.loss.class_weights)


def _loss(
    state: State, params: TrainParams, mask: Tensor, denominator: Tensor, world: World
) -> Callable[[Any], Losses]:
    def loss(scores: Any) -> Losses:
        return segmentation_loss(
            scores,
            mask,
            params,
            align_corners=state.model.align_corners,
            denominator=denominator,
            devices=world.size,
        )

    return loss


def rate_at(iteration: int, params: TrainParams) -> float:
    """Learning rate of the backbone in an iteration."""
    return learning_rate(
        iteration,
        base=params.learning_rate,
        power=params.power,
        max_iters=params.max_iters,
        warmup_iters=params.warmup_iters,
    )


def ended_early(state: State, params: TrainParams) -> bool:
    """Whether validation has gone without a better score for as long as the params allow."""
    patience = params.validation.patience
    return patience is not None and state.best is not None and state.best["since"] >= patience


def _due(iteration: int, every: int, last: bool) -> bool:
    return every > 0 and (last or iteration % every == 0)


def _diverged(
    state: State,
    batch: Batch,
    params: TrainParams,
    iteration: int,
    rate: float,
    numbers: IterationLosses,
    world: World,
) -> TrainingDiverged:
    """Compute the iteration once more to find the layer, and say all that is known; of several, the worst one says it.

    All processes come here together, since synchronised norms need every one of them in each pass.
    """
    masks = batch.masks.to(world.device)
    denominator = _valid(state, params, masks)
    where: list[str] = []
    for part, (images, mask) in enumerate(_parts(batch.images, masks, params)):
        seed_dropout(params.seed, iteration, world.rank * params.micro_batches + part)
        inputs, loss = _inputs(images, params, world), _loss(state, params, mask, denominator, world)
        with state.precision.autocast():
            where += filter(None, [faults.first_bad_layer(state.model, inputs, loss, world.any)])
    error = TrainingDiverged(
        f"iteration {iteration + 1}: the loss is {numbers.total:.6g} (main {numbers.main:.6g}, auxiliary "
        f"{numbers.aux:.6g}), the gradient's norm {numbers.gradient_norm:.6g}, at learning rate {rate:.3g} on samples "
        f"{', '.join(batch.ids)}; not finite first: {next(iter(where), faults.NOWHERE)}. Checkpoints from before "
        "it stay. Lower train.learning_rate, raise train.warmup_iters or set train.clip_gradient_norm, if these "
        f"samples are in order; {AFRESH}"
    )
    known = world.gathered((not math.isfinite(numbers.total), bool(where)))
    return error if world.rank == known.index(max(known)) else told_elsewhere(error)
