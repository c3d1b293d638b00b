"""Losses at the mask's size from scores at the features' size, without the logits of all pixels ever existing.

Images are resized one by one, and strip by strip of rows; the loss and its gradient with respect to the scores are made
in the same pass, while a strip is in the processor's cache. Small images share a strip. Every sum has a fixed order, on
CUDA too.

Exponentials are powers of two, which vectorise where `exp` does not.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gald.errors import DatasetError, ModelError
from gald.losses.resizing import LOG2_E, Resizing, full_precision

_STRIP_ELEMENTS = {"cpu": 1 << 19}  # 2 MiB: what one core keeps close; measured with 8, 19 and 171 classes
_STRIP_ELEMENTS_ELSEWHERE = 1 << 24  # 64 MiB: enough work for one launch of a kernel
_GROUP_STRIPS = 2  # strips that a group of small images takes: two threads share each operator
_LN_2 = math.log(2)
_IGNORED = 2.0  # stands for the probability of an ignored pixel: above all others


class HardPixels(NamedTuple):
    """Which pixels online hard example mining keeps.

    Attributes
    ----------
    threshold : float
        A pixel is hard where the probability of its true class is at most this.
    min_kept : int
        If fewer pixels are hard, this many of the hardest are kept, with all that tie with the last of them.
    """

    threshold: float
    min_kept: int


class Rule(NamedTuple):
    """What a pixel's loss is; see `gald.losses.pixel_loss`. Weights are (K) of the precision computed in."""

    align_corners: bool
    class_weights: Tensor | None
    label_smoothing: float
    hard: HardPixels | None
    ignore_index: int


