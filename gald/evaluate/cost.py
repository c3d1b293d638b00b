"""What a network costs: parameters, and multiply-accumulates for one image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from gald.models.segmentor import Segmentor


class Cost(NamedTuple):
    """Cost of prediction; the auxiliary head takes no part in it.

    Attributes
    ----------
    parameters : int
        Numbers that training sets.
    gmacs : float
        Billions of multiply-accumulates of convolutions and matrix products for one image of `size`; norms,
        activations and resizing are not counted, as usual.
    size : (int, int)
        Height and width of that image in pixels.
    """

    parameters: int
    gmacs: float
    size: tuple[int, int]


def cost(model: Segmentor, size: tuple[int, int]) -> Cost:
    """Measure a network by running it once on an image of `size` (height, width)."""
    parameters = sum(
        parameter.numel() for name, parameter in model.named_parameters() if not name.startswith("aux_head.")
    )
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, 3, *size, device=model.mean.device))
    return Cost(parameters, counter.get_total_flops() / 2e9, size)
