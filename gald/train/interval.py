"""What is summed up between two lines of a history."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gald.losses import Losses
from gald.train.parallel import World


@dataclass(frozen=True)
class IterationLosses:
    """Losses of one iteration as numbers; the auxiliary one is 0 without an auxiliary head."""

    total: float
    main: float
    aux: float
    gradient_norm: float

    @classmethod
    def of(cls, parts: Sequence[Losses], gradient_norm: Tensor) -> IterationLosses:
        """Add up the micro-batches, whose losses are shares of the whole; one transfer from the device for all."""
        zero = torch.zeros_like(parts[0].total)
        rows = [torch.stack([part.total, part.main, zero if part.aux is None else part.aux]) for part in parts]
        return cls(*torch.cat([torch.stack(rows).detach().sum(0), gradient_norm[None]]).tolist())


@dataclass
class Interval:
    """Sums over the iterations since the last history line; times are this process's own."""

    count: int = 0
    loss: float = 0.0
    main_loss: float = 0.0
    aux_loss: float = 0.0
    gradient_norm: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    timed: int = 0

    def add(self, losses: IterationLosses, seconds: float, waited: float) -> None:
        """Count one iteration that took `seconds`, of which `waited` passed until its batch was there."""
        self.count += 1
        self.loss += losses.total
        self.main_loss += losses.main
        self.aux_loss += losses.aux
        self.gradient_norm += losses.gradient_norm if math.isfinite(losses.gradient_norm) else 0.0  # fp16 overflowed
        self.timed += 1
        self.seconds += seconds
        self.waited += waited

    def line(self, iteration: int, rate: float, batch_size: int, world: World) -> dict[str, Any]:
        """History line of the interval that ends with `iteration`.

        Losses and gradient norm are means over the interval and all processes; images a second are those of all
        together; the share of time waited for data is that of the process that waits most, for which the others wait;
        the memory is the first process's.
        """
        loss, main_loss, aux_loss, gradient_norm = (value / self.count for value in self.sums(world)[1:])
        return {
            "iteration": iteration,
            "loss": loss,
            "main_loss": main_loss,
            "aux_loss": aux_loss,
            "gradient_norm": gradient_norm,
            "learning_rate": rate,
            "images_per_second": round(self.timed * batch_size / self.seconds, 3),
            "data_wait": round(world.largest(self.waited / self.seconds), 4),
            "memory_mib": memory_mib(world.device),
            "timestamp": round(time.time(), 3),
        }

    def sums(self, world: World) -> list[float]:
        """What a resumed training needs to end the interval with the same means: of any process, their mean."""
        own = [self.loss, self.main_loss, self.aux_loss, self.gradient_norm]
        total = world.total(torch.tensor(own, dtype=torch.float64, device=world.device))
        return [self.count, *(total / world.size).tolist()]

    @classmethod
    def resumed(cls, sums: Sequence[float]) -> Interval:
        """Interval of a checkpoint's `sums`."""
        count, loss, main_loss, aux_loss, gradient_norm = sums
        return cls(int(count), loss, main_loss, aux_loss, gradient_norm)


def memory_mib(device: torch.device) -> int:
    """Most memory that this process has held so far: the GPU's, or on a CPU all of it."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)  # Linux counts in KiB
