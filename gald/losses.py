"""Pixel losses: cross-entropy, its online hard example mining, and the weighting of the auxiliary head.

All logits come at the size of the mask; every loss is a sum over pixels divided by their number, so that a batch in
which all pixels are ignored gives 0 with zero gradients and not NaN.
"""

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from gald.datasets import IGNORE_INDEX
from gald.models.segmentor import SegmentorOutput
from gald.params import TrainParams

Logits = Float[Tensor, "n k h w"]
Mask = Int64[Tensor, "n h w"]
Scalar = Float[Tensor, ""]


class Losses(NamedTuple):
    """Loss of a batch.

    Attributes
    ----------
    total : Tensor
        What is minimised: main plus weighted auxiliary loss.
    main : Tensor
        Loss of the main head.
    aux : Tensor or None
        Loss of the auxiliary head before weighting, where there is one.
    """

    total: Scalar
    main: Scalar
    aux: Scalar | None


def cross_entropy(logits: Logits, mask: Mask, *, ignore_index: int = IGNORE_INDEX) -> Scalar:
    """Mean cross-entropy over the pixels that are not ignored, 0 where there is none.

    Parameters
    ----------
    logits : Tensor
        float32 (N, K, H, W).
    mask : Tensor
        int64 (N, H, W), classes in [0, K) or `ignore_index`.
    ignore_index : int
        Value of pixels that do not count.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[[[0.0, 9.0]], [[0.0, -9.0]]]])
    >>> round(cross_entropy(logits, torch.tensor([[[1, 255]]])).item(), 4)
    0.6931
    """
    count = (mask != ignore_index).sum().clamp(min=1)
    return functional.cross_entropy(logits, mask, ignore_index=ignore_index, reduction="sum") / count


def ohem(logits: Logits, mask: Mask, *, threshold: float, min_kept: int, ignore_index: int = IGNORE_INDEX) -> Scalar:
    """Mean cross-entropy over the hard pixels: online hard example mining.

    A pixel is hard where the probability of its true class is at most `threshold`. If fewer than `min_kept` are, the
    `min_kept` hardest are taken (with all that tie with the last of them); if the batch has fewer valid pixels than
    that, all.

    Parameters
    ----------
    logits : Tensor
        float32 (N, K, H, W).
    mask : Tensor
        int64 (N, H, W), classes in [0, K) or `ignore_index`.
    threshold : float
        Probability in [0, 1].
    min_kept : int
        Pixels kept in the batch at least.
    ignore_index : int
        Value of pixels that do not count.

    References
    ----------
    Shrivastava, Gupta, Girshick: Training Region-based Object Detectors with Online Hard Example Mining, CVPR 2016.
    The rule is that of the GALD paper's released code and agrees with its numbers.
    """
    losses = functional.cross_entropy(logits, mask, ignore_index=ignore_index, reduction="none")
    valid = mask != ignore_index
    losses = losses[valid]
    if losses.numel() == 0 or min_kept > losses.numel():
        return losses.sum() / max(1, losses.numel())
    probabilities = losses.detach().neg().exp()  # of the true class
    hard = probabilities <= threshold
    if int(hard.sum()) < min_kept:
        hardest = probabilities.topk(min_kept, largest=False, sorted=False).values  # a selection, no full sort
        hard = probabilities <= hardest.max()
    return losses[hard].mean()


def segmentation_loss(output: SegmentorOutput, mask: Mask, params: TrainParams) -> Losses:
    """Loss of both heads at the mask's size.

    Hard example mining applies to the main head; the auxiliary head learns from all pixels, since its task is to
    train the backbone's earlier stages.

    Parameters
    ----------
    output : SegmentorOutput
        Logits of the main head and, where it was asked for, of the auxiliary head.
    mask : Tensor
        int64 (N, H, W).
    params : TrainParams
        Uses `loss` and `aux_weight`.
    """
    if params.loss.name == "ohem":
        main = ohem(output.logits, mask, threshold=params.loss.threshold, min_kept=params.loss.min_kept)
    else:
        main = cross_entropy(output.logits, mask)
    if output.aux_logits is None:
        return Losses(total=main, main=main, aux=None)
    aux = cross_entropy(output.aux_logits, mask)
    return Losses(total=main + params.aux_weight * aux, main=main, aux=aux)
