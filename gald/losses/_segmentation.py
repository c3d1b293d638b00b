"""The loss of one head's scores, and of a network's two heads together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from gald.datasets import IGNORE_INDEX
from gald.errors import ModelError, ParamsError
from gald.losses._pixels import HardPixels, PixelSums, Rule, check_classes
from gald.models.segmentor import SegmentorOutput
from gald.params import TrainParams

Scores = Float[Tensor, "n k h w"]
Mask = Integer[Tensor, "n height width"]
Scalar = Float[Tensor, ""]
ClassWeights = Sequence[float] | Tensor


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


def valid_weight(
    mask: Mask,
    num_classes: int,
    class_weights: ClassWeights | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
) -> Scalar:
    """What a sum of pixel losses is divided by: the valid pixels' number, or their classes' weights added up.

    Parameters
    ----------
    mask : Tensor
        uint8 or int64 (N, H, W), classes in [0, K) or `ignore_index`.
    num_classes : int
        Number of classes K.
    class_weights : sequence of float or Tensor, optional
        (K), as `torch.nn.functional.cross_entropy` takes them.
    ignore_index : int
        Value of pixels that do not count.

    Returns
    -------
    Tensor
        float64 scalar; 0 where every pixel is ignored.

    Raises
    ------
    DatasetError
        The mask (on the CPU) holds something else than classes and `ignore_index`.
    ParamsError
        Not as many weights as classes.

    Examples
    --------
    >>> mask = torch.tensor([[[0, 1, 1, 255]]])
    >>> valid_weight(mask, 2).item(), valid_weight(mask, 2, [0.5, 2.0]).item()
    (3.0, 4.5)
    """
    valid = mask != ignore_index
    target = torch.where(valid, mask, 0).long()
    if target.device.type == "cpu" and target.numel():
        check_classes(target, num_classes, ignore_index)
    weights = _weights(class_weights, num_classes, torch.float64, mask.device)
    if weights is None:
        return valid.sum().double()
    return torch.where(valid, weights[target], 0).sum()


def pixel_loss(
    scores: Scores,
    mask: Mask,
    *,
    align_corners: bool,
    denominator: Tensor | float | None = None,
    class_weights: ClassWeights | None = None,
    label_smoothing: float = 0.0,
    hard: HardPixels | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> Scalar:
    """Cross-entropy of scores resized bilinearly to the mask, over all valid pixels or the hard ones.

    Beyond scores and mask it holds the scores' gradient, one image's scores at the mask's width, and a strip of a few
    MiB: no logits at the mask's size. Computed in float32 (float64 scores: in float64), under autocast too. Scores of
    the mask's size are taken as they are.

    Parameters
    ----------
    scores : Tensor
        (N, K, h, w) of any floating precision.
    mask : Tensor
        uint8 or int64 (N, H, W), classes in [0, K) or `ignore_index`.
    align_corners : bool
        Convention of the resize; the model's.
    denominator : Tensor or float, optional
        What the sum is divided by; `valid_weight` of this mask if left out. Not with `hard`, whose pixels are known
        only here.
    class_weights : sequence of float or Tensor, optional
        (K), the weight of a pixel by its true class.
    label_smoothing : float
        Share of the target in [0, 1) that is spread over all classes.
    hard : HardPixels, optional
        Online hard example mining: the mean over the hard pixels of these scores alone.
    ignore_index : int
        Value of pixels that do not count.

    Returns
    -------
    Tensor
        Scalar of the precision computed in; 0 where nothing counts.

    Raises
    ------
    DatasetError
        The mask (on the CPU) holds something else than classes and `ignore_index`.
    ModelError
        Scores and mask are not of as many images.
    ParamsError
        Not as many weights as classes, or a denominator together with `hard`.

    References
    ----------
    Shrivastava, Gupta, Girshick: Training Region-based Object Detectors with Online Hard Example Mining, CVPR 2016.
    Which pixels are hard is the rule of the GALD paper's released code, and agrees with its numbers.
    Szegedy et al.: Rethinking the Inception Architecture, CVPR 2016, section 7: label smoothing.

    Examples
    --------
    >>> scores = torch.tensor([[[[0.0, 9.0]], [[0.0, -9.0]]]])
    >>> round(pixel_loss(scores, torch.tensor([[[1, 255]]]), align_corners=True).item(), 4)
    0.6931
    """
    if mask.ndim != 3 or scores.ndim != 4 or len(scores) != len(mask):
        raise ModelError(
            f"scores of shape {tuple(scores.shape)} do not fit a mask of shape {tuple(mask.shape)}; give (N, K, h, w) "
            "and (N, H, W)"
        )
    if hard is not None and denominator is not None:
        raise ParamsError("the hard pixels are divided by their own number; leave out denominator, or hard")
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    weights = _weights(class_weights, scores.shape[1], dtype, scores.device)
    rule = Rule(align_corners, weights, label_smoothing, hard, ignore_index)
    total, weight = cast(tuple[Tensor, Tensor], PixelSums.apply(scores, mask, rule))  # type: ignore[no-untyped-call]
    divisor = torch.as_tensor(weight if denominator is None else denominator, dtype=torch.float64, device=total.device)
    return (total / torch.where(divisor == 0, 1.0, divisor)).to(dtype)


def segmentation_loss(
    output: SegmentorOutput,
    mask: Mask,
    params: TrainParams,
    *,
    align_corners: bool,
    denominator: Tensor | float | None = None,
    devices: int = 1,
) -> Losses:
    """Loss of both heads at the mask's size.

    Hard example mining applies to the main head; the auxiliary head learns from all pixels, since its task is to
    train the backbone's earlier stages. Class weights and label smoothing apply to both.

    Parameters
    ----------
    output : SegmentorOutput
        Scores of the main head and, where it was asked for, of the auxiliary head, of any size.
    mask : Tensor
        uint8 or int64 (N, H, W).
    params : TrainParams
        Uses `loss`, `aux_weight` and `micro_batches`.
    align_corners : bool
        Convention of the resize; the model's.
    denominator : Tensor or float, optional
        `valid_weight` of all micro-batches together, for losses that are added up over them; if left out, that of this
        mask, which is a batch of its own. Hard pixels are chosen, and their mean taken, in each micro-batch by itself,
        and it counts for its share of the micro-batches.
    devices : int
        Those that share the batch, each with `micro_batches` of them; each part keeps its share of hard pixels.
    """
    loss = params.loss
    parts = 1 if denominator is None else devices * params.micro_batches

    def of(scores: Tensor, divisor: Tensor | float | None, hard: HardPixels | None) -> Scalar:
        return pixel_loss(
            scores,
            mask,
            align_corners=align_corners,
            denominator=divisor,
            class_weights=loss.class_weights,
            label_smoothing=loss.label_smoothing,
            hard=hard,
        )

    if loss.name == "ohem":
        main = of(output.logits, None, HardPixels(loss.threshold, loss.kept_of(parts)))
        main = main if denominator is None else main / params.micro_batches
    else:
        main = of(output.logits, denominator, None)
    if output.aux_logits is None:
        return Losses(total=main, main=main, aux=None)
    aux = of(output.aux_logits, denominator, None)
    return Losses(total=main + params.aux_weight * aux, main=main, aux=aux)


def _weights(given: ClassWeights | None, num_classes: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    if given is None:
        return None
    if len(given) != num_classes:
        raise ParamsError(
            f"train.loss.class_weights: found {len(given)} weights for {num_classes} classes; give each one"
        )
    return torch.as_tensor(given, dtype=dtype, device=device)
