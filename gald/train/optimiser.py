"""Momentum SGD and AdamW, bit for bit those of `torch.optim`, without their second of imports.

Constructing a `torch.optim.Optimizer` imports the compiler of PyTorch, which a training of a few seconds would wait
for. The updates themselves are torch's own, through their functional forms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from gald.params import TrainParams

_EPSILON = 1e-8  # torch's default


class Optimiser:
    """Updates of a network's parameters, in groups that differ in learning rate and weight decay.

    The backbone learns at the schedule's rate and everything else at `head_learning_rate_factor` times that. All
    parameters decay, as in the authors' code, unless `decay_norm_and_bias` is false: then those of one dimension, which
    are biases and the parameters of norms, do not.

    Parameters
    ----------
    model : nn.Module
        Network whose parameters are updated; those below ``backbone.`` are the backbone's.
    params : TrainParams
        `optimiser` and its numbers.

    Attributes
    ----------
    state : dict of str to Tensor
        What the optimiser remembers, by kind and parameter, for example ``momentum/head.classifier.bias``.
    param_groups : list of dict
        The parameters as a `torch.amp.GradScaler` wants them.
    """

    def __init__(self, model: nn.Module, params: TrainParams) -> None:
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        kinds = ("momentum",) if params.optimiser == "sgd" else ("first", "second")
        self.state = {f"{kind}/{name}": torch.zeros_like(value) for kind in kinds for name, value in named.items()}
        if params.optimiser == "adamw":
            self.state |= {f"steps/{name}": torch.zeros(()) for name in named}
        self._params = params
        self._groups = _groups(named, params)
        self.param_groups: list[dict[str, Any]] = [{"params": list(group.values())} for _, _, group in self._groups]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        learning_rate : float
            Rate of the backbone.
        """
        update = self._sgd if self._params.optimiser == "sgd" else self._adamw
        for factor, decay, group in self._groups:
            used = {name: parameter for name, parameter in group.items() if parameter.grad is not None}
            gradients = [parameter.grad for parameter in used.values() if parameter.grad is not None]
            if used:
                update(used, gradients, learning_rate * factor, decay)

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        for _, _, group in self._groups:
            for parameter in group.values():
                parameter.grad = None

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over the state of a checkpoint, by name."""
        for name, value in state.items():
            self.state[name].copy_(value)

    def _of(self, kind: str, named: dict[str, nn.Parameter]) -> list[Tensor]:
        return [self.state[f"{kind}/{name}"] for name in named]

    def _sgd(self, named: dict[str, nn.Parameter], gradients: list[Tensor], rate: float, decay: float) -> None:
        sgd(
            list(named.values()),
            gradients,
            self._of("momentum", named),  # type: ignore[arg-type]  # a list may hold None
            weight_decay=decay,
            momentum=self._params.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def _adamw(self, named: dict[str, nn.Parameter], gradients: list[Tensor], rate: float, decay: float) -> None:
        beta1, beta2 = self._params.betas
        adamw(
            list(named.values()),
            gradients,
            self._of("first", named),
            self._of("second", named),
            [],
            self._of("steps", named),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=rate,
            weight_decay=decay,
            eps=_EPSILON,
            maximize=False,
        )


def _groups(named: dict[str, nn.Parameter], params: TrainParams) -> list[tuple[float, float, dict[str, nn.Parameter]]]:
    """Factor of the learning rate, weight decay and parameters of each group, in the network's order."""
    groups: dict[tuple[float, float], dict[str, nn.Parameter]] = {}
    for name, parameter in named.items():
        factor = 1.0 if name.startswith("backbone.") else params.head_learning_rate_factor
        decay = params.weight_decay if parameter.ndim > 1 or params.decay_norm_and_bias else 0.0
        groups.setdefault((factor, decay), {})[name] = parameter
    return [(factor, decay, group) for (factor, decay), group in groups.items()]
