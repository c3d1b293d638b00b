import numpy as np
import pytest
import torch
from torch.nn import functional

from gald.inference._axis import Axis, joint_bands, linear, tile_bands, tiles

CPU = torch.device("cpu")


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("old", "new"), [(5, 40), (97, 769), (13, 13), (40, 7), (1, 9), (9, 1), (256, 2048)])
def test_the_matrix_is_torchs_resize(old: int, new: int, align_corners: bool) -> None:
    line = torch.randn(old, generator=torch.Generator().manual_seed(old))
    expected = functional.interpolate(line.view(1, 1, 1, old), (1, new), mode="bilinear", align_corners=align_corners)
    found = linear(old, new, align_corners) @ line.numpy()
    np.testing.assert_allclose(found, expected.flatten().numpy(), rtol=1e-5, atol=1e-5)


def test_shares_count_the_tiles_that_cover_a_pixel() -> None:
    found = tiles(Axis(10, 6, (0, 2, 4), 3, 10, True))
    counted = [1, 1, 2, 2, 3, 3, 2, 2, 1, 1]  # tiles of 0..5, 2..7 and 4..9
    expected = np.zeros((3, 10))
    for tile, start in enumerate((0, 2, 4)):
        expected[tile, start : start + 6] = 1 / np.array(counted[start : start + 6])
    np.testing.assert_allclose([share for _, share in found], expected, rtol=1e-12)


@pytest.mark.parametrize("size", [10, 7, 23])
def test_shares_add_up_to_one_at_any_size(size: int) -> None:
    for align_corners in (True, False):
        found = tiles(Axis(10, 4, (0, 3, 6), 2, size, align_corners))
        np.testing.assert_allclose(sum(share for _, share in found), 1, rtol=1e-6)
        for matrix, share in found:
            assert (matrix.toarray() >= 0).all()
            np.testing.assert_allclose(matrix.toarray().sum(1), share, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 8, 100])
def test_bands_are_the_matrix_in_pieces(rows: int) -> None:
    axis = Axis(40, 17, (0, 11, 22, 23), 5, 37, False)
    joint = np.hstack([matrix.toarray() for matrix, _ in tiles(axis)])
    for chunk, firsts in ((None, [0]), (2, [5 * tile + low for tile in range(4) for low in (0, 2, 4)])):
        found, _ = _put_together(joint_bands(axis, rows, CPU, chunk), 37, 20, firsts)
        np.testing.assert_allclose(found, joint, atol=1e-7)
    for tile, (matrix, share) in enumerate(tiles(axis)):
        for chunk, firsts in ((None, [0]), (2, [0] * 3 * tile + [0, 2, 4])):
            found, found_share = _put_together(tile_bands(axis, tile, rows, CPU, chunk), 37, 5, firsts)
            np.testing.assert_allclose(found * share[:, None], matrix.toarray(), atol=1e-7)
            np.testing.assert_allclose(found.sum(1), share > 0, atol=1e-6)
            np.testing.assert_allclose(found_share, share, atol=1e-7)


def _put_together(bands, size: int, features: int, firsts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and shares of bands, of chunks that begin with these features."""
    matrix, share = np.zeros((size, features)), np.zeros(size)
    for band in bands:
        if band is not None:
            given = [firsts[chunk] + low + place for chunk, low, span in band.pieces for place in range(span)]
            used = given if band.used is None else np.array(given)[band.used.numpy()]
            matrix[band.first : band.last, used] = band.weights.numpy()
            share[band.first : band.last] = band.share.numpy()
    return matrix, share


def test_padding_of_a_tile_is_dropped() -> None:
    ((matrix, share),) = tiles(Axis(5, 8, (0,), 8, 5, True))
    np.testing.assert_array_equal(matrix.toarray(), np.eye(5, 8))
    np.testing.assert_array_equal(share, 1)
