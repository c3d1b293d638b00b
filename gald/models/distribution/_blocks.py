"""Similarities and weighted sums over windows in blocks of channels, with the projections inside, for eager execution.

The same numbers as `similarities` and `gather` of projected features, but no projected feature is ever whole. A block
of channels is projected, its sums over the k^2 shifts are taken while it lies in cache, and it is let go; the backward
pass projects it once more instead of having kept it. Beside the inputs only the weights are kept, so that the memory
needed at a time is little more than the gradients of the inputs, whatever the window.

A block lays the maps of all images behind one another, (heads, channels, margin + N H W + margin), so that the
neighbours of all positions under one shift are one contiguous piece of each row. At the edge of a map that piece runs
on into the next line, or the next image; such a neighbour is none, and `Window.inside` gives it no weight. Features
must therefore be finite: zero times infinity is not zero.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from gald.models.distribution._window import Weights, Window
from gald.models.layers import Feature

Flat = Float[Tensor, "m c l"]  # heads, channels of each, positions of all images, with a margin where it says so
Lines = Float[Tensor, "m d l"]  # heads, shifts, positions of all images
Projection = Float[Tensor, "out c"]

_CHANNELS = {"cpu": 64}  # a block of 2 x 97 x 97 positions has then 5 MB: the sums over it stay in cache
_CHANNELS_ELSEWHERE = 256  # a GPU is better off with fewer, longer kernels
_KEPT_BYTES = 4 << 20  # a projected feature as small as that is kept for the backward pass, not projected again


class _Block(NamedTuple):
    """Channels that are handled at a time, and their heads: several whole ones, or one of which they are a part."""

    heads: slice
    channels: slice


def _blocks(channels: int, heads: int, device: torch.device) -> Iterator[_Block]:
    of_head = channels // heads
    size = _CHANNELS.get(device.type, _CHANNELS_ELSEWHERE)
    together = max(1, size // of_head)
    for first in range(0, heads, together):
        end = min(first + together, heads)
        for start in range(first * of_head, end * of_head, size):
            yield _Block(slice(first, end), slice(start, min(start + size, end * of_head)))


def _layout(source: Feature) -> torch.memory_format:
    """Layout of a feature: channels_last if it has no other."""
    last = source.is_contiguous(memory_format=torch.channels_last) and not source.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Type in which sums over blocks are kept: float32 for half precision."""
    return torch.promote_types(dtype, torch.float32)


