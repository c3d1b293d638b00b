"""What a local distribution did to one picture: plain numbers that the evaluation keeps and the reports draw."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Kind = Literal["mask", "affinity", "uniform", "other"]
Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float32]


class Place(NamedTuple):
    """A position that is looked at.

    Attributes
    ----------
    pixel : (int, int)
        Row and column in the picture.
    cell : (int, int)
        Row and column of the feature's position there.
    why : str
        Why this one, in words.
    """

    pixel: tuple[int, int]
    cell: tuple[int, int]
    why: str


@dataclass(frozen=True)
class Explanation:
    """What a distribution did to one picture of H x W pixels, at a feature of h x w positions with C channels.

    Attributes
    ----------
    kind : {"mask", "affinity", "uniform", "other"}
        Version 1, version 2, version 2 with its weights fixed, or one without a mask or weights to show.
    output : str
        What the distribution computes, as a formula of the local feature x and the aggregated feature g; empty where
        that is not known.
    labels, without : uint8 array (H, W)
        Train ids that the network predicts, and those of the same network, its distribution replaced by handing on the
        aggregated feature.
    positions : (int, int)
        h and w.
    window, dilation : int
        Side of the window and distance of its positions; 0 where there is no window.
    places : tuple of Place
        Positions whose windows are kept; P of them.
    weights : float32 array (P, heads, window^2)
        Weight of each neighbour, row by row from the upper left; 0 where it would lie outside.
    overview : float32 array (h, w)
        Of a mask its mean over the channels, in (0, 1). Of an affinity how unequal the weights of a window are: one
        less their entropy over that of equal weights, so 0 for equal ones and 1 for a single neighbour, mean over
        heads. Empty otherwise.
    channels : int64 array (c,)
        Channels of the mask that vary most over the picture, most of all first.
    channel_maps : float32 array (c, h, w)
        Mask of those channels.
    channel_spread : float32 array (c,)
        Their standard deviation over the picture.
    """

    kind: Kind
    output: str
    labels: Pixels
    without: Pixels
    positions: tuple[int, int]
    window: int = 0
    dilation: int = 0
    places: tuple[Place, ...] = ()
    weights: Numbers = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    overview: Numbers = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    channels: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    channel_maps: Numbers = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    channel_spread: Numbers = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def differing(self) -> float:
        """Share of the pixels whose label is another one without the distribution."""
        return float(np.mean(self.labels != self.without))

    def neighbours(self, place: int) -> Iterator[tuple[int, int, bool]]:
        """Go through the window of a place: shift in rows and in columns, and whether it lies on the feature."""
        row, column = self.places[place].cell
        reach = self.window // 2
        for index in range(self.window**2):
            down, right = ((part - reach) * self.dilation for part in divmod(index, self.window))
            inside = 0 <= row + down < self.positions[0] and 0 <= column + right < self.positions[1]
            yield down, right, inside

    def reading(self) -> str:
        """Say what the difference of the labels means, and what it does not."""
        formula = f" LD gives {self.output}, of the local feature x and the aggregated feature g; without LD it is g."
        return (
            "Without LD: the same network, its distribution replaced by handing on the aggregated feature."
            f"{formula if self.output else ''} The layers after it were trained with LD, so a network trained "
            "without it may do better than this."
        )

    def packed(self) -> bytes:
        """Spell it as an .npz, the same bytes for the same numbers; `read` is the way back."""
        plain = {
            "kind": self.kind,
            "output": self.output,
            "positions": self.positions,
            "window": self.window,
            "dilation": self.dilation,
            "places": self.places,
        }
        out = io.BytesIO()
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        np.savez_compressed(out, plain=np.array(json.dumps(plain)), **arrays)
        return out.getvalue()


_ARRAYS = ("labels", "without", "weights", "overview", "channels", "channel_maps", "channel_spread")


def read(path: Path) -> Explanation:
    """Read what `Explanation.packed` spelt.

    Raises
    ------
    ValueError
        The file is damaged; the message names it.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:  # np.load leaves a damaged file open
            plain = json.loads(str(file["plain"]))
            arrays = {name: file[name] for name in _ARRAYS}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    places = tuple(Place((*pixel,), (*cell,), why) for pixel, cell, why in plain.pop("places"))
    return Explanation(**plain | {"positions": (*plain["positions"],)}, **arrays, places=places)
