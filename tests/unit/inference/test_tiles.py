import numpy as np
import pytest

from gald.inference._tiles import batch, grid, starts
from tests.unit.inference.stubs import protocol


def test_tiles_of_the_authors_crop_on_cityscapes() -> None:
    plan = grid((1024, 2048), 1.0, protocol(window=(769, 769), overlap=1 / 3))
    assert plan.rows == (0, 255)
    assert plan.columns == (0, 513, 1026, 1279)
    assert plan.covered == plan.tile == (769, 769)


@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("length", "window"), [(50, 7), (50, 50), (51, 50), (49, 50), (1, 1), (1, 9), (300, 2)])
def test_tiles_cover_every_pixel_and_end_with_the_image(length: int, window: int, overlap: float) -> None:
    found = starts(length, window, overlap)
    covered = np.zeros(length, int)
    for start in found:
        covered[start : start + window] += 1
    assert covered.min() >= 1
    assert found[0] == 0
    assert found[-1] == max(0, length - window)
    assert list(found) == sorted(set(found))
    steps = np.diff(found[:-1])
    assert (steps == steps[:1]).all()
    assert all(step >= window * (1 - overlap) - 1e-6 for step in steps)


def test_steps_are_rounded_up_as_the_authors_release_does() -> None:
    assert starts(2000, 768, 1 / 3)[1] == 512
    assert starts(2000, 832, 1 / 3)[1] == 555
    assert starts(100, 33, 1 / 3)[1] == 23  # 33 * (1 - 1/3) is 22.000000000000004
    assert starts(100, 2, 0.999)[1] == 1


def test_scaled_sides_round_halves_up_and_never_vanish() -> None:
    assert grid((5, 7), 0.5, protocol()).image == (3, 4)
    assert grid((5, 7), 1.5, protocol()).image == (8, 11)
    assert grid((1, 100), 0.25, protocol()).image == (1, 25)


def test_a_window_larger_than_the_image_is_padded() -> None:
    plan = grid((20, 100), 1.0, protocol(window=(32, 48), overlap=0.25))
    assert (plan.rows, plan.columns) == ((0,), (0, 36, 52))
    assert (plan.tile, plan.covered) == ((32, 48), (20, 48))


def test_a_batch_is_a_matter_of_window_and_device_alone() -> None:
    assert batch((769, 769), "cpu") == 1
    assert batch((256, 256), "cpu") == 4
    assert batch((769, 769), "cuda") == 7
    assert batch((5000, 5000), "cuda") == 1
