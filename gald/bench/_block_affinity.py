"""Affinity distribution, forward and backward, against a dense convolution and against its textbook formulation.

The textbook unfolds keys and values: k^2 copies of a feature, which autograd keeps. Both have the same projections,
norm and residual; queries and keys have a quarter of the channels.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gald.bench._measure import tell
from gald.bench._memory import Work, peak_bytes, seconds
from gald.models.distribution import affinity as distribution

_MIB = 1 << 20
_UNFOLD_TIME, _UNFOLD_MEMORY = 0.5, 0.15  # targets, as parts of the textbook's
WINDOWS = (3, 5)
"""Sides of the windows that are measured."""


class Size(NamedTuple):
    """Shape (N, C, H, W) of both features."""

    images: int = 2
    channels: int = 512
    height: int = 97
    width: int = 97


class _Figure(NamedTuple):
    seconds: float
    mib: float


class Textbook(nn.Module):
    """The distribution of ``affinity.py`` with its default options, written with unfolded windows."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.query = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.key = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, local: Tensor, aggregated: Tensor) -> Tensor:
        """Distribute `aggregated` by its affinity to `local`, both (N, C, H, W), to the same shape."""
        query = self.query(local).flatten(2).unsqueeze(2)  # n c 1 l
        keys, values = self._windows(self.key(aggregated)), self._windows(self.value(aggregated))  # n c d l
        inside = self._windows(torch.ones_like(local[:1, :1])) > 0
        logits = (query * keys).sum(1, keepdim=True) * query.shape[1] ** -0.5
        weights = logits.masked_fill(~inside, -torch.inf).softmax(2)
        distributed: Tensor = self.norm((weights * values).sum(2).view(local.shape))
        return local + distributed

    def _windows(self, feature: Tensor) -> Tensor:
        columns = functional.unfold(feature, self.window, padding=self.window // 2)
        return columns.view(*feature.shape[:2], self.window**2, -1)


def ready(
    what: str, window: int, size: tuple[int, int, int, int], device: str = "cpu", compiled: bool = False
) -> Callable[[], None]:
    """Make one formulation and its inputs; the result runs forward and backward and drops the gradients.

    Parameters
    ----------
    what : {"ours", "unfold", "convolution"}
        Formulation; a convolution has one input, and `window` is its kernel size.
    window : int
        Side of the window.
    size : tuple of int
        Shape (N, C, H, W) of the inputs.
    device : str
    compiled : bool
        Let torch compile the formulation.
    """
    channels = size[1]
    if what == "convolution":
        module: nn.Module = nn.Conv2d(channels, channels, window, padding=window // 2, bias=False)
    else:
        module = Textbook(channels, window) if what == "unfold" else distribution.build(channels, window=window)  # type: ignore[arg-type] # JSON knows no literals
    module.to(device)
    if compiled:
        module.compile()
    count = 1 if what == "convolution" else 2
    inputs = [torch.randn(size, device=device, requires_grad=True) for _ in range(count)]
    grad = torch.randn(size, device=device)

    def run() -> None:
        module(*inputs).backward(grad)
        for given in (*inputs, *module.parameters()):
            given.grad = None

    return run


def affinity(size: Size = Size(), threads: tuple[int, ...] = (1, 2), rounds: int = 3) -> str:  # noqa: B008 - immutable
    """Measure the affinity distribution and return the section of the report, as Markdown.

    Parameters
    ----------
    size : Size
        Shape of the features.
    threads : tuple of int
        Numbers of threads of torch, each measured.
    rounds : int
        Timed runs; the median counts.

    Raises
    ------
    GaldError
        A measurement failed, or this system does not tell a process's memory.
    """
    sections = [_section(size, number, rounds) for number in threads]
    shape = ", ".join(str(part) for part in size)
    return (
        f"## affinity: forward and backward at ({shape}), queries and keys of {size.channels // 4} channels\n\n"
        "Memory is the peak of the process beyond weights and inputs. All formulations of one table run in turn.\n\n"
        + "\n".join(sections)
    )


def _section(size: Size, threads: int, rounds: int) -> str:
    names = [("convolution", 3), *((what, window) for window in WINDOWS for what in ("unfold", "ours"))]
    tell("block", f"affinity and what it is held against, {threads} threads of torch")
    works = [Work("gald.bench._block_affinity:ready", (what, window, size)) for what, window in names]
    times = [statistics.median(found) for found in seconds(works, threads=threads, rounds=rounds)]
    peaks = [peak_bytes(work, threads=threads) / _MIB for work in works]
    found = {name: _Figure(*figure) for name, figure in zip(names, zip(times, peaks, strict=True), strict=True)}
    lines = [
        f"| {threads} | {_title(*name)} | {one.seconds:.2f} s | {one.mib:.0f} MiB |" for name, one in found.items()
    ]
    head = "| threads | what | median | peak memory |\n|---|---|---|---|\n"
    return head + "\n".join(lines) + "\n\n" + _targets(found, threads)


def _title(what: str, window: int) -> str:
    titles = {"convolution": "dense convolution", "unfold": "unfold, textbook", "ours": "affinity"}
    return f"{titles[what]}, {window}x{window}"


def _targets(found: dict[tuple[str, int], _Figure], threads: int) -> str:
    """Ratios that are held to a target, as a table."""
    least, most = WINDOWS
    ratios = [(f"time, {least}x{least}, of the convolution's", found["ours", least], found["convolution", 3], 0, 1.0)]
    ratios += [(f"time, {most}x{most}, of the unfold's", found["ours", most], found["unfold", most], 0, _UNFOLD_TIME)]
    for window in WINDOWS:
        pair = found["ours", window], found["unfold", window]
        ratios.append((f"memory, {window}x{window}, of the unfold's", *pair, 1, _UNFOLD_MEMORY))
    lines = []
    for title, ours, other, field, target in ratios:
        ratio = ours[field] / other[field] if other[field] else float("inf")
        lines.append(f"| {threads} | {title} | {ratio:.2f} | {target:g} | {'yes' if ratio <= target else 'NO'} |")
    return "| threads | ratio | measured | target | met |\n|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
