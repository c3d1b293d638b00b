import numpy as np
import pytest
from PIL import Image

from gald.datasets._synthetic import draw
from gald.prepare.dhash import dhash


def distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_a_hand_made_hash() -> None:
    rows = [[0, 1, 2, 3, 4, 5, 6, 7, 8]] * 4 + [[5, 4, 9, 9, 1, 2, 2, 3, 0]] * 4
    image = Image.fromarray(np.array(rows, np.uint8) * 20).convert("RGB")
    # brightness grows to the right at the second, fifth and seventh of the lower rows' eight steps: 0b01001010
    assert dhash(image) == "ff" * 4 + "4a" * 4


@pytest.mark.parametrize("size", [(192, 96), (384, 192), (100, 60)])
def test_near_duplicates_are_near_and_others_are_not(size: tuple[int, int]) -> None:
    image, other = (Image.fromarray(draw(1, "camvid", "train", index).image) for index in (0, 1))
    assert distance(dhash(image), dhash(image.resize(size))) <= 8
    assert distance(dhash(image), dhash(other)) > 8
