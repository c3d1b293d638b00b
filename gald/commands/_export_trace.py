"""From a network to a program of torch.export whose batch, height and width are free.

While torch traces, it notes each decision that the code took on a size. Those that it cannot prove for all sizes would
end the export; here they are deferred, that is, kept in the program as assertions, and sizes of 0 and 1 are no special
cases. Many of them are torch's own thoughts on layouts, without consequence for the program: those that refuse an image
which the network takes are dropped. What is left is compared at several sizes by the caller.
"""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic

from gald.errors import GaldError, ModelError
from gald.models.segmentor import Segmentor

_TRACED = (192, 256)  # height and width, unequal so that neither is taken for the other
_LARGEST = 1024
_LIMIT_S = 120.0  # of the processor's time; networks that can be traced take less than a minute
_LEAST = 32  # pixels a side; what is smaller shows no scene, and is not worth an assertion

Shape = tuple[int, int, int]
"""Batch, height and width of images."""


class LogitsOnly(nn.Module):
    """A network whose answer is its main logits: (N, 3, H, W) to (N, K, H, W)."""

    def __init__(self, network: Segmentor) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the images."""
        logits: Tensor = self.network(images).logits
        return logits


@contextmanager
def quietly() -> Iterator[None]:
    """Silence what exporters say about themselves, and our own advice on the small images of the check."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        warnings.filterwarnings("ignore", message="distribution mask: ", category=UserWarning)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


class _TooLong(BaseException):  # not an Exception, of which torch catches many on the way
    """The processor's time is used up."""


@contextmanager
def bounded(size: tuple[int, int]) -> Iterator[None]:
    """Give up on a network over whose sizes torch would think for hours, as it does over a Swin's windows.

    Parameters
    ----------
    size : (int, int)
        Height and width of the image that it is traced with, for the remedy.

    Raises
    ------
    GaldError
        What is inside takes more than `_LIMIT_S` of the processor's time.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, _LIMIT_S, 10.0)  # again, should something have swallowed the first
    try:
        yield
    except _TooLong:
        raise GaldError(
            f"torch has thought over the sizes of this network for {_LIMIT_S:.0f} s without an end; nothing was "
            f"written; export it for one size with --static --size {size[0]} {size[1]}"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def trace_shape(network: LogitsOnly, size: tuple[int, int] | None, static: bool) -> Shape:
    """Shape of the images to trace with; without a given size, the first of a few that the network takes.

    Raises
    ------
    GaldError
        The network refuses them.
    """
    height, width = size or _TRACED
    while True:
        refusal = _refusal(network, (1 if static else 2, height, width))
        if refusal is None:
            return 1 if static else 2, height, width
        if size is not None:
            raise GaldError(f"--size {height} {width}: the network does not take such an image ({refusal})")
        if width * 2 > _LARGEST:
            raise GaldError(
                f"the network takes no image of {_TRACED[0]}x{_TRACED[1]} to {height}x{width} pixels; say which it "
                f"takes with --size HEIGHT WIDTH, and --static if it is the only one ({refusal})"
            )
        height, width = 2 * height, 2 * width


def least_side(network: LogitsOnly, shape: Shape) -> int:
    """Side in pixels of the smallest square image that the network takes, no smaller than is worth having."""
    refused, taken = 0, min(_LEAST, *shape[1:])
    while _refusal(network, (1, taken, taken)) is not None:
        refused, taken = taken, 2 * taken
        if taken > 2 * max(shape[1:]):
            raise GaldError(
                f"the network takes images of {shape[1]}x{shape[2]} pixels, but no square ones; export it for "
                f"that size with --static --size {shape[1]} {shape[2]}"
            )
    while refused and taken - refused > 1:
        middle = (refused + taken) // 2
        if _refusal(network, (1, middle, middle)) is None:
            taken = middle
        else:
            refused = middle
    return taken


def _refusal(network: LogitsOnly, shape: Shape) -> str | None:
    """Why the network does not take images of this shape, or None where it does."""
    batch, height, width = shape
    try:
        network(torch.zeros(batch, 3, height, width))
    except (ModelError, RuntimeError, AssertionError) as error:  # timm's transformers assert their one size
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


def trace(network: LogitsOnly, shape: Shape, least: int | None) -> ExportedProgram:
    """Trace the network.

    Parameters
    ----------
    network : LogitsOnly
        In evaluation mode, on the CPU.
    shape : (int, int, int)
        Batch, height and width of the images to trace with.
    least : int or None
        Least height and width where they and the batch are free; None fixes all three to the traced ones.

    Returns
    -------
    ExportedProgram
        From `images` to logits.

    Raises
    ------
    GaldError
        It cannot be traced; the message names the part at fault.
    """
    batch, height, width = shape
    images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        program = _traced(network, (images,), least)
    except Exception as error:  # torch.export passes on whatever the traced code and its own solvers raise
        if least is None:
            raise GaldError(f"torch.export cannot trace {_culprit(network, images, None)} ({_first(error)})") from error
        raise GaldError(
            f"{_culprit(network, images, least)} cannot be exported with a free batch, height and width; export it for "
            f"one size with --static --size {height} {width} ({_first(error)})"
        ) from error
    if least is not None:
        for taken in ((1, least, least), (1, height, width)):
            _drop_refusals(program, torch.zeros(taken[0], 3, *taken[1:]))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _drop_refusals(program: ExportedProgram, images: Tensor) -> None:
    """Drop the assertions of a program that refuse images which the network takes."""
    while True:
        asserted = {
            node.args[1]: node for node in program.graph.nodes if node.target is torch.ops.aten._assert_scalar.default
        }
        try:
            program.module()(images)
        except (RuntimeError, AssertionError) as error:
            wrong = asserted.get(str(error))
            if wrong is None:
                return  # it fails for another reason, which the comparison will tell
            program.graph.erase_node(wrong)
            program.graph_module.recompile()
        else:
            return


def _traced(module: nn.Module, given: tuple[Tensor, ...], least: int | None) -> ExportedProgram:
    """Trace a module with free axes 0, 2 and 3, the latter two of at least `least`, or with fixed ones."""
    shapes = None
    if least is not None:
        side = Dim.DYNAMIC(min=least)
        shapes = tuple({0: Dim.DYNAMIC, 2: side, 3: side} for _ in given)
    with symbolic.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]  # torch adds it at import
        return torch.export.export(
            module, given, dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True
        )


def _culprit(network: LogitsOnly, images: Tensor, least: int | None) -> str:
    """Name the first part of the network that cannot be traced by itself."""
    model = network.network
    block = model.head.block
    parts = {"backbone": model.backbone}
    parts |= {kind: getattr(block, kind) for kind in ("aggregation", "distribution") if hasattr(block, kind)}
    for kind, part in parts.items():
        given = _inputs(part, lambda: network(images))
        if not given:
            continue
        smallest = min(side for tensor in given for side in tensor.shape[2:])
        try:
            _traced(part, given, None if least is None else min(least, smallest))
        except Exception:
            return f"the {kind} {type(part).__name__} ({type(part).__module__})"
    return "the network"


def _inputs(part: nn.Module, run: Callable[[], Tensor]) -> tuple[Tensor, ...]:
    """Tensors that a part is given when the whole runs."""
    seen: list[tuple[Tensor, ...]] = []
    hook = part.register_forward_pre_hook(lambda _, given: seen.append(given))
    try:
        run()
    finally:
        hook.remove()
    return seen[0] if seen else ()


def _first(error: Exception) -> str:
    """First line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
