"""Look into a network's local distribution while it predicts one picture, and predict it again without.

'Without' is the same network whose distribution is replaced by handing on the aggregated feature. That shows what the
distribution changes in this network; what a network gains that was trained with it is for the tables to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gald.errors import ModelError, ParamsError
from gald.explanation import Explanation, Kind, Place
from gald.inference import predict
from gald.models.block import GlobalThenLocal
from gald.models.distribution.affinity import Affinity, AffinityDistribution
from gald.models.distribution.depthwise import DepthwiseDistribution
from gald.models.distribution.mask import MaskDistribution
from gald.models.distribution.none import NoDistribution
from gald.models.segmentor import Segmentor

CHANNELS = 3  # of a mask that are kept
_NOTABLE = 1e-4  # of one less an entropy's share: below it, weights are equal as far as float32 can tell


def distribution_of(model: Segmentor) -> nn.Module | None:
    """Find the distribution of a network; None where it has none."""
    block = model.head.block
    if not isinstance(block, GlobalThenLocal) or isinstance(block.distribution, NoDistribution):
        return None
    return block.distribution


def explain(
    model: Segmentor,
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    *,
    at: Sequence[tuple[int, int]] = (),
) -> Explanation:
    """Look at what the distribution does to one picture.

    Parameters
    ----------
    model : Segmentor
        In evaluation mode, with a distribution.
    image : uint8 array (H', W', 3)
        The picture at the network's input size.
    labels : uint8 array (H, W)
        What the network predicts of it, see `gald.inference.predict`.
    at : sequence of (int, int)
        Rows and columns among the labels whose windows are shown. None at all means `telling_places`, and the
        position whose weights are most unequal.

    Returns
    -------
    Explanation

    Raises
    ------
    ModelError
        The network has no distribution.
    ParamsError
        A position lies outside, or the distribution has no weights to show at positions.
    """
    distribution = distribution_of(model)
    if distribution is None:
        raise ModelError("the network has no local distribution (model.distribution is none)")
    kind = _kind(distribution)
    if at and kind != "affinity":
        raise ParamsError(
            "--at: only an adaptive affinity has weights to show at positions, not this one; leave it out"
        )
    size = (labels.shape[0], labels.shape[1])
    with torch.inference_mode(), _bypassed(distribution) as seen:
        without = predict(model, image, size)
        features = seen[-1]
        grid = _Grid(size, (features[0].shape[-2], features[0].shape[-1]), model.align_corners)
        shown: dict[str, Any] = {}
        if isinstance(distribution, AffinityDistribution) and distribution.affinity is not None:
            shown = _affinity(distribution, distribution.affinity, features, grid, labels, _checked(at, grid))
        elif isinstance(distribution, MaskDistribution):
            shown = _mask(distribution.mask(features[1])[0])
    return Explanation(kind, _output(distribution, kind), labels, without, grid.cells, **shown)


def _kind(distribution: nn.Module) -> Kind:
    if isinstance(distribution, AffinityDistribution):
        return "uniform" if distribution.affinity is None else "affinity"
    return "mask" if isinstance(distribution, MaskDistribution) else "other"


def _output(distribution: nn.Module, kind: Kind) -> str:
    """Spell what a distribution computes; nothing of one that is not known here."""
    if isinstance(distribution, DepthwiseDistribution):
        return "f(g) + x"
    added = {"x": " + x", "g": " + g", "none": ""}
    if isinstance(distribution, MaskDistribution):
        return f"g + m·g{added[distribution.residual]}"
    if isinstance(distribution, AffinityDistribution):
        value = {"g": "v(g)", "x": "v(x)", "difference": "v(g - x)"}[distribution.source]
        return f"norm({'sum of a·' if kind == 'affinity' else 'mean of '}{value}){added[distribution.residual]}"
    return ""


@contextmanager
def _bypassed(distribution: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Make a distribution hand on the aggregated feature, and list the pairs (local, aggregated) that come along."""
    seen: list[tuple[Tensor, Tensor]] = []

    def hand_on(_: nn.Module, features: tuple[Tensor, Tensor], __: Tensor) -> Tensor:
        seen.append(features)
        return features[1]

    handle = distribution.register_forward_hook(hand_on)
    try:
        yield seen
    finally:
        handle.remove()


class _Grid(NamedTuple):
    """Pixels of a picture and positions of a feature, related as the network's resizing relates them."""

    size: tuple[int, int]
    cells: tuple[int, int]
    align_corners: bool

    def cell(self, pixel: tuple[int, int]) -> tuple[int, int]:
        """Position nearest to a pixel."""
        row, column = (self._to_cell(*axis) for axis in zip(pixel, self.size, self.cells, strict=True))
        return row, column

    def pixel(self, cell: tuple[int, int]) -> tuple[int, int]:
        """Pixel at the middle of a position."""
        row, column = (self._to_pixel(*axis) for axis in zip(cell, self.size, self.cells, strict=True))
        return row, column

    def _to_cell(self, pixel: int, size: int, cells: int) -> int:
        if self.align_corners:
            return math.floor(pixel * (cells - 1) / max(size - 1, 1) + 0.5)
        return min(cells - 1, math.floor((pixel + 0.5) * cells / size))

    def _to_pixel(self, cell: int, size: int, cells: int) -> int:
        if self.align_corners:
            return math.floor(cell * (size - 1) / max(cells - 1, 1) + 0.5)
        return min(size - 1, math.floor((cell + 0.5) * size / cells))


