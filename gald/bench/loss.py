"""What a loss takes, forward and backward, beside torch's own on logits at the mask's size.

Both start from the scores of a head. Their works are timed in turn in one process, their peak memory in one each.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gald.bench._measure import machine, tell
from gald.bench._memory import Work, peak_bytes, seconds
from gald.datasets import IGNORE_INDEX
from gald.losses import HardPixels, pixel_loss
from gald.losses._pixels import hard_pixels

_ROUNDS = 5
_MEMORY_TARGET = 0.25
_THRESHOLD = 0.7


class _Case(NamedTuple):
    """Shapes of one benchmark's training."""

    name: str
    images: int
    classes: int
    old: tuple[int, int]
    new: tuple[int, int]


_CASES = (
    _Case("mini", 8, 8, (24, 48), (96, 192)),
    _Case("cityscapes", 2, 19, (97, 97), (769, 769)),
    _Case("ade20k", 2, 150, (65, 65), (512, 512)),
    _Case("coco_stuff", 2, 171, (65, 65), (512, 512)),
)
_SELECTIONS = ((2 * 769 * 769, 100_000), (8 * 769 * 769, 100_000))
_HEAD = "| what | threads | ours, ms | torch, ms | ratio | target | met |\n|---|---|---|---|---|---|---|\n"
_MEMORY_HEAD = "| what | ours, MiB | torch, MiB | ratio | target | met |\n|---|---|---|---|---|---|\n"


def ours(case: list[Any], hard: list[Any] | None = None) -> Callable[[], object]:
    """Make ready a loss and its gradient without logits at the mask's size."""
    scores, mask = _drawn(case)
    pixels = None if hard is None else HardPixels(*hard)
    return lambda: torch.autograd.grad(pixel_loss(scores, mask, align_corners=True, hard=pixels), scores)


def torchs(case: list[Any], hard: list[Any] | None = None) -> Callable[[], object]:
    """Make ready the same by interpolation and cross-entropy; hard pixels as by a full sort."""
    scores, mask = _drawn(case)

    def run() -> object:
        logits = functional.interpolate(scores, mask.shape[1:], mode="bilinear", align_corners=True)
        if hard is None:
            value = functional.cross_entropy(logits, mask, ignore_index=IGNORE_INDEX)
        else:
            losses = functional.cross_entropy(logits, mask, ignore_index=IGNORE_INDEX, reduction="none")
            losses = losses[mask != IGNORE_INDEX]
            value = losses[_sorted(losses.detach().neg().exp(), HardPixels(*hard))].mean()
        return torch.autograd.grad(value, scores)

    return run


def selection(count: int, kept: int) -> Callable[[], object]:
    """Make ready the selection of hard pixels."""
    values = _probabilities(count)
    return lambda: hard_pixels(values, HardPixels(_THRESHOLD, kept))


def full_sort(count: int, kept: int) -> Callable[[], object]:
    """Make ready the same selection by a sort of all."""
    values = _probabilities(count)
    return lambda: _sorted(values, HardPixels(_THRESHOLD, kept))


def bench() -> str:
    """Measure time and memory of both; return the report as Markdown."""
    rows, memory = [], []
    for threads in (1, 2):
        for case in _CASES:
            works = [Work(f"{__name__}:{name}", (list(case),)) for name in ("ours", "torchs")]
            rows.append(_timed(f"cross-entropy, {_described(case)}", works, threads))
        hard = [_THRESHOLD, _pixels(_CASES[1]) // 10]
        works = [Work(f"{__name__}:{name}", (list(_CASES[1]), hard)) for name in ("ours", "torchs")]
        rows.append(_timed(f"hard pixels, {_described(_CASES[1])}", works, threads))
        for count, kept in _SELECTIONS:
            works = [Work(f"{__name__}:{name}", (count, kept)) for name in ("selection", "full_sort")]
            rows.append(_timed(f"selecting {kept} of {count} pixels, against a sort", works, threads))
    for case in _CASES:
        tell("loss", f"memory, {_described(case)}")
        found = [peak_bytes(Work(f"{__name__}:{name}", (list(case),)), threads=1) for name in ("ours", "torchs")]
        memory.append(_held(_described(case), *found))
    heading = f"{machine()}; scores to loss and back to their gradient, medians of {_ROUNDS} rounds"
    times = _HEAD + "\n".join(rows)
    return (
        f"{heading}\n\n{times}\n\nMost memory held beyond scores and mask:\n\n{_MEMORY_HEAD}" + "\n".join(memory) + "\n"
    )


def _pixels(case: _Case) -> int:
    """Pixels of a batch."""
    return case.images * case.new[0] * case.new[1]


def _timed(what: str, works: list[Work], threads: int) -> str:
    tell("loss", f"{what}, {threads} threads")
    mine, theirs = (1000 * statistics.median(one) for one in seconds(works, threads=threads, rounds=_ROUNDS))
    ratio = theirs / mine
    met = "yes" if ratio >= 1 else "NO"
    return f"| {what} | {threads} | {mine:.2f} | {theirs:.2f} | {ratio:.2f} times as fast | 1 | {met} |"


def _held(what: str, mine: int, theirs: int) -> str:
    ratio = mine / theirs
    met = "yes" if ratio <= _MEMORY_TARGET else "NO"
    return f"| {what} | {mine / 2**20:.1f} | {theirs / 2**20:.1f} | {ratio:.3f} | {_MEMORY_TARGET} | {met} |"


def _described(case: _Case) -> str:
    sizes = f"{case.old[1]}x{case.old[0]} to {case.new[1]}x{case.new[0]}"
    return f"{case.classes} classes, {case.images} images, {sizes}"


def _drawn(case: list[Any]) -> tuple[Tensor, Tensor]:
    """Scores and a mask of which a tenth is ignored."""
    _, images, classes, old, new = case
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(images, classes, *old, generator=generator)
    mask = torch.randint(0, classes, (images, *new), generator=generator)
    mask[torch.rand(mask.shape, generator=generator) < 0.1] = IGNORE_INDEX
    return scores.requires_grad_(), mask


def _probabilities(count: int) -> Tensor:
    """Draw the probabilities of a network well trained: nearly all pixels are easy, and the rest must be found."""
    return torch.rand(count, generator=torch.Generator().manual_seed(0)).pow_(0.02)


def _sorted(values: Tensor, hard: HardPixels) -> Tensor:
    smallest = values.sort().values[min(hard.min_kept, values.numel()) - 1]
    return values <= smallest.clamp(min=hard.threshold)
