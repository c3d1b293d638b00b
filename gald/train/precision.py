"""Half precision: which operations run in it, and how fp16 keeps small gradients from vanishing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gald.params import TrainParams
from gald.train.optimiser import Optimiser

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LEAST_SCALE = 2.0**-10
"""Gradients that overflow at a smaller scale are not finite at any."""


class Precision:
    """Autocast of the forward pass, and the scaling of the loss that fp16 needs.

    Weights, gradients, losses and updates stay float32 throughout.

    Parameters
    ----------
    params : TrainParams
        `precision` and `device` are used.
    """

    def __init__(self, params: TrainParams) -> None:
        self._device = params.device
        self._dtype = _DTYPES.get(params.precision)
        self._scaler = torch.amp.GradScaler(params.device) if params.precision == "fp16" else None

    def autocast(self) -> AbstractContextManager[None]:
        """Context of a forward pass."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device, self._dtype)

    def scaled(self, loss: Tensor) -> Tensor:
        """Loss to differentiate."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def unscale(self, optimiser: Optimiser) -> None:
        """Bring gradients back to their own size, once all of an iteration are there."""
        if self._scaler is not None:
            self._scaler.unscale_(optimiser)  # type: ignore[arg-type]  # of an optimiser it uses param_groups alone

    def step(self, optimiser: Optimiser, rate: float) -> None:
        """Update, unless fp16 overflowed; then the scale is halved, and the next iteration tries with that."""
        if self._scaler is None:
            optimiser.step(rate)
            return
        self._scaler.step(optimiser, rate)  # type: ignore[arg-type]
        self._scaler.update()

    @property
    def overflows(self) -> bool:
        """Whether gradients that are not finite belong to the day's work: fp16 finds its scale by them."""
        return self._scaler is not None and self._scaler.get_scale() >= _LEAST_SCALE

    @property
    def state(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)
