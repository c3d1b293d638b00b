"""Stochastic gradient descent with momentum, bit for bit `torch.optim.SGD`, without its second of imports.

Constructing a `torch.optim.Optimizer` imports the compiler of PyTorch, which a training of a few seconds would wait
for. The update itself is torch's own, through its functional form.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from gald.params import TrainParams


class SGD:
    """Momentum SGD over two groups: the backbone, and everything else at `head_learning_rate_factor` times the rate.

    Parameters
    ----------
    model : nn.Module
        Network whose parameters are updated; those below ``backbone.`` are the backbone's.
    params : TrainParams
        `momentum`, `weight_decay` and `head_learning_rate_factor` are used. All parameters decay, as in the
        authors' code.
    """

    def __init__(self, model: nn.Module, params: TrainParams) -> None:
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.momenta = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
        self._groups = [
            (1.0, {name: parameter for name, parameter in named.items() if name.startswith("backbone.")}),
            (
                params.head_learning_rate_factor,
                {name: parameter for name, parameter in named.items() if not name.startswith("backbone.")},
            ),
        ]
        self._momentum = params.momentum
        self._weight_decay = params.weight_decay

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update every parameter from its gradient, then drop the gradients.

        Parameters
        ----------
        learning_rate : float
            Rate of the backbone.
        """
        for factor, group in self._groups:
            used = {name: parameter for name, parameter in group.items() if parameter.grad is not None}
            sgd(
                list(used.values()),
                [parameter.grad for parameter in used.values() if parameter.grad is not None],
                [self.momenta[name] for name in used],
                weight_decay=self._weight_decay,
                momentum=self._momentum,
                lr=learning_rate * factor,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
            for parameter in used.values():
                parameter.grad = None

    def load(self, momenta: dict[str, Tensor]) -> None:
        """Take over the momenta of a checkpoint, by name."""
        for name, value in momenta.items():
            self.momenta[name].copy_(value)
