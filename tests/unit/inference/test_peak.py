from pathlib import Path

import pytest

from gald.inference import WHOLE, peak_bytes
from gald.inference import _tiles as tiles_module
from gald.inference._blocks import block_shape, blocks
from gald.inference._tiles import batch, grid
from gald.inference._views import views
from gald.params import load_protocol, read_yaml
from tests.unit.inference.stubs import Stub, picture, protocol

SCORES = 4 * 171 * 128 * 256  # of an image of 1024x2048 at an eighth of its size


def stated(**changes: object) -> int:
    return peak_bytes(171, (1024, 2048), (1024, 2048), 8, protocol(**changes))


def test_the_whole_image_takes_the_networks_input_or_its_scores() -> None:
    pixels = 1024 * 2048
    assert peak_bytes(171, (1024, 2048), (1024, 2048), 8, WHOLE) == pixels * (3 + 3 + 12)
    scores = 4 * 171 * 256 * 512  # at a quarter of the image's size
    assert scores + pixels < peak_bytes(171, (1024, 2048), (1024, 2048), 4, WHOLE) < scores + pixels + 4e6


def test_scores_of_scales_and_mirror_images_add_up() -> None:
    of_input = 1024 * 2048 * (3 + 3 + 12)
    several = {"scales": (0.5, 1.0, 1.25)}
    assert stated(**several) == 1.5625 * SCORES + of_input  # while it runs at scale 1
    assert stated(**several, flip=True) == 2.5625 * SCORES + of_input  # logits are added up
    assert stated(**several, flip=True, average="probabilities") == 2 * 2.5625 * SCORES + of_input


def test_tiles_add_up_where_the_pass_is() -> None:
    of_tile, of_tiles = 4 * 171 * 97 * 97, 3 * (1024 * 2048 + 5 * 769 * 769)  # the image, and a tile as bytes, floats
    tiles = {"window": (769, 769), "overlap": 1 / 3}
    assert stated(**tiles) < 1024 * 2048 + 5 * of_tile + of_tiles  # of 8: two columns, of the first less and less
    assert stated(**tiles) > 4 * of_tile
    assert peak_bytes(171, (1024, 769), (1024, 769), 8, protocol(**tiles)) < 2 * of_tile + of_tiles  # from the top


def test_the_largest_scale_may_take_the_most_while_it_runs() -> None:
    assert stated(scales=(1.0, 2.0)) == 4 * 1024 * 2048 * (3 + 3 + 12)


@pytest.mark.parametrize("crop", [513, 713, 769, 832, 1024])
def test_every_named_protocol_keeps_to_its_bound(crop: int) -> None:
    root = Path(__file__).parents[3] / "params"
    for name in read_yaml(root / "protocols.yaml"):
        by = load_protocol(name, [crop, crop], root)
        for size in ((1024, 2048), (2048, 1024)):
            assert peak_bytes(171, size, size, 8, by) < 400e6, (name, size)


def test_a_protocol_that_no_machine_can_follow_is_summed_up_at_once() -> None:
    for window in (None, (769, 769)):
        by = protocol(window=window, scales=(1000.0,), average="probabilities")
        assert peak_bytes(171, (1024, 2048), (1024, 2048), 8, by) > 1e12


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("shape", [(64, 640), (640, 64), (200, 230), (40, 700)])
@pytest.mark.parametrize("window", [None, (64, 64), (48, 160)])
@pytest.mark.parametrize("together", [1, 3, 64])
def test_no_more_scores_are_held_than_is_stated(
    shape, window, average: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles_module, "_BATCH_PIXELS", {"cpu": 64 * 64 * together})
    model, scales = Stub(40), (0.5, 1.0, 1.5)
    by = protocol(window=window, overlap=1 / 3 if window else 0, scales=scales, flip=True, average=average)
    found = views(model, picture(*shape), shape, by)
    held = [
        sum(chunk.nbytes for view in found for chunk in view._chunks.values())
        for _ in blocks(found, shape, probabilities=average == "probabilities")
    ]
    assert max(held) < peak_bytes(40, shape, shape, 8, by)
    plans = [grid(shape, scale, by) for scale in scales]
    tiles = [len(plan.rows) * len(plan.columns) for plan in plans]
    batches = [-(-count // batch(plan.tile, "cpu")) for count, plan in zip(tiles, plans, strict=True)]
    assert len(model.seen) == 2 * sum(batches)  # each tile once, and once mirrored
    if max(shape) == 640 and window == (64, 64) and together < 64:  # a column of tiles, or a row, out of ten
        layers = 1 if average == "logits" else 2
        assert max(held) < 0.6 * layers * 4 * 40 * 8 * 8 * sum(tiles)


@pytest.mark.parametrize("num_classes", [1, 2, 19, 171, 255])
def test_blocks_stay_in_the_processors_cache(num_classes: int) -> None:
    rows, columns = block_shape(num_classes, "cpu")
    assert 4 * num_classes * rows * columns <= 2.0 * 2**20
    assert columns % 64 == 0 < columns
