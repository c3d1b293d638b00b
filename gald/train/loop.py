"""The training loop: batch, loss, gradient, update, and what is written down on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gald.errors import TrainingDiverged, TrainingInterrupted
from gald.inference import as_input
from gald.losses import segmentation_loss
from gald.models.segmentor import Segmentor
from gald.params import TrainParams
from gald.train.loader import Batch, Samples, batches
from gald.train.optimiser import SGD
from gald.train.schedule import learning_rate

_DROPOUT_STREAM = 2


@dataclass
class Interval:
    """Sums over the iterations since the last history line; times are this process's own."""

    count: int = 0
    loss: float = 0.0
    main_loss: float = 0.0
    aux_loss: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    timed: int = 0

    def add(self, losses: IterationLosses, seconds: float, waited: float) -> None:
        """Count one iteration that took `seconds`, of which `waited` passed until its batch was there."""
        self.count += 1
        self.loss += losses.total
        self.main_loss += losses.main
        self.aux_loss += losses.aux
        self.timed += 1
        self.seconds += seconds
        self.waited += waited

    def line(self, iteration: int, rate: float, batch_size: int) -> dict[str, Any]:
        """History line of the interval that ends with `iteration`: means of losses, images a second, share waited."""
        return {
            "iteration": iteration,
            "loss": self.loss / self.count,
            "main_loss": self.main_loss / self.count,
            "aux_loss": self.aux_loss / self.count,
            "learning_rate": rate,
            "images_per_second": round(self.timed * batch_size / self.seconds, 3),
            "data_wait": round(self.waited / self.seconds, 4),
            "timestamp": round(time.time(), 3),
        }

    @property
    def sums(self) -> list[float]:
        """What a resumed training needs to end the interval with the same means."""
        return [self.count, self.loss, self.main_loss, self.aux_loss]

    @classmethod
    def resumed(cls, sums: list[float]) -> Interval:
        """Interval of a checkpoint's `sums`."""
        count, loss, main_loss, aux_loss = sums
        return cls(int(count), loss, main_loss, aux_loss)


@dataclass(frozen=True)
class IterationLosses:
    """Losses of one iteration as numbers; the auxiliary one is 0 without an auxiliary head."""

    total: float
    main: float
    aux: float


@dataclass
class State:
    """All that changes while a network is trained."""

    model: Segmentor
    optimiser: SGD
    iteration: int = 0
    interval: Interval = field(default_factory=Interval)


@dataclass(frozen=True)
class Hooks:
    """What the loop tells the outside, and what it asks."""

    stop: Callable[[], str | None]
    keep: Callable[[State], None]
    write: Callable[[dict[str, Any]], None]
    show: Callable[[int, float], None]


def train(state: State, samples: Samples, params: TrainParams, hooks: Hooks) -> None:
    """Train from `state.iteration` to `params.max_iters`.

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

    Raises
    ------
    TrainingDiverged
        The loss is not finite.
    TrainingInterrupted
        `hooks.stop` gave a reason; the state was kept.
    DatasetError
        A sample cannot be read.
    """
    state.model.train()
    ended = time.perf_counter()
    for iteration, batch in batches(samples, params, state.iteration):
        waited = time.perf_counter() - ended
        rate = rate_at(iteration, params)
        losses = train_one_iteration(state, batch, params, iteration, rate)
        state.iteration = iteration + 1
        ended, began = time.perf_counter(), ended
        state.interval.add(losses, ended - began, waited)
        last = state.iteration == params.max_iters
        if last or state.iteration % params.log_every == 0:
            hooks.write(state.interval.line(state.iteration, rate, params.batch_size))
            state.interval = Interval()
        hooks.show(state.iteration, losses.total)
        if not last and (reason := hooks.stop()):
            hooks.keep(state)
            raise TrainingInterrupted(
                f"stopped after iteration {state.iteration} of {params.max_iters}, because {reason}; "
                "the same command goes on from there"
            )
        if not last and state.iteration % params.checkpoint_every == 0:
            hooks.keep(state)


def train_one_iteration(
    state: State, batch: Batch, params: TrainParams, iteration: int, rate: float
) -> IterationLosses:
    """Forward, backward and update on one batch.

    Raises
    ------
    TrainingDiverged
        The loss is not finite; the network was not updated.
    """
    seed_dropout(params.seed, iteration)
    images = as_input(batch.images.to(params.device))
    masks = batch.masks.to(params.device).long()
    output = state.model(images, with_aux=state.model.aux_head is not None)
    losses = segmentation_loss(output, masks, params)
    numbers = IterationLosses(losses.total.item(), losses.main.item(), 0.0 if losses.aux is None else losses.aux.item())
    if not math.isfinite(numbers.total):
        raise TrainingDiverged(
            f"iteration {iteration + 1}: the loss is {numbers.total} (main {numbers.main}, auxiliary {numbers.aux}) at "
            f"learning rate {rate:.3g} on samples {', '.join(batch.ids)}; lower train.learning_rate, or raise "
            "train.warmup_iters, if these samples are in order"
        )
    torch.autograd.backward(losses.total)
    state.optimiser.step(rate)
    return numbers


def rate_at(iteration: int, params: TrainParams) -> float:
    """Learning rate of the backbone in an iteration."""
    return learning_rate(
        iteration,
        base=params.learning_rate,
        power=params.power,
        max_iters=params.max_iters,
        warmup_iters=params.warmup_iters,
    )


def seed_dropout(seed: int, iteration: int) -> None:
    """Make torch's own draws (dropout) a function of seed and iteration, so that no random state is ever saved."""
    words = np.random.SeedSequence((seed, _DROPOUT_STREAM, iteration)).generate_state(2)
    torch.default_generator.manual_seed(int(words[0]) << 31 ^ int(words[1]))
    if torch.cuda.is_available():
        torch.cuda.manual_seed(int(words[0]))
