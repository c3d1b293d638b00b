from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gald._torchvision import import_with_torchvision
from gald.transforms._photometric import Changes, distort

F: Any = import_with_torchvision("torchvision.transforms.v2.functional")
RNG = np.random.default_rng(0)
COLOURS = np.concatenate(
    [
        RNG.integers(0, 256, (40, 41, 3)),
        RNG.integers(0, 256, (9, 41, 1)).repeat(3, axis=2),  # greys
        RNG.integers(0, 16, (9, 41, 3)),  # dark
        np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]]]).repeat(9, 1)[:, :41],
    ]
).astype(np.uint8)


@pytest.mark.parametrize("step", ["brightness", "contrast", "saturation", "hue"])
@settings(deadline=None)
@given(st.data())
def test_each_colour_step_is_torchvisions(step: str, data: st.DataObject) -> None:
    value = data.draw(st.floats(-0.5, 0.5) if step == "hue" else st.floats(0, 2))
    found = COLOURS.copy()
    distort(found, Changes(**{step: value}))
    planes = torch.from_numpy(COLOURS).permute(2, 0, 1)
    expected = getattr(F, f"adjust_{step}")(planes, value).permute(1, 2, 0).numpy()
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


def test_colours_by_hand() -> None:
    def changed(colour: list[list[int]], **change: float) -> list[list[int]]:
        image = np.array([colour], np.uint8)
        distort(image, Changes(**change))
        return image[0].tolist()

    grey = [[100, 100, 100], [50, 50, 50]]
    assert changed(grey, brightness=1.5) == [[150] * 3, [75] * 3]
    # The luma weights add up to 0.9999: greys of 99 and 49, so 74 +- 12.5 and half of what was cut off
    assert changed(grey, contrast=0.5) == [[87] * 3, [62] * 3]
    assert changed([[100, 200, 0]], saturation=0.0) == [[147] * 3]  # 0.2989 * 100 + 0.587 * 200 = 147.3
    assert changed([[200, 100, 0]], hue=1 / 3) == [[0, 200, 100]]
    assert changed(grey, hue=0.2) == grey


def test_no_change_leaves_every_bit_and_takes_no_time() -> None:
    image = COLOURS.copy()
    image.flags.writeable = False  # nothing is written
    distort(image, Changes())
    np.testing.assert_array_equal(image, COLOURS)
