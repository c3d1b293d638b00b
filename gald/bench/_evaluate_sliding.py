"""What it takes to turn a network's scores into classes: sliding, whole, and at several scales.

The network is a stub whose scores are there already, so that all that is timed is around it. A sliding evaluation is
held against the authors' scheme as they describe it: tile by tile, each resized, added up with its counts at the
image's size in float64. A whole image is held against the plain formula, `interpolate` and `argmax`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from gald.bench._measure import machine
from gald.bench._memory import Work, peak_bytes, seconds
from gald.inference import WHOLE, as_input, predict
from gald.inference import peak_bytes as stated_bytes
from gald.models.segmentor import Segmentor, SegmentorOutput
from gald.params import ProtocolParams

_ROUNDS = 5
_SIZE = (1024, 2048)
_STRIDE = 8
_SLIDING_TARGET = 5.0
_MEMORY_TARGET = 400e6  # bytes for 171 classes, beyond the network's own
_MANY = 171
_LITERATURE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
_TIMES_HEAD = "| what | threads | ours, ms | plain, ms | ratio | target | met |\n|---|---|---|---|---|---|---|\n"
_MEMORY_HEAD = "| what | measured, MB | stated, MB | plain, MB | target, MB | met |\n|---|---|---|---|---|---|\n"

PROTOCOLS = {
    "whole": WHOLE,
    "sliding": ProtocolParams(
        name="sliding", window=(769, 769), overlap=1 / 3, average="logits", scales=(1.0,), flip=False
    ),
    "multi-scale": ProtocolParams(
        name="multi-scale", window=None, overlap=0.0, average="probabilities", scales=_LITERATURE, flip=True
    ),
    "sliding multi-scale": ProtocolParams(
        name="sliding multi-scale",
        window=(769, 769),
        overlap=1 / 3,
        average="probabilities",
        scales=_LITERATURE,
        flip=True,
    ),
}


class Stub(nn.Module):
    """Takes the place of a network: its scores are drawn once for each size of its input.

    Parameters
    ----------
    num_classes : int
        Classes K.
    """

    align_corners = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
        self._drawn: dict[tuple[int, ...], Tensor] = {}

    def forward(self, images: Tensor, *, full_size: bool = False) -> SegmentorOutput:
        """Logits (N, K, h, w) at an eighth of the images' size, in the memory order that networks leave them in."""
        assert not full_size
        height, width = (-(-side // _STRIDE) for side in images.shape[2:])
        shape = (1, self.num_classes, height, width)
        if shape not in self._drawn:
            drawn = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(height * width))
            self._drawn[shape] = drawn.contiguous(memory_format=torch.channels_last)
        return SegmentorOutput(self._drawn[shape].expand(len(images), -1, -1, -1), None)


class _Case(NamedTuple):
    """An image of some size and a number of classes."""

    classes: int
    size: tuple[int, int]


def ours(case: list[Any], protocol: str) -> Callable[[], npt.NDArray[np.uint8]]:
    """Make ready a prediction by one of `PROTOCOLS`."""
    model, image, size = _made(case)
    return lambda: predict(cast(Segmentor, model), image, size, PROTOCOLS[protocol])


def plain(case: list[Any]) -> Callable[[], npt.NDArray[np.uint8]]:
    """Make ready the same of a whole image, by scores at the image's size."""
    model, image, size = _made(case)

    @torch.inference_mode()
    def run() -> npt.NDArray[np.uint8]:
        scores = model(as_input(torch.from_numpy(image.copy())[None])).logits
        logits = functional.interpolate(scores, size, mode="bilinear", align_corners=True)
        return np.asarray(logits[0].argmax(0).to(torch.uint8).numpy())

    return run


def authors(case: list[Any]) -> Callable[[], npt.NDArray[np.uint8]]:
    """Make ready the authors' sliding evaluation with the window that `PROTOCOLS` has."""
    model, image, (height, width) = _made(case)
    window = cast(tuple[int, int], PROTOCOLS["sliding"].window)[0]
    step = int(np.ceil(window * (1 - 1 / 3)))

    @torch.inference_mode()
    def run() -> npt.NDArray[np.uint8]:
        total = np.zeros((height, width, model.num_classes))
        count = np.zeros((height, width, model.num_classes))
        for row in range(int(np.ceil((height - window) / step)) + 1):
            for column in range(int(np.ceil((width - window) / step)) + 1):
                bottom, right = min(row * step + window, height), min(column * step + window, width)
                top, left = max(bottom - window, 0), max(right - window, 0)
                tile = torch.zeros(1, 3, window, window)
                shown = torch.from_numpy(image[top:bottom, left:right].copy())[None]
                tile[:, :, : bottom - top, : right - left] = as_input(shown)
                logits = functional.interpolate(
                    model(tile).logits, (window, window), mode="bilinear", align_corners=True
                )
                scores = logits[0].numpy().transpose(1, 2, 0)[: bottom - top, : right - left]
                total[top:bottom, left:right] += scores
                count[top:bottom, left:right] += 1
        return np.asarray((total / count).argmax(2).astype(np.uint8))

    return run


def sliding() -> str:
    """Measure time and memory of all; return the report as Markdown."""
    city, many = _Case(19, _SIZE), _Case(_MANY, _SIZE)
    rows = []
    for threads in (1, 2):
        works = [_work("ours", city, "sliding"), _work("authors", city)]
        rows.append(
            _timed(f"sliding, {_described(city)}, against the authors' scheme", works, threads, _SLIDING_TARGET)
        )
        for case in (city, many):
            works = [_work("ours", case, "whole"), _work("plain", case)]
            rows.append(_timed(f"whole, {_described(case)}, against resizing all", works, threads, 1))
    memory = [_held(case, "whole", "plain") for case in (city, many)]
    memory += [_held(city, "sliding", "authors")]
    memory += [_held(many, name, None) for name in ("sliding", "multi-scale", "sliding multi-scale")]
    heading = f"{machine()}; from a stub's scores to classes, medians of {_ROUNDS} rounds"
    held = "Most memory held by one prediction beyond the network's own:"
    return f"{heading}\n\n{_TIMES_HEAD}" + "\n".join(rows) + f"\n\n{held}\n\n{_MEMORY_HEAD}" + "\n".join(memory) + "\n"


def _made(case: list[Any]) -> tuple[Stub, npt.NDArray[np.uint8], tuple[int, int]]:
    classes, (height, width) = case
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Stub(classes), image, (height, width)


def _work(name: str, case: _Case, *arguments: str) -> Work:
    return Work(f"{__name__}:{name}", (list(case), *arguments))


def _timed(what: str, works: list[Work], threads: int, target: float) -> str:
    mine, theirs = (1000 * statistics.median(one) for one in seconds(works, threads=threads, rounds=_ROUNDS))
    ratio = theirs / mine
    met = "yes" if ratio >= target else "NO"
    return f"| {what} | {threads} | {mine:.0f} | {theirs:.0f} | {ratio:.2f} times as fast | {target:g} | {met} |"


def _held(case: _Case, protocol: str, against: str | None) -> str:
    mine = peak_bytes(_work("ours", case, protocol), threads=1)
    stated = stated_bytes(case.classes, case.size, case.size, _STRIDE, PROTOCOLS[protocol])
    theirs = "" if against is None else f"{peak_bytes(_work(against, case), threads=1) / 1e6:.0f}"
    met = "yes" if mine < _MEMORY_TARGET else "NO"
    return (
        f"| {protocol}, {_described(case)} | {mine / 1e6:.0f} | {stated / 1e6:.0f} | {theirs} | "
        f"{_MEMORY_TARGET / 1e6:.0f} | {met} |"
    )


def _described(case: _Case) -> str:
    return f"{case.classes} classes, {case.size[1]}x{case.size[0]}"
