"""What a network takes, and the form in which it predicts fastest."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from gald.models.folded import folded
from gald.models.segmentor import Segmentor


def as_input(
    images: UInt8[Tensor, "n h w 3"], *, out: Float[Tensor, "n 3 h w"] | None = None
) -> Float[Tensor, "n 3 h w"]:
    """Turn images as they are stored into what a network takes: float32 (N, 3, H, W) in [0, 1].

    Training and prediction share this function. The memory stays in channels-last order, as the image has it: depthwise
    convolutions on a CPU are several times as fast in it, the others no slower. It runs where the images are, so that
    only bytes travel to a device.

    Parameters
    ----------
    images : Tensor
        uint8 (N, H, W, 3), RGB.
    out : Tensor, optional
        Where to write, in channels-last order; memory used before saves the system from clearing new pages.

    Returns
    -------
    Tensor
        float32 (N, 3, H, W); the same bits with and without `out`.
    """
    channels_first = images.permute(0, 3, 1, 2)
    return (channels_first.to(torch.float32) if out is None else out.copy_(channels_first)).div_(255)


def channels_last(model: Segmentor) -> Segmentor:
    """Lay the model's convolutions out for the images of `as_input`; values stay."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload]  # torch: 4-d only


def for_prediction(model: Segmentor) -> Segmentor:
    """Copy a network in the form in which `predict` is fastest, see `gald.models.folded`; logits stay to rounding."""
    return channels_last(folded(model))
