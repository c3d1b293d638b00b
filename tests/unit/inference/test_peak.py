import pytest

from gald.inference import WHOLE, peak_bytes
from gald.inference._blocks import block_shape
from tests.unit.inference.stubs import protocol

SCORES = 4 * 171 * 128 * 256  # of an image of 1024x2048 at an eighth of its size


def stated(**changes: object) -> int:
    return peak_bytes(171, (1024, 2048), (1024, 2048), 8, protocol(**changes))


def test_the_whole_image_takes_the_networks_input_or_its_scores() -> None:
    pixels = 1024 * 2048
    assert peak_bytes(171, (1024, 2048), (1024, 2048), 8, WHOLE) == pixels * (3 + 3 + 12)
    scores = 4 * 171 * 256 * 512  # at a quarter of the image's size
    assert scores + pixels < peak_bytes(171, (1024, 2048), (1024, 2048), 4, WHOLE) < scores + pixels + 4e6


def test_scores_of_tiles_scales_and_mirror_images_add_up() -> None:
    of_tile, of_input = 4 * 171 * 97 * 97, 1024 * 2048 * (3 + 3 + 12)
    of_tiles = 3 * (1024 * 2048 + 5 * 769 * 769)  # the image, and a tile as bytes and floats
    assert stated(window=(769, 769), overlap=1 / 3) == 8 * of_tile + of_tiles
    several = {"scales": (0.5, 1.0, 1.25)}
    assert stated(**several) == 1.5625 * SCORES + of_input  # while it runs at scale 1
    assert stated(**several, flip=True) == 2.5625 * SCORES + of_input  # logits are added up
    assert stated(**several, flip=True, average="probabilities") == 2 * 2.5625 * SCORES + of_input


def test_the_largest_scale_may_take_the_most_while_it_runs() -> None:
    assert stated(scales=(1.0, 2.0)) == 4 * 1024 * 2048 * (3 + 3 + 12)


def test_no_protocol_takes_all_scores_at_the_images_size() -> None:
    literature = {"scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), "flip": True, "average": "probabilities"}
    everything = 4 * 171 * 1024 * 2048
    assert stated() < 0.05 * everything
    assert stated(**literature) < 400e6 < 0.3 * everything


@pytest.mark.parametrize("num_classes", [1, 2, 19, 171, 255])
def test_blocks_stay_in_the_processors_cache(num_classes: int) -> None:
    rows, columns = block_shape(num_classes, "cpu")
    assert 4 * num_classes * rows * columns <= 2.0 * 2**20
    assert columns % 64 == 0 < columns