def telling_places(
    labels: npt.NDArray[np.uint8], cells: tuple[int, int], *, align_corners: bool = True
) -> tuple[Place, ...]:
    """Choose positions that tell something, always the same ones for the same labels.

    Parameters
    ----------
    labels : uint8 array (H, W)
        Predicted train ids.
    cells : (int, int)
        Positions of the feature.
    align_corners : bool
        Of the network.

    Returns
    -------
    tuple of Place
        The boundary pixel nearest to the picture's middle, if there is a boundary; the position farthest from every
        boundary and from the border, if one has only its own class around it; and the upper left corner.
    """
    grid = _Grid((labels.shape[0], labels.shape[1]), cells, align_corners)
    places = []
    boundary = np.zeros(labels.shape, bool)
    boundary[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    boundary[:-1] |= labels[:-1] != labels[1:]
    found = np.argwhere(boundary)
    if len(found):
        middle = np.array([(side - 1) / 2 for side in labels.shape])
        row, column = found[np.argmin(((found - middle) ** 2).sum(axis=1))].tolist()
        places.append(Place((row, column), grid.cell((row, column)), "on a predicted boundary"))
    depth = _depth(labels[np.ix_(*([grid.pixel((i, i))[axis] for i in range(cells[axis])] for axis in (0, 1)))])
    if depth.any():
        row, column = divmod(int(depth.argmax()), cells[1])
        places.append(Place(grid.pixel((row, column)), (row, column), "inside a large region"))
    return (*places, Place((0, 0), (0, 0), "in the picture's corner"))


def _depth(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How many rings around each position are all of its class; 0 at the border."""
    padded = np.pad(labels.astype(np.int64), 1, constant_values=-1)
    within = np.ones(labels.shape, bool)
    depth = np.zeros(labels.shape, np.int64)
    height, width = labels.shape
    for down, right in np.ndindex(3, 3):
        within &= padded[down : down + height, right : right + width] == labels
    while within.any():
        depth += within
        outer = np.pad(within, 1)
        for down, right in np.ndindex(3, 3):
            within = within & outer[down : down + height, right : right + width]
    return depth


def _affinity(
    distribution: AffinityDistribution,
    affinity: Affinity,
    features: tuple[Tensor, Tensor],
    grid: _Grid,
    labels: npt.NDArray[np.uint8],
    chosen: tuple[Place, ...],
) -> dict[str, Any]:
    """How unequal the weights of every position are, and the weights at the chosen or else at telling places."""
    weights = affinity(*features)[0].float()  # (heads, k^2, h, w)
    inside = distribution.window.inside(*grid.cells, weights.device).sum(0)
    shares = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)  # of a sigmoid they do not sum to one
    entropy = torch.special.entr(shares).sum(1).mean(0)
    unequal = torch.where(inside > 1, 1 - entropy / inside.clamp_min(2).log(), 0.0).clamp(0, 1)
    places = chosen or telling_places(labels, grid.cells, align_corners=grid.align_corners)
    if not chosen and unequal.max() > _NOTABLE:
        cell = divmod(int(unequal.argmax()), grid.cells[1])
        places = (*places, Place(grid.pixel(cell), cell, "most unequal weights"))
    cells = torch.tensor([place.cell for place in places])
    return {
        "window": distribution.window.side,
        "dilation": distribution.window.dilation,
        "places": places,
        "weights": _numpy(weights[..., cells[:, 0], cells[:, 1]].permute(2, 0, 1)),
        "overview": _numpy(unequal),
    }


def _mask(mask: Tensor) -> dict[str, Any]:
    """Mean of a mask (C, h, w) over its channels, and the channels that vary most."""
    spread = _numpy(mask.flatten(1).std(1, correction=0))
    channels = np.argsort(-spread, kind="stable")[:CHANNELS]
    return {
        "overview": _numpy(mask.mean(0)),
        "channels": channels,
        "channel_maps": _numpy(mask[torch.from_numpy(channels)]),
        "channel_spread": spread[channels],
    }


def _numpy(tensor: Tensor) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(tensor.float().cpu().numpy())


def check_places(at: Sequence[tuple[int, int]], size: tuple[int, int]) -> None:
    """Refuse pixels that lie outside a picture of `size`, its height and width.

    Raises
    ------
    ParamsError
        One does; the message names it and the picture's rows and columns.
    """
    height, width = size
    for row, column in at:
        if not (0 <= row < height and 0 <= column < width):
            raise ParamsError(
                f"--at {row} {column} is outside: rows go from 0 to {height - 1}, columns from 0 to {width - 1}"
            )


def _checked(at: Sequence[tuple[int, int]], grid: _Grid) -> tuple[Place, ...]:
    """Places of the chosen pixels."""
    check_places(at, grid.size)
    return tuple(Place(pixel, grid.cell(pixel), "chosen") for pixel in at)
