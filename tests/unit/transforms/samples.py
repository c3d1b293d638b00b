"""Recipes and samples of tests, and the same work done by torchvision."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gald._torchvision import import_with_torchvision
from gald.params import TrainParams, read_yaml
from gald.transforms._augment import CROPS_TRIED, Draws

F: Any = import_with_torchvision("torchvision.transforms.v2.functional")
BASE = read_yaml(Path(__file__).parents[3] / "params" / "base.yaml")
STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
NEUTRAL = Draws(0.5, 0.5, 0.5, 0.9, 0.5, 0.5, 0.5, 0.5, ((0.5, 0.5),) * (CROPS_TRIED - 1))


def recipe(**changes: object) -> TrainParams:
    """Recipe that only crops to 20x24."""
    plain = {"crop_size": [20, 24], "scale_range": [1.0, 1.0], "flip": False, "photometric": STILL}
    return TrainParams.model_validate(BASE["train"] | plain | changes)


def sample(height: int = 30, width: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Coloured blocks of 5x5 pixels; the colour tells the class."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 4, (height // 5 + 1, width // 5 + 1)).repeat(5, 0).repeat(5, 1)[:height, :width]
    mask = mask.astype(np.uint8)
    return np.stack([mask * 60, 255 - mask * 60, mask * 30 + 20], axis=-1).astype(np.uint8), mask


def noise(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8), rng.integers(0, 19, (height, width)).astype(
        np.uint8
    )


def planes(image: np.ndarray) -> torch.Tensor:
    """Image as torchvision takes it: (3, H, W), or (1, H, W) of a mask."""
    return torch.from_numpy(image.copy() if image.ndim == 3 else image[..., None].copy()).permute(2, 0, 1)


def pixels(image: torch.Tensor) -> np.ndarray:
    found: np.ndarray = image.permute(1, 2, 0).numpy()
    return found[..., 0] if found.shape[2] == 1 else found


# Without AVX2, torchvision resizes bytes as floats and rounds them, which may fall to the neighbouring level.
LEVELS = 0 if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else 1


def assert_same_pixels(found: np.ndarray, expected: np.ndarray, source: tuple[int, int]) -> None:
    """An image to the bit where the library computes in bytes too, a mask wherever the library has but one answer."""
    if found.ndim == 2:
        lines = np.ix_(*(settled(*lengths) for lengths in zip(source, found.shape, strict=True)))
        np.testing.assert_array_equal(found[lines], expected[lines])
    else:
        np.testing.assert_allclose(found.astype(int), expected, rtol=0, atol=LEVELS)


def settled(source: int, result: int) -> np.ndarray:
    """Pixels whose centre lies within one of the source, or exactly between two where 32 bits are exact.

    Of two that are equally near, torch's code for small results takes another one than that for larger ones.
    """
    denominator = result // math.gcd(source, result)
    exact = denominator & (denominator - 1) == 0
    return np.flatnonzero((2 * np.arange(result) + 1) * source % (2 * result) != 0) if not exact else np.arange(result)


def library_crop(pixels_: np.ndarray, window: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """torchvision's crop of a window (top, left, height, width) and its resize, nearest for a mask."""
    how = F.InterpolationMode.BILINEAR if pixels_.ndim == 3 else F.InterpolationMode.NEAREST_EXACT
    return pixels(F.resized_crop(planes(pixels_), *window, list(size), interpolation=how, antialias=True))
