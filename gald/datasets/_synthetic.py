"""Draws the miniature benchmarks' scenes: small images that test what the paper claims, each a function of a seed.

Two questions are built into every scene. *Long range*: the ground is of one of two classes that look the same; only the
colour of a lamp in a far corner says which, and a strip of backdrop keeps every ground pixel further from the lamp than
a small backbone sees. *Fine detail*: poles 1 to 3 pixels wide, discs of radius 2 to 5, boxes and wavy boundaries, under
noise and a gradient of light. By the paper's claim, aggregation helps with the first and hurts the second, and
distribution repairs that.

A scene is made of parts (`Part`), to which each benchmark gives ids of its own (`gald.datasets._native.MINIATURES`).
The same seed, version, dataset, split and index always give the same scene.
"""

from __future__ import annotations

import zlib
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

GENERATOR_VERSION = 1
"""Part of every seed. Any change of what is drawn bumps it, so that old and new scenes cannot be mistaken."""

HEIGHT, WIDTH = 96, 192
VOID = 255

LAMP_SIZE = 16
LAMP_COLOURS = ((255, 0, 255), (0, 255, 0))
"""Opposite in every channel, and far from all other colours of a scene; the index is that of the ground's class."""
LAMP_CLEARANCE = 6
"""Pixels around the lamp in which no object is placed."""
GROUND_MARGIN = 84
"""Width in pixels of the strip on the lamp's side, measured from the border, that holds no ground."""

NOISE = 12.0
"""Standard deviation of the pixel noise, in grey levels."""
COLOUR_JITTER = 14.0
"""A part's colour moves by up to this much, in grey levels, from scene to scene."""
LIGHT = 0.2
"""Light rises or falls by up to this fraction from the middle of the image to its corners."""

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]


class Part(IntEnum):
    """What a scene is made of; `GROUND_A` and `GROUND_B` differ in the lamp's colour alone."""

    SKY = 0
    GROUND_A = 1
    GROUND_B = 2
    WALL = 3
    FOLIAGE = 4
    POLE = 5
    DISC = 6
    BOX = 7


_COLOURS = {
    Part.SKY: (176, 190, 206),
    Part.GROUND_A: (112, 108, 104),
    Part.GROUND_B: (112, 108, 104),
    Part.WALL: (152, 118, 98),
    Part.FOLIAGE: (92, 104, 70),
    Part.POLE: (62, 60, 66),
    Part.DISC: (214, 186, 84),
    Part.BOX: (78, 88, 140),
}
_HOOD_COLOUR = (40, 38, 40)
_FOLIAGE_GRAIN = 18.0  # foliage is rougher than the wall, in grey levels
_COURSE_HEIGHT = 6  # the wall's courses, in pixels
_COURSE_DEPTH = 14.0  # how much darker a joint is, in grey levels


class Scene(NamedTuple):
    """A drawn scene.

    Attributes
    ----------
    image : ndarray of uint8, shape (96, 192, 3)
        RGB.
    labels : ndarray of uint8, shape (96, 192)
        The `Part` of each pixel, or `VOID`.
    """

    image: Image
    labels: Labels


def draw(seed: int, dataset: str, split: str, index: int) -> Scene:
    """Draw the scene of that name: a pure function of its arguments and `GENERATOR_VERSION`.

    Parameters
    ----------
    seed : int
        Seed of the whole miniature; seeds of 100 and above are for tuning, tables use the others.
    dataset, split : str
        Names; two benchmarks of one seed share no scene.
    index : int
        Position in the split.

    Returns
    -------
    Scene
    """
    entropy = [seed, GENERATOR_VERSION, zlib.crc32(f"{dataset}/{split}".encode()), index]
    return scene(np.random.default_rng(np.random.SeedSequence(entropy)), kind=index % 2)


def scene(rng: np.random.Generator, *, kind: int | None = None) -> Scene:
    """Draw one scene from a generator.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance; it is advanced.
    kind : {0, 1}, optional
        Which of the two grounds, and colours of the lamp; drawn when not given. `draw` alternates them, so that every
        split holds as many scenes of either.

    Returns
    -------
    Scene

    Examples
    --------
    >>> image, labels = scene(np.random.default_rng(0))
    >>> image.shape, labels.shape, image.dtype, labels.dtype
    ((96, 192, 3), (96, 192), dtype('uint8'), dtype('uint8'))
    >>> (Part.GROUND_A in labels) != (Part.GROUND_B in labels)  # the lamp decides for the whole scene
    True
    """
    drawn = int(rng.integers(2))
    kind = drawn if kind is None else kind
    labels = _layout(rng, Part.GROUND_A if kind == 0 else Part.GROUND_B)
    blocked = np.zeros((HEIGHT, WIDTH), dtype=bool)
    top = int(rng.integers(2, 10))
    left = int(rng.integers(2, 10))
    blocked[: top + LAMP_SIZE + LAMP_CLEARANCE, : left + LAMP_SIZE + LAMP_CLEARANCE] = True
    _boxes(rng, labels, blocked)
    _poles(rng, labels, blocked)
    _discs(rng, labels, blocked)
    hood = int(rng.integers(3, 7)) if rng.random() < 0.5 else 0
    image = _shade(rng, labels)
    if hood:
        labels[HEIGHT - hood :] = VOID
        image[HEIGHT - hood :] = _HOOD_COLOUR
    lamp = (slice(top, top + LAMP_SIZE), slice(left, left + LAMP_SIZE))
    labels[lamp] = Part.SKY  # a cue, not a class: were it one, finding it would be rewarded directly
    image = _light(rng, image)
    image[lamp] = LAMP_COLOURS[kind]  # after the light, so that the cue stays plain
    image += rng.normal(0.0, NOISE, size=image.shape)
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if rng.random() < 0.5:  # everything above is drawn with the lamp on the left
        return Scene(np.ascontiguousarray(pixels[:, ::-1]), np.ascontiguousarray(labels[:, ::-1]))
    return Scene(pixels, labels)


