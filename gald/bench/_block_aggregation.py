"""Aggregations against what they are held to: attention against the textbook, the others against their own products."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gald import plugins
from gald.bench._measure import tell
from gald.bench._memory import Held, Work, held, seconds
from gald.models.block import build_part

_HERE = __name__
_CHANNELS = 512
_SIZE, _LARGE = (97, 97), (129, 257)
_BATCH = 2  # of the aggregations that are no attention; some have a norm that refuses one image
_ROUNDS = 2
_MEMORY_TARGET, _TIME_TARGET, _PRODUCTS_TARGET = 0.1, 1.0, 1.3
_PASSES = {True: "forward and backward", False: "forward"}
_REASONS = {
    "a2": "two softmaxes, a norm and the residual pass over memory beside narrow products",
    "cgnl": "p times g, t times their sum, a group norm and the residual pass over memory beside narrow products",
    "criss_cross": "the feature is laid out by positions and back, a softmax takes each row with its column, and each "
    "of two passes adds to the feature twice",
    "dual_gcn": "norms, ReLUs and the residual of features as wide as its products', and the enlarged gate times the "
    "feature",
    "ema": "each step has a softmax over the bases and divisions by sums; a norm, two ReLUs and the residual follow",
    "global_context": "its products only read the feature twice, and the sum reads it again and writes another",
}
"""What an aggregation does beside its products, where that may take more than the target allows."""
_HEAD = "| what | threads | ours | {against} | ratio | target | met |\n|---|---|---|---|---|---|---|\n"

aten = torch.ops.aten
_PRODUCTS = (
    aten.convolution, aten.convolution_backward, aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.mv, aten.addmv,
    aten.dot,
)  # fmt: skip


def textbook_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by way of the matrix of all pairs of positions."""
    weights = (query.transpose(1, 2) @ key).softmax(2)
    return value @ weights.transpose(1, 2)


def textbook_non_local(module: Any, feature: Tensor) -> Tensor:
    """Non-local block of a module's weights, as it is commonly written."""
    query, key, value = (part(feature).flatten(2) for part in (module.query, module.key, module.value))
    attended = textbook_attention(query, key, value)
    summed: Tensor = feature + module.out(attended.reshape(*attended.shape[:2], *feature.shape[2:]))
    return summed


def textbook_dual_attention(module: Any, feature: Tensor) -> Tensor:
    """Dual attention of a module's weights, as it is commonly written."""
    position, channel = module.position[0], module.channel[0]
    query, key, value = (part(feature).flatten(2) for part in (position.query, position.key, position.value))
    of_positions = position.gamma * textbook_attention(query, key, value).view_as(feature) + feature
    channels = feature.flatten(2)
    weights = (-channels @ channels.transpose(1, 2)).softmax(2)
    of_channels = channel.gamma * (weights @ channels).view_as(feature) + feature
    summed: Tensor = of_positions + of_channels
    return summed


TEXTBOOK = {"non_local": textbook_non_local, "dual_attention": textbook_dual_attention}
"""Attention over all positions, as it is commonly written; the other aggregations are held to their own products."""


def attention(
    name: str, kind: str, channels: int, size: tuple[int, int], training: bool, device: str = "cpu"
) -> Callable[[], object]:
    """Make an attention module ready to run once, forward alone or forward and backward.

    Parameters
    ----------
    name : {"non_local", "dual_attention"}
        Module.
    kind : {"ours", "textbook"}
        Formulation.
    channels, size
        Of the feature, one image.
    training : bool
        Forward and backward; otherwise forward in evaluation, without gradients.
    device : str
    """
    module = build_part("aggregation", {"name": name, "zero_start": False}, channels, align_corners=True).to(device)
    feature = torch.randn(1, channels, *size, device=device)
    forward = module if kind == "ours" else lambda given: TEXTBOOK[name](module, given)
    return step(module, forward, feature) if training else inference(module, forward, feature)


def step(module: nn.Module, forward: Callable[[Tensor], Tensor], feature: Tensor) -> Callable[[], object]:
    """Forward and backward pass with new gradients, as the first one of a training step."""
    feature.requires_grad_()
    ahead = torch.randn_like(feature)

    def run() -> None:
        module.zero_grad()
        feature.grad = None
        torch.autograd.backward(forward(feature), ahead)

    return run


def inference(module: nn.Module, forward: Callable[[Tensor], Tensor], feature: Tensor) -> Callable[[], object]:
    """Forward pass in evaluation."""
    module.eval()

    def run() -> None:
        with torch.no_grad():
            forward(feature)

    return run