class PixelSums(torch.autograd.Function):
    """Sum of the pixels' losses and sum of the weights that they count with.

    The gradient with respect to the scores is made together with the sum, so that the logits of a strip are there once
    and never again.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
        """Compute both sums in float64 from scores (N, K, h, w) and a mask (N, H, W)."""
        with torch.autocast(scores.device.type, enabled=False), full_precision():
            work = _Batch(scores, mask, rule)
            kept = None if rule.hard is None else hard_pixels(work.true_probabilities(), rule.hard)
            total, weight, gradient = work.sums(kept, with_gradient=ctx.needs_input_grad[0])
        ctx.mark_non_differentiable(weight)
        ctx.dtype = scores.dtype
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total, weight

    @staticmethod
    def backward(ctx: Any, of_total: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        """Scale the gradient that the forward pass has left."""
        if torch.is_grad_enabled():  # torch's own refusal looks at `of_total` alone, and a penalty would be a constant
            raise ModelError("the pixel loss can be differentiated once; leave out create_graph=True")
        (gradient,) = ctx.saved_tensors
        return (gradient * of_total.to(gradient.dtype)).to(ctx.dtype), None, None


def hard_pixels(probabilities: Tensor, hard: HardPixels) -> Tensor:
    """Tell which pixels are hard, without sorting them.

    Parameters
    ----------
    probabilities : Tensor
        Of the true class, of any shape, in [0, 1]; above 1 for pixels that do not count.
    hard : HardPixels
        Pixels are kept up to its threshold or up to the `min_kept`-th smallest probability, whichever is larger.

    Returns
    -------
    Tensor
        bool, of the same shape. Where fewer than `min_kept` pixels count, all are kept. What is no number is hard, so
        that a loss which has become none is seen.
    """
    values, kept = probabilities.flatten(), hard.min_kept
    if kept > values.numel():
        return torch.ones_like(probabilities, dtype=torch.bool)
    if probabilities.device.type != "cpu":
        smallest = values.topk(kept, largest=False, sorted=False).values.max()  # kthvalue has no fixed order there
        return ~(probabilities > smallest.clamp(min=hard.threshold))
    found = ~(probabilities > hard.threshold)
    if int(found.sum()) >= kept:
        return found
    return ~(probabilities > float(np.partition(values.numpy(), kept - 1)[kept - 1]))


class _Batch:
    """Scores and mask of a batch, gone through strip by strip."""

    def __init__(self, scores: Tensor, mask: Tensor, rule: Rule) -> None:
        self.dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
        self.scores, self.mask, self.rule = scores.detach(), mask, rule
        self.classes = scores.shape[1]
        height, width = mask.shape[1:]
        self.resizing = None
        if scores.shape[2:] != mask.shape[1:]:
            self.resizing = Resizing(scores, (height, width), self.dtype, align_corners=rule.align_corners)
        elements = _STRIP_ELEMENTS.get(scores.device.type, _STRIP_ELEMENTS_ELSEWHERE)
        rows = min(height, max(1, elements // (self.classes * width)))
        self.bands = [(first, min(first + rows, height)) for first in range(0, height, rows)]
        images = _GROUP_STRIPS * elements // (self.classes * width * max(height, scores.shape[2]))
        if images > 1 and len(mask):
            images = -(-len(mask) // -(-len(mask) // images))  # groups of one size, nearly
        images = max(1, images)
        self.groups = [slice(first, first + images) for first in range(0, len(mask), images)]
        self.buffer = scores.new_empty((images * rows, self.classes, width), dtype=self.dtype)

    def true_probabilities(self) -> Tensor:
        """Probability of each pixel's true class (N, H, W), above 1 where the pixel is ignored."""
        found = torch.empty(self.mask.shape, dtype=self.dtype, device=self.mask.device)
        for group in self.groups:
            widened = self._widened(self.scores[group])
            for first, last in self.bands:
                logits = self._logits(widened, first, last)
                target, valid = self._target(self.mask[group, first:last])
                of_target = logits.gather(1, target).exp2_()
                share = of_target.div_(logits.exp2_().sum(1, keepdim=True))
                found[group, first:last] = share.masked_fill_(~valid, _IGNORED).view(len(widened), last - first, -1)
        return found

    def sums(self, kept: Tensor | None, *, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Sum of losses, of weights, and the gradient of the first; over the pixels kept."""
        total = torch.zeros((), dtype=torch.float64, device=self.mask.device)
        weight = torch.zeros_like(total)
        gradient = torch.empty_like(self.scores, dtype=self.dtype) if with_gradient else None
        for group in self.groups:
            widened = self._widened(self.scores[group])
            # (m, h, K, W), or without resizing what is asked for itself, with its axes in that order
            of_widened = None
            if gradient is not None:
                of_widened = gradient[group].transpose(1, 2) if self.resizing is None else torch.zeros_like(widened)
            for first, last in self.bands:
                logits = self._logits(widened, first, last)
                target, valid = self._target(self.mask[group, first:last])
                if kept is not None:
                    valid &= kept[group, first:last].flatten(0, 1).unsqueeze(1)
                losses, counted, of_logits = _strip(logits, target, valid, self.rule)
                total += losses
                weight += counted
                if of_widened is None:
                    continue
                of_logits()
                self._add_rows(of_widened, first, last, logits)
            if gradient is not None and of_widened is not None and self.resizing is not None:
                gradient[group] = self.resizing.narrowed(of_widened)
        return total, weight, gradient

    def _widened(self, scores: Tensor) -> Tensor:
        """Scores (m, K, h, w) of a group of images as (m, h, K, W)."""
        return scores.transpose(1, 2) if self.resizing is None else self.resizing.widened(scores)

    def _logits(self, widened: Tensor, first: int, last: int) -> Tensor:
        """Logits (m rows, K, W) to base 2, the largest of each pixel 0, in memory that the next strip overwrites."""
        logits = self.buffer[: len(widened) * (last - first)]
        by_image = logits.view(len(widened), last - first, *logits.shape[1:])
        if self.resizing is None:
            rows = widened[:, first:last].to(self.dtype)
            torch.sub(rows, rows.amax(2, keepdim=True), out=by_image).mul_(LOG2_E)
            return logits
        self.resizing.rows(widened, first, last, by_image)
        return logits.sub_(logits.amax(1, keepdim=True))

    def _add_rows(self, of_widened: Tensor, first: int, last: int, of_logits: Tensor) -> None:
        """Pass a strip's gradient (m rows, K, W) on to what `_widened` made."""
        by_image = of_logits.view(len(of_widened), last - first, *of_logits.shape[1:])
        if self.resizing is None:
            of_widened[:, first:last] = by_image
        else:
            self.resizing.add_rows(of_widened, first, last, by_image)

    def _target(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Classes (m rows, 1, W) of some rows (m, rows, W), 0 for ignored pixels, and which pixels are not ignored."""
        target = mask.long().flatten(0, 1).unsqueeze(1)
        valid = target != self.rule.ignore_index
        target = target.masked_fill(~valid, 0)
        if target.device.type == "cpu":  # elsewhere a look would wait for the device, whose own gather refuses it
            check_classes(target, self.classes, self.rule.ignore_index)
        return target, valid


def check_classes(target: Tensor, num_classes: int, ignore_index: int) -> None:
    """Refuse classes that there are none of.

    Raises
    ------
    DatasetError
        A value is outside [0, `num_classes`).
    """
    smallest, largest = (int(value) for value in target.aminmax())
    if smallest < 0 or largest >= num_classes:
        raise DatasetError(
            f"the mask holds {smallest if smallest < 0 else largest}, but its values must be classes from 0 to "
            f"{num_classes - 1}, or {ignore_index} for pixels that do not count; prepare the benchmark again, or "
            "train a network of as many classes as it has"
        )


def _strip(logits: Tensor, target: Tensor, valid: Tensor, rule: Rule) -> tuple[Tensor, Tensor, Any]:
    """Losses' sum and weights' sum of a strip, and what turns its logits into their gradient, in place.

    The loss of a pixel of class t with the weights w of the classes is, for smoothing e and K classes,
    (1 - e) w_t (-log p_t) + e / K sum_c w_c (-log p_c).
    """
    classes, smoothing = logits.shape[1], rule.label_smoothing
    weights = rule.class_weights
    weight = valid.to(logits.dtype)
    counted = weight if weights is None else weights[target] * weight
    of_target = logits.gather(1, target)
    of_all = logits.new_zeros(())
    share = counted * (1 - smoothing)
    each = logits.new_ones(classes) if weights is None else weights
    if smoothing:
        of_all = torch.matmul(each, logits).unsqueeze(1)
    sums = logits.exp2_().sum(1, keepdim=True)
    log_sums = sums.log2()
    losses = share * (log_sums - of_target)
    whole = share
    if smoothing:
        spread = weight * (smoothing / classes)
        losses += spread * (each.sum() * log_sums - of_all)
        whole = share + spread * each.sum()

    def differentiate() -> None:
        factor = whole / sums
        at_target = of_target.exp2() * factor - share
        logits.mul_(factor).scatter_(1, target, at_target)
        if smoothing:
            logits.addcmul_(spread, each.view(1, -1, 1), value=-1)

    return losses.sum(dtype=torch.float64) * _LN_2, counted.sum(dtype=torch.float64), differentiate
