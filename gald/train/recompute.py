"""Activation checkpointing: keep what enters a block of the backbone, and compute the rest again when it is needed.

References
----------
Chen, Xu, Zhang, Guestrin: Training Deep Nets with Sublinear Memory Cost, 2016.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from gald.errors import ModelError


def recompute_blocks(backbone: nn.Module) -> int:
    """Make every block of a backbone compute its inside twice; values, gradients and tensors' names stay.

    Blocks are the composite children of the backbone's stages, or a stage itself that is no sequence.

    Parameters
    ----------
    backbone : nn.Module
        Changed in place.

    Returns
    -------
    int
        Number of blocks.

    Raises
    ------
    ModelError
        None is found.
    """
    blocks = list(_blocks(backbone))
    if not blocks:
        raise ModelError(
            f"{type(backbone).__name__} has no blocks whose features could be computed again; set "
            "train.activation_checkpointing to false"
        )
    for block in blocks:
        block.forward = partial(_twice, block, block.forward)
    return len(blocks)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if not any(child.children()):
            continue  # a single layer would keep what it saves
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict) or not _is_block(child):
            yield from _blocks(child)
        else:
            yield child


def _is_block(module: nn.Module) -> bool:
    """Whether a module's own children are layers or short sequences of layers: it is not made of blocks itself."""
    return not any(_is_block(part) for child in module.children() for part in _composite(child))


def _composite(module: nn.Module) -> Iterator[nn.Module]:
    """Composite modules that are no plain sequences of layers."""
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        for child in module.children():
            yield from _composite(child)
    elif any(module.children()):
        yield module


def _twice(block: nn.Module, forward: Any, *inputs: Tensor) -> Any:
    if not block.training:
        return forward(*inputs)
    if torch.compiler.is_compiling():  # it follows no context, and a graph changes the statistics once anyway
        return checkpoint(forward, *inputs, use_reentrant=False)
    # Dropout in a backbone draws from torch's generator, whose state the second pass gets back.
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _counted_once(block)))


@contextmanager
def _counted_once(block: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norms alone: the first pass has counted these samples."""
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm)]
    before = [(part.momentum, part.num_batches_tracked) for part in norms]
    for part in norms:
        part.momentum = 0.0
        part.num_batches_tracked = None if part.num_batches_tracked is None else part.num_batches_tracked.clone()
    try:
        yield
    finally:
        for part, (momentum, tracked) in zip(norms, before, strict=True):
            part.momentum = momentum
            part.num_batches_tracked = tracked