def attention_work(name: str, kind: str, channels: int, size: tuple[int, int], training: bool) -> Work:
    """The same, for another process."""
    return Work(f"{_HERE}:attention", (name, kind, channels, size, training))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the calls of convolutions and matrix products, with what they were given, in the backward pass too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and keep it if it is a product."""
        if func._overloadpacket in _PRODUCTS:
            self.calls.append(partial(func, *args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def whole(
    name: str, batch: int, channels: int, size: tuple[int, int], training: bool, device: str = "cpu"
) -> Callable[[], object]:
    """Make an aggregation ready to run once."""
    off = {"zero_start": False} if "zero_start" in plugins.signature("models/aggregation", name) else {}
    module = build_part("aggregation", {"name": name, **off}, channels, align_corners=True).to(device)
    feature = torch.randn(batch, channels, *size, device=device)
    return (step if training else inference)(module, module, feature)


def products(
    name: str, batch: int, channels: int, size: tuple[int, int], training: bool, device: str = "cpu"
) -> Callable[[], object]:
    """Make the products of the same run ready to run once, one after the other, on what they were given there."""
    run = whole(name, batch, channels, size, training, device)
    with _Recorder() as recorded:
        run()

    def again() -> None:
        with torch.no_grad():
            for call in recorded.calls:
                call()

    return again


def aggregation() -> str:
    """Measure every aggregation; return two sections of Markdown."""
    return "\n\n".join([_attention_section(_CHANNELS, _SIZE, _LARGE), _products_section(_BATCH, _CHANNELS, _SIZE)])


def _row(what: str, threads: int, ours: str, against: str, ratio: float, target: float, reason: str = "") -> str:
    met = "yes" if ratio <= target else ": ".join(filter(None, ("NO", reason)))
    return f"| {what} | {threads} | {ours} | {against} | {ratio:.3f} | {target:g} | {met} |"


def _attention_section(channels: int, size: tuple[int, int], large: tuple[int, int]) -> str:
    """Attention modules against the textbook; at the large size, where that would need many GB, alone."""
    cases = [(name, training) for name in TEXTBOOK for training in (False, True)]
    rows = [row for case in cases for row in _attention_rows(*case, channels, size)]
    for name in TEXTBOOK:
        tell("block", f"{name} at {large[0]}x{large[1]} positions")
        found = held(attention_work(name, "ours", channels, large, True), threads=2)
        rows.append(f"| {name}, {large[0]}x{large[1]}, {_PASSES[True]} | 2 | {_told(found)} | | | | |")
    title = f"Attention over all positions, (1, {channels}, {size[0]}, {size[1]}), memory beyond module and feature:"
    return f"{title}\n\n{_HEAD.format(against='textbook')}" + "\n".join(rows)


def _told(found: Held) -> str:
    return f"{found.seconds:.2f} s, {found.peak_bytes / 2**20:.0f} MiB"


def _attention_rows(name: str, training: bool, channels: int, size: tuple[int, int]) -> Iterator[str]:
    """Yield peak memory, then time with two threads and with one."""
    what = f"{name}, {_PASSES[training]}"
    tell("block", f"{what} against the textbook")
    works = [attention_work(name, kind, channels, size, training) for kind in ("ours", "textbook")]
    ours, textbook = (held(work, threads=2).peak_bytes for work in works)
    told = [f"{peak / 2**20:.0f} MiB" for peak in (ours, textbook)]
    yield _row(f"{what}, peak memory", 2, told[0], told[1], ours / textbook, _MEMORY_TARGET)
    for threads in (2, 1):
        yield _compared(f"{what}, time", works, threads, _TIME_TARGET)


def _compared(what: str, works: list[Work], threads: int, target: float, reason: str = "") -> str:
    """Time two works in turn; the row of their medians, with what is known of why the target is missed."""
    ours, against = (statistics.median(taken) for taken in seconds(works, threads=threads, rounds=_ROUNDS))
    return _row(what, threads, f"{ours:.3f} s", f"{against:.3f} s", ours / against, target, reason)


def _products_section(batch: int, channels: int, size: tuple[int, int]) -> str:
    """Every other aggregation against its own convolutions and matrix products."""
    rows = []
    for name in plugins.available("models/aggregation"):
        if name in TEXTBOOK:
            continue
        tell("block", f"{name} against its own products")
        for training, threads in ((False, 2), (True, 2), (True, 1)):
            given = (name, batch, channels, size, training)
            works = [Work(f"{_HERE}:{kind}", given) for kind in ("whole", "products")]
            reason = _REASONS.get(name, "not looked into")
            rows.append(_compared(f"{name}, {_PASSES[training]}", works, threads, _PRODUCTS_TARGET, reason))
    title = f"Other aggregations against their own products, ({batch}, {channels}, {size[0]}, {size[1]}), time:"
    return f"{title}\n\n{_HEAD.format(against='products')}" + "\n".join(rows)