def _wave(rng: np.random.Generator, length: int, level: float, amplitude: float) -> npt.NDArray[np.float64]:
    """Return a boundary of that length around a level: two sine waves of random length and phase."""
    t = np.arange(length, dtype=np.float64)
    wave = np.full(length, level)
    for share, shortest in ((0.7, 40.0), (0.3, 12.0)):
        period = shortest * (1.0 + rng.random())
        wave += share * amplitude * np.sin(2.0 * np.pi * (t / period + rng.random()))
    return wave


def _layout(rng: np.random.Generator, ground: Part) -> Labels:
    """Sky above, a backdrop of wall and foliage, ground below; no ground within `GROUND_MARGIN` of the left border."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    labels = np.full((HEIGHT, WIDTH), Part.SKY, dtype=np.uint8)
    backdrop = y >= _wave(rng, WIDTH, rng.uniform(36, 46), 5.0)[None, :]
    labels[backdrop] = Part.WALL
    for centre in (rng.uniform(10, 90), rng.uniform(100, 180)):
        half = rng.uniform(14, 26)
        left, right = (_wave(rng, HEIGHT, centre + side * half, 4.0)[:, None] for side in (-1.0, 1.0))
        labels[backdrop & (x >= left) & (x < right)] = Part.FOLIAGE
    below = y >= _wave(rng, WIDTH, rng.uniform(54, 64), 4.0)[None, :]
    beyond = x >= np.maximum(_wave(rng, HEIGHT, GROUND_MARGIN + 5.0, 5.0), GROUND_MARGIN)[:, None]
    labels[below & beyond] = ground
    return labels


def _boxes(rng: np.random.Generator, labels: Labels, blocked: npt.NDArray[np.bool_]) -> None:
    """Paint 2 to 4 boxes, 8 to 22 pixels wide, in the lower half."""
    for _ in range(int(rng.integers(2, 5))):
        height, width = int(rng.integers(6, 15)), int(rng.integers(8, 23))
        top, left = int(rng.integers(46, HEIGHT - 8 - height)), int(rng.integers(2, WIDTH - 2 - width))
        region = np.zeros_like(blocked)
        region[top : top + height, left : left + width] = True
        labels[region & ~blocked] = Part.BOX


def _poles(rng: np.random.Generator, labels: Labels, blocked: npt.NDArray[np.bool_]) -> None:
    """Paint 4 to 7 upright poles, 1 to 3 pixels wide."""
    for _ in range(int(rng.integers(4, 8))):
        width = int(rng.integers(1, 4))
        top, foot = int(rng.integers(14, 44)), int(rng.integers(58, 86))
        left = int(rng.integers(2, WIDTH - 5))
        region = np.zeros_like(blocked)
        region[top:foot, left : left + width] = True
        labels[region & ~blocked] = Part.POLE


def _discs(rng: np.random.Generator, labels: Labels, blocked: npt.NDArray[np.bool_]) -> None:
    """Paint 7 to 11 discs of radius 2 to 5."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    for _ in range(int(rng.integers(7, 12))):
        radius = int(rng.integers(2, 6))
        row, column = int(rng.integers(8, HEIGHT - 12)), int(rng.integers(6, WIDTH - 6))
        disc = (y - row) ** 2 + (x - column) ** 2 <= radius**2
        if not blocked[disc].any():
            labels[disc] = Part.DISC


def _shade(rng: np.random.Generator, labels: Labels) -> npt.NDArray[np.float64]:
    """Give each part its colour of the day and its grain; both grounds get one and the same colour."""
    base = np.array([_COLOURS[part] for part in Part], dtype=np.float64)
    base += rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, size=base.shape)
    base[Part.GROUND_B] = base[Part.GROUND_A]
    image = base[labels]
    grain = rng.normal(0.0, _FOLIAGE_GRAIN, size=labels.shape)[..., None]
    image += np.where((labels == Part.FOLIAGE)[..., None], grain, 0.0)
    joint = (np.arange(HEIGHT) % _COURSE_HEIGHT == 0)[:, None] & (labels == Part.WALL)
    image[joint] -= _COURSE_DEPTH
    return image


def _light(rng: np.random.Generator, image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Brighten and darken along a random direction."""
    y, x = np.mgrid[-1.0 : 1.0 : HEIGHT * 1j, -1.0 : 1.0 : WIDTH * 1j]
    down, across = rng.uniform(-LIGHT / 2, LIGHT / 2, size=2)
    lit: npt.NDArray[np.float64] = image * (1.0 + down * y + across * x)[..., None]
    return lit
