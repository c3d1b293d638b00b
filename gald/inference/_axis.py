"""From the features of tiles to the rows, or columns, of a prediction: one sparse matrix for each side of an image.

Scores go from the features to their tile's pixels, from there to the scaled image with each pixel's weight, and on to
the prediction's size. Each step is linear and separable, and so is the whole: along each side it is one matrix with a
few entries a row, the same numbers as one step after the other without what lies between.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gald.losses.resizing import weights_between

_KEPT = 64  # matrices; images of a benchmark often have all one size
Matrix = Any  # csr_array, float64


class Axis(NamedTuple):
    """One side of an image as its tiles show it to a network.

    Attributes
    ----------
    length : int
        Pixels of the scaled image.
    tile : int
        Pixels of a tile, padding included.
    starts : tuple of int
        First pixel of each tile.
    features : int
        Positions of the network's scores of one tile.
    size : int
        Pixels of the prediction.
    align_corners : bool
        Of every resize, as `torch.nn.functional.interpolate` has it.
    """

    length: int
    tile: int
    starts: tuple[int, ...]
    features: int
    size: int
    align_corners: bool


class Piece(NamedTuple):
    """Features that lie side by side in one chunk: those in [low, low + span) of it."""

    chunk: int
    low: int
    span: int


class Band(NamedTuple):
    """What a run of the prediction's rows, or columns, needs of the features.

    Attributes
    ----------
    first, last : int
        Rows [first, last) of the prediction that the features reach.
    pieces : tuple of Piece
        Where the features lie.
    used : Tensor or None
        int64 (n), which of those in the pieces, one piece after the other, are used; None where all are.
    weights : Tensor
        float32 (last - first, n).
    share : Tensor
        float32 (last - first): the part that a tile has in the average of each row, in (0, 1].
    """

    first: int
    last: int
    pieces: tuple[Piece, ...]
    used: Tensor | None
    weights: Tensor
    share: Tensor


@lru_cache(_KEPT)
def linear(old: int, new: int, align_corners: bool) -> Matrix:
    """Sparse matrix (new, old) of linear interpolation; its positions are rounded as torch's are for float32."""
    from scipy import sparse  # not at the top: a training starts without it

    weights, _, _ = weights_between(old, new, torch.float32, align_corners)
    return sparse.csr_array(weights.numpy())


@lru_cache(_KEPT)
def tiles(axis: Axis) -> tuple[tuple[Matrix, NDArray[np.float64]], ...]:
    """Of each tile, the matrix (size, features) to its part of the average, and its share of each row (size).

    A matrix' rows add up to the shares, and the shares of all tiles to 1: pixels that several tiles cover count each
    of them equally.
    """
    from scipy import sparse

    covered = min(axis.tile, axis.length)
    count = np.zeros(axis.length)
    for start in axis.starts:
        count[start : start + covered] += 1
    to_pixels = linear(axis.features, axis.tile, axis.align_corners).astype(np.float64)[:covered]
    to_size = linear(axis.length, axis.size, axis.align_corners).astype(np.float64)
    found = []
    for start in axis.starts:
        within = slice(start, start + covered)
        weight = 1 / count[within]
        matrix = to_size[:, within] @ sparse.diags_array(weight) @ to_pixels
        found.append((sparse.csr_array(matrix), to_size[:, within] @ weight))
    return tuple(found)


@lru_cache(_KEPT)
def joint_bands(axis: Axis, rows: int, device: torch.device, chunk: int | None = None) -> tuple[Band | None, ...]:
    """Bands of `rows` rows for the features of all tiles, one tile after the other.

    Chunks are counted over all tiles, each of which begins a new one: of `chunk` features, and fewer at a tile's end.
    Without a size all features lie in one.
    """
    from scipy import sparse

    matrix = sparse.csr_array(sparse.hstack([matrix for matrix, _ in tiles(axis)]))
    return _bands(matrix, np.ones(axis.size), rows, device, _chunks(axis, chunk))


@lru_cache(_KEPT)
def tile_bands(
    axis: Axis, tile: int, rows: int, device: torch.device, chunk: int | None = None
) -> tuple[Band | None, ...]:
    """Bands of `rows` rows for the features of one tile, whose weights add up to 1; None where it does not reach.

    Chunks are counted as `joint_bands` does; without a size the tile's features are counted as if it were the only one.
    """
    from scipy import sparse

    matrix, share = tiles(axis)[tile]
    inverse = np.divide(1, share, out=np.zeros_like(share), where=share > 0)
    matrix = sparse.csr_array(sparse.diags_array(inverse) @ matrix)
    chunks = _chunks(axis, chunk)
    return _bands(matrix, share, rows, device, chunks if chunk is None else chunks[tile * axis.features :])


def _chunks(axis: Axis, chunk: int | None) -> NDArray[np.int64]:
    """Chunk of each feature of all tiles, and its place in that chunk: int64 (features, 2)."""
    features = np.arange(len(axis.starts) * axis.features)
    if chunk is None:
        return np.stack([np.zeros_like(features), features], axis=1)
    tile, within = np.divmod(features, axis.features)
    return np.stack([tile * -(-axis.features // chunk) + within // chunk, within % chunk], axis=1)


def _bands(
    matrix: Matrix, share: NDArray[np.float64], rows: int, device: torch.device, chunks: NDArray[np.int64]
) -> tuple[Band | None, ...]:
    size = matrix.shape[0]
    firsts = range(0, size, rows)
    return tuple(_band(matrix, share, first, min(first + rows, size), device, chunks) for first in firsts)


def _band(
    matrix: Matrix,
    share: NDArray[np.float64],
    first: int,
    last: int,
    device: torch.device,
    chunks: NDArray[np.int64],
) -> Band | None:
    reached = np.flatnonzero(share[first:last] > 0)
    if len(reached) == 0:
        return None
    first, last = first + int(reached[0]), first + int(reached[-1]) + 1
    of_rows = matrix[first:last]
    features = np.unique(of_rows.indices)
    weights = of_rows[:, features].toarray().astype(np.float32)
    pieces, used = _pieces(chunks[features])
    return Band(
        first,
        last,
        pieces,
        None if used is None else torch.from_numpy(used).to(device),
        torch.from_numpy(weights).to(device),
        torch.from_numpy(share[first:last].astype(np.float32)).to(device),
    )


def _pieces(places: NDArray[np.int64]) -> tuple[tuple[Piece, ...], NDArray[np.int64] | None]:
    """Pieces that hold features at places (chunk, place within), and which of the pieces' features they are."""
    pieces, used, length = [], [], 0
    for chunk in np.unique(places[:, 0]):
        within = places[places[:, 0] == chunk, 1]
        piece = Piece(int(chunk), int(within[0]), int(within[-1] - within[0]) + 1)
        used.append(length + within - piece.low)
        length += piece.span
        pieces.append(piece)
    found = np.concatenate(used)
    return tuple(pieces), None if len(found) == length else found
