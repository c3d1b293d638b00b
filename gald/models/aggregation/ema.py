"""Expectation-maximisation attention: describe the image by a few bases, and each position as a mixture of them.

The bases are the means of a mixture, fitted to the positions of each image in a few steps of expectation (whose
position is it?) and maximisation (where is the mean?). The start of the fit is learnt as a moving average.

References
----------
Li, Zhong, Wu, Yang, Lin, Liu: Expectation-Maximization Attention Networks for Semantic Segmentation, ICCV 2019,
section 3; equation 15 is the moving average.
"""

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn import functional

from gald.errors import ModelError
from gald.models.layers import Feature, conv_norm_act
from gald.options import Fraction, NonNegativeInt, PositiveInt

_EPSILON = 1e-6  # of the released code, under norms and sums of responsibilities

Positions = Float[Tensor, "n c l"]
Bases = Float[Tensor, "n c k"]
Responsibilities = Float[Tensor, "n k l"]


def expect(positions: Positions, bases: Bases) -> Responsibilities:
    """Share of each basis in each position; the shares of a position sum to one."""
    return (bases.transpose(1, 2) @ positions).softmax(dim=1)


def maximise(positions: Positions, shares: Responsibilities) -> Bases:
    """Mean of the positions by their shares in each basis, brought to length one."""
    weights = shares / (shares.sum(dim=2, keepdim=True) + _EPSILON)
    means = positions @ weights.transpose(1, 2)
    normed: Bases = means / (means.norm(dim=1, keepdim=True) + _EPSILON)
    return normed


def _over_processes(mean: Bases) -> Bases:
    """Mean over the processes of a training, each of which sees an equal part of the batch."""
    if not distributed.is_available() or not distributed.is_initialized() or mean.is_meta:
        return mean
    distributed.all_reduce(mean)
    return mean / distributed.get_world_size()


class ExpectationMaximisation(nn.Module):
    """ReLU(x + BN(W2 ReLU(bases shares))), bases and shares fitted to W1 x.

    The released code lets no gradient pass the fit, and with that none reach W1, which stays as it was drawn. Here
    gradients pass the last step, unless asked otherwise; the steps before only say where it starts.

    In training the moving average takes the mean of the batch's bases in each forward pass, of the whole batch where
    several processes share it. In evaluation the kept bases start the fit and stay as they are.
    """

    bases: Tensor

    def __init__(self, channels: int, bases: int, steps: int, momentum: float, gradient_steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.momentum = momentum
        self.gradient_steps = gradient_steps
        self.before = nn.Conv2d(channels, channels, 1)
        self.after = conv_norm_act(channels, channels, 1, activation=False)
        self.register_buffer("bases", functional.normalize(torch.randn(1, channels, bases), dim=1))

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        positions = self.before(feature).flatten(2)
        shares, bases = self.fit(positions)
        if self.training:
            self._keep(bases.detach())
        described = functional.relu((bases @ shares).reshape(feature.shape))
        aggregated: Feature = functional.relu(feature + self.after(described))
        return aggregated

    def fit(self, positions: Positions) -> tuple[Responsibilities, Bases]:
        """Shares and bases of each image after the last step, begun from the kept bases."""
        bases = self.bases.to(positions.dtype, copy=True).expand(positions.shape[0], -1, -1)
        differentiable = torch.is_grad_enabled()
        for step in range(self.steps):
            with torch.set_grad_enabled(differentiable and step >= self.steps - self.gradient_steps):
                shares = expect(positions, bases)
                bases = maximise(positions, shares)
        return shares, bases

    def _keep(self, bases: Bases) -> None:
        mean = bases.mean(dim=0, keepdim=True, dtype=self.bases.dtype)
        self.bases.lerp_(_over_processes(mean), 1 - self.momentum)


def build(
    channels: int,
    *,
    bases: PositiveInt = 64,
    steps: PositiveInt = 3,
    momentum: Fraction = 0.9,
    gradient_steps: NonNegativeInt = 1,
) -> ExpectationMaximisation:
    """Expectation-maximisation attention, (N, C, H, W) to the same shape.

    Parameters
    ----------
    channels : int
        Channels of the feature.
    bases : int
        Number K of bases.
    steps : int
        Steps of the fit, in training and evaluation.
    momentum : float
        Part of the kept bases that stays in an update, in [0, 1].
    gradient_steps : int
        Number of last steps that gradients pass through, 0 to `steps`; the released code's is 0, which leaves the
        first convolution untrained.

    Raises
    ------
    ModelError
        More steps with gradients than steps.

    Notes
    -----
    The paper speaks of no stopped gradient; taken at its word, its block is ``gradient_steps=3``. The released code's
    is ``gradient_steps=0``. All other defaults are those of both.
    """
    if gradient_steps > steps:
        raise ModelError(f"aggregation ema: gradient_steps is {gradient_steps}; allowed are 0 to steps, {steps}")
    return ExpectationMaximisation(channels, bases, steps, momentum, gradient_steps)
