"""Exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """Moving average of all floating-point tensors of a network, the statistics of its norms included.

    The decay starts low, as ``min(decay, (1 + t) / (10 + t))`` in iteration t, so that the first weights, which are
    drawn at random, do not linger.

    Parameters
    ----------
    model : nn.Module
        Network to follow; the average begins as its weights.
    decay : float
        Share of the old average that an iteration keeps, below 1.

    References
    ----------
    Polyak and Juditsky: Acceleration of stochastic approximation by averaging, 1992. The start is that of TensorFlow's
    `ExponentialMovingAverage` with `num_updates`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int) -> None:
        """Move towards the network's weights after `iteration` (from 0)."""
        decay = min(self._decay, (1 + iteration) / (10 + iteration))
        current = model.state_dict()
        moving = [name for name, tensor in current.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.tensors[name] for name in moving], [current[name] for name in moving], 1 - decay)
        for name in current.keys() - set(moving):  # counters have no mean
            self.tensors[name].copy_(current[name])

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over the average of a checkpoint."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)