def _empty(block: _Block, like: Feature, margin: int) -> Flat:
    """Memory of a block for the images of a feature, with zeros in the margins."""
    heads, channels = (part.stop - part.start for part in block)
    length = like.shape[0] * like.shape[2] * like.shape[3]
    flat = like.new_empty(heads, channels // heads, length + 2 * margin)
    flat[:, :, :margin] = 0
    flat[:, :, margin + length :] = 0
    return flat


def _flat(feature: Feature, block: _Block, margin: int) -> Flat:
    """Channels of a feature."""
    flat = _empty(block, feature, margin)
    channels = feature[:, block.channels]
    channels = channels.view(len(channels), *flat.shape[:2], *channels.shape[2:])
    _maps(flat[:, :, margin : flat.shape[2] - margin], feature).copy_(channels)
    return flat


def _write(target: Feature, block: _Block, flat: Flat) -> None:
    """Put a block without margins to where `_flat` takes it from."""
    target[:, block.channels] = _maps(flat, target).flatten(1, 2)


def _project(projection: Projection, block: _Block, source: Feature, margin: int) -> Flat:
    """Channels of a projected feature."""
    flat = _empty(block, source, margin)
    positions = source.shape[2] * source.shape[3]
    rows, maps = projection[block.channels], flat.flatten(0, 1)[:, margin : flat.shape[2] - margin]
    for feature, into in zip(source, torch.split(maps, positions, dim=1), strict=True):
        torch.mm(rows, feature.flatten(1), out=into)
    return flat


class _Gradients:
    """Gradients of a feature and of its projection, collected block by block."""

    def __init__(self, source: Feature, projection: Projection) -> None:
        self._source = source
        self._of_source = torch.empty_like(source, memory_format=_layout(source))
        self._projection = projection
        self._of_projection = torch.zeros_like(projection, dtype=_wide(projection.dtype))
        self._started = False

    def add(self, block: _Block, grad: Flat) -> None:
        """Pass on the gradient of one block of projected channels, without margins."""
        transposed = self._projection[block.channels].t()
        parts = torch.split(grad.flatten(0, 1), self._source.shape[2] * self._source.shape[3], dim=1)
        for feature, of_feature, part in zip(self._source, self._of_source, parts, strict=True):
            self._of_projection[block.channels] += part @ feature.flatten(1).t()
            of_feature.view(len(of_feature), -1).addmm_(transposed, part, beta=1 if self._started else 0)
        self._started = True

    def done(self) -> tuple[Feature, Projection]:
        """Both gradients, in the types of what they belong to."""
        return self._of_source, self._of_projection.to(self._projection.dtype)


def _shifts(flat: Flat, window: Window, width: int) -> Iterator[Flat]:
    """Views that hold the neighbour p + d of every position p, shift by shift."""
    length = flat.shape[2] - 2 * window.margin(width)
    for index in range(window.side**2):
        row, column = (window.dilation * part for part in divmod(index, window.side))
        start = row * width + column
        yield flat[:, :, start : start + length]


def _add_products(target: Lines, one: Flat, other: Flat, window: Window, width: int) -> None:
    """Add <one(p), other(p + d)> over the block's channels to the target; `other` has margins."""
    product = torch.empty_like(one)
    for index, shifted in enumerate(_shifts(other, window, width)):
        torch.mul(one, shifted, out=product)
        target[:, index] += product.sum(1, dtype=target.dtype)


def _gathered(lines: Lines, flat: Flat, window: Window, width: int) -> Flat:
    """Sums over d of lines(p, d) flat(p + d); `flat` has margins, the result has none."""
    shifted = _shifts(flat, window, width)
    total = lines[:, :1] * next(shifted)
    for index, one in enumerate(shifted, start=1):
        total.addcmul_(lines[:, index : index + 1], one)
    return total


def _scattered(lines: Lines, flat: Flat, window: Window, width: int) -> Flat:
    """Transpose of `_gathered`: lines(p, d) flat(p) given to position p + d; no margins in either."""
    margin = window.margin(width)
    total = flat.new_zeros(*flat.shape[:2], flat.shape[2] + 2 * margin)
    for index, shifted in enumerate(_shifts(total, window, width)):
        shifted.addcmul_(lines[:, index : index + 1], flat)
    return total[:, :, margin : total.shape[2] - margin]


def _lines(weights: Weights, dtype: torch.dtype) -> Lines:
    """Weights with the positions of all images in one row."""
    return weights.permute(1, 2, 0, 3, 4).flatten(2).to(dtype)


def _maps(lines: Lines, like: Feature) -> Weights:
    """Weights (N, heads, k^2, H, W) of lines, for the images of a feature."""
    return lines.view(*lines.shape[:2], like.shape[0], *like.shape[2:]).permute(2, 0, 1, 3, 4)


class _Similarities(torch.autograd.Function):
    """`similarities` of features; what lies beyond a map is left undefined."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, window: Window, heads: int) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.window, ctx.heads = window, heads
        count, channels, height, width = query.shape
        found = query.new_zeros(heads, window.side**2, count * height * width, dtype=_wide(query.dtype))
        for block in _blocks(channels, heads, query.device):
            keys = _flat(key, block, window.margin(width))
            _add_products(found[block.heads], _flat(query, block, 0), keys, window, width)
        return _maps(found, query)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key = ctx.saved_tensors
        window, width = ctx.window, query.shape[3]
        lines = _lines(grad, query.dtype)
        of_query, of_key = (torch.empty_like(one, memory_format=_layout(one)) for one in (query, key))
        for block in _blocks(query.shape[1], ctx.heads, query.device):
            keys = _flat(key, block, window.margin(width))
            _write(of_query, block, _gathered(lines[block.heads], keys, window, width))
            _write(of_key, block, _scattered(lines[block.heads], _flat(query, block, 0), window, width))
        return of_query, of_key, None, None


class _Gather(torch.autograd.Function):
    """`gather` of a projected feature, with weights that are zero beyond a map."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, source: Tensor, value: Tensor, window: Window) -> Tensor:
        count, _, height, width = source.shape
        lines = _lines(weights, source.dtype)
        shape = (count, value.shape[0], height, width)
        found = torch.empty(shape, dtype=source.dtype, device=source.device, memory_format=_layout(source))
        kept = []
        for block in _blocks(value.shape[0], weights.shape[1], source.device):
            values = _project(value, block, source, window.margin(width))
            _write(found, block, _gathered(lines[block.heads], values, window, width))
            if found.numel() * found.element_size() <= _KEPT_BYTES:
                kept.append(values)
        ctx.save_for_backward(weights, source, value, *kept)
        ctx.window = window
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, source, value, *kept = ctx.saved_tensors
        window, width = ctx.window, source.shape[3]
        lines = _lines(weights, source.dtype)
        of_lines = torch.zeros_like(lines, dtype=_wide(lines.dtype))
        of_source = _Gradients(source, value)
        for index, block in enumerate(_blocks(value.shape[0], weights.shape[1], source.device)):
            part = _flat(grad, block, 0)
            values = kept[index] if kept else _project(value, block, source, window.margin(width))
            _add_products(of_lines[block.heads], part, values, window, width)
            del values
            of_source.add(block, _scattered(lines[block.heads], part, window, width))
        return _maps(of_lines.to(weights.dtype), source), *of_source.done(), None


def block_similarities(query: Feature, key: Feature, window: Window, heads: int) -> Weights:
    """Differentiable `similarities` of features (N, C, H, W); beyond a map they are any finite number."""
    result: Weights = _Similarities.apply(query, key, window, heads)  # type: ignore[no-untyped-call]
    return result


def block_gather(weights: Weights, source: Feature, value: Projection, window: Window) -> Feature:
    """Differentiable `gather` of value source, by weights (N, heads, k^2, H, W) that are zero beyond a map."""
    result: Feature = _Gather.apply(weights, source, value, window)  # type: ignore[no-untyped-call]
    return result
