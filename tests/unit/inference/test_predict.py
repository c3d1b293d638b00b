from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional

from gald.inference import _blocks as blocks_module
from gald.inference import _tiles as tiles_module
from gald.inference import _views as views_module
from gald.inference import as_input, for_prediction, predict, predict_on_device
from gald.models.segmentor import Segmentor
from gald.transforms import resize_image
from tests.unit.inference.stubs import Stub, full_logits, picture, protocol, same_but_for_ties, scores_of

LITERATURE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def authors_sliding(model: Stub, image: np.ndarray, window: int, overlap: float = 1 / 3) -> np.ndarray:
    """The authors' scheme, tile by tile: mean scores (H, W, K) in float64."""
    height, width = image.shape[:2]
    step = int(np.ceil(window * (1 - overlap)))
    rows = int(np.ceil(max(height - window, 0) / step)) + 1
    columns = int(np.ceil(max(width - window, 0) / step)) + 1
    total, count = np.zeros((height, width, model.num_classes)), np.zeros((height, width, 1))
    for row, column in product(range(rows), range(columns)):
        bottom, right = min(row * step + window, height), min(column * step + window, width)
        top, left = max(bottom - window, 0), max(right - window, 0)
        tile = model.mean.numpy().repeat(window, axis=2).repeat(window, axis=3)  # normalised, this is 0
        tile[0, :, : bottom - top, : right - left] = image[top:bottom, left:right].transpose(2, 0, 1) / np.float32(255)
        scores = model(torch.from_numpy(tile), full_size=False).logits
        scores = functional.interpolate(scores, (window, window), mode="bilinear", align_corners=model.align_corners)
        scores = scores[0].numpy().transpose(1, 2, 0)[: bottom - top, : right - left]
        total[top:bottom, left:right] += scores
        count[top:bottom, left:right] += 1
    return total / count


def test_logits_are_resized_to_the_masks_size_before_the_class_is_chosen(model: Segmentor) -> None:
    image = picture(32, 48)
    found = predict(model, image, (61, 95))
    with torch.no_grad():
        logits = model(torch.from_numpy(image).permute(2, 0, 1)[None].contiguous() / 255).logits
        resized = torch.nn.functional.interpolate(logits, (61, 95), mode="bilinear", align_corners=True)
    assert found.dtype == np.uint8
    assert found.shape == (61, 95)
    assert (found == resized[0].argmax(0).numpy()).mean() > 0.999  # another memory layout, so other last bits
    assert predict(model, image[:, ::-1], (32, 48)).shape == (32, 48)  # views are fine


def test_a_real_network_predicts_what_resizing_all_scores_gives(model: Segmentor) -> None:
    image = picture(96, 130)
    with torch.inference_mode():
        logits = model(as_input(torch.from_numpy(image)[None])).logits[0]
    assert same_but_for_ties(predict(model, image, (96, 130)), logits, within=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [
        ((64, 220), (64, 220), 8),
        ((61, 75), (61, 75), 32),
        ((33, 47), (100, 130), 1),
        ((33, 47), (100, 130), 8),
        ((120, 90), (31, 27), 8),
        ((1, 1), (1, 1), 8),
    ],
)
def test_scores_are_those_of_two_resizes(shape, size, stride: int, align_corners: bool) -> None:
    model, image = Stub(7, align_corners=align_corners, stride=stride), picture(*shape)
    expected = model.resized(full_logits(model, image), size)[0]
    found = scores_of(model, image, size, protocol())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert same_but_for_ties(predict(model, image, size), expected)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("shape", "window"),
    [((60, 90), 33), ((90, 60), 33), ((33, 33), 33), ((34, 32), 33), ((20, 60), 33), ((9, 9), 33), ((40, 40), 17)],
)
def test_sliding_is_the_authors_scheme(shape: tuple[int, int], window: int, align_corners: bool) -> None:
    model, image = Stub(5, align_corners=align_corners), picture(*shape)
    by = protocol(window=(window, window), overlap=1 / 3)
    expected = authors_sliding(model, image, window)
    found = scores_of(model, image, shape, by)
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, rtol=1e-5, atol=1e-5)
    classes = predict(model, image, shape, by)
    best = np.sort(expected, axis=2)
    clear = best[..., -1] - best[..., -2] > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(classes[clear], expected.argmax(2)[clear])


@pytest.mark.parametrize("align_corners", [True, False])
def test_tiles_are_averaged_before_the_resize_to_another_size(align_corners: bool) -> None:
    model, image = Stub(4, align_corners=align_corners), picture(60, 90)
    mean = torch.from_numpy(authors_sliding(model, image, 33)).float().permute(2, 0, 1)[None]
    for size in ((120, 170), (41, 37)):
        found = scores_of(model, image, size, protocol(window=(33, 33), overlap=1 / 3))
        torch.testing.assert_close(found, model.resized(mean, size)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(48, 64), (40, 90)])
def test_the_literatures_multi_scale_averages_probabilities(size: tuple[int, int], align_corners: bool) -> None:
    model, image = Stub(6, align_corners=align_corners), picture(48, 64)
    expected = torch.zeros(6, *size)
    for scale in LITERATURE:
        scaled = resize_image(image, (int(48 * scale + 0.5), int(64 * scale + 0.5)))
        straight = model.resized(full_logits(model, scaled), size)
        mirrored = model.resized(full_logits(model, scaled[:, ::-1]).flip(-1), size)
        expected += straight.softmax(1)[0] + mirrored.softmax(1)[0]
    by = protocol(scales=LITERATURE, flip=True, average="probabilities")
    torch.testing.assert_close(scores_of(model, image, size, by), expected, rtol=1e-5, atol=1e-5)
    assert same_but_for_ties(predict(model, image, size, by), expected)


def test_scales_and_mirror_images_of_logits_are_averaged_too() -> None:
    model, image = Stub(6), picture(64, 96)
    expected = torch.zeros(6, 64, 96)
    for scale in (0.5, 1.0, 2.0):
        scaled = resize_image(image, (int(64 * scale), int(96 * scale)))
        expected += model.resized(full_logits(model, scaled), (64, 96))[0]
        expected += model.resized(full_logits(model, scaled[:, ::-1]).flip(-1), (64, 96))[0]
    by = protocol(scales=(2.0, 0.5, 1.0), flip=True)
    torch.testing.assert_close(scores_of(model, image, (64, 96), by), expected, rtol=1e-5, atol=1e-5)


def test_probabilities_of_tiles_are_averaged_pixel_by_pixel() -> None:
    model, image = Stub(3), picture(40, 60)
    total, count = torch.zeros(3, 40, 60), torch.zeros(40, 60)
    for top, left in product((0, 11, 16), (0, 11, 22, 33, 36)):
        tile = image[top : top + 24, left : left + 24]
        for logits in (full_logits(model, tile), full_logits(model, tile[:, ::-1]).flip(-1)):
            total[:, top : top + 24, left : left + 24] += logits[0].softmax(0)
        count[top : top + 24, left : left + 24] += 1
    by = protocol(window=(24, 24), overlap=0.55, flip=True, average="probabilities")
    assert count.max() > 4
    torch.testing.assert_close(scores_of(model, image, (40, 60), by), total / count, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 60), (37, 80), (3, 2), (90, 20)])
def test_probabilities_add_up_to_the_number_of_views(size: tuple[int, int]) -> None:
    by = protocol(window=(24, 24), overlap=0.4, flip=True, average="probabilities", scales=(0.5, 1.5))
    found = scores_of(Stub(3), picture(40, 60), size, by)
    torch.testing.assert_close(found.sum(0), torch.full(size, 4.0), rtol=1e-5, atol=1e-5)


def test_what_a_tile_lacks_is_the_mean_colour() -> None:
    model, image = Stub(3), picture(10, 20)
    predict(model, image, (10, 20), protocol(window=(16, 32), flip=True))
    straight, mirrored = model.seen
    assert straight.shape == (1, 3, 16, 32)
    assert (straight[:, :, :10, :20] == as_input(torch.from_numpy(image)[None])).all()
    assert (straight - model.mean)[:, :, 10:].abs().max() == 0
    assert (straight - model.mean)[:, :, :, 20:].abs().max() == 0
    assert torch.equal(mirrored, straight.flip(-1))
    assert all(seen.is_contiguous(memory_format=torch.channels_last) for seen in model.seen)


def test_tiles_go_through_the_network_together() -> None:
    model = Stub(3)
    predict(model, picture(100, 300), (100, 300), protocol(window=(100, 100)))
    assert [len(seen) for seen in model.seen] == [3]
    model.seen.clear()
    predict(model, picture(512, 1024), (512, 1024), protocol(window=(256, 256)))
    assert [len(seen) for seen in model.seen] == [4, 4]


def test_tiles_one_by_one_score_the_same(model: Segmentor, monkeypatch: pytest.MonkeyPatch) -> None:
    image, by = picture(70, 100), protocol(window=(48, 48), overlap=1 / 3, flip=True)
    together = scores_of(model, image, (70, 100), by)
    monkeypatch.setattr(tiles_module, "_BATCH_PIXELS", {"cpu": 1})
    alone = scores_of(model, image, (70, 100), by)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_neither_blocks_nor_threads_nor_repetition_change_a_class(
    average: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image = Stub(9), picture(70, 100)
    by = protocol(window=(48, 48), overlap=1 / 3, flip=True, average=average, scales=(0.5, 1.0))
    first = predict(model, image, (70, 100), by)
    np.testing.assert_array_equal(predict(model, image, (70, 100), by), first)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        np.testing.assert_array_equal(predict(model, image, (70, 100), by), first)
    finally:
        torch.set_num_threads(threads)
    shape = blocks_module.Shape(7, 13)
    monkeypatch.setattr(blocks_module, "block_shape", lambda *_: shape)
    expected = scores_of(model, image, (70, 100), by)
    assert same_but_for_ties(first, expected, within=1e-5)


def test_the_first_of_equal_classes_is_chosen_and_a_class_even_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = Stub(255), picture(16, 16)
    for kept, value, expected in (([3, 200, 254], 5.0, 3), ([254], 5.0, 254), ([], 5.0, 0), ([1], torch.nan, 254)):
        scores = torch.zeros(1, 255, 2, 2)
        scores[:, kept] = value
        monkeypatch.setattr(model, "forward", lambda _, *, full_size, s=scores: type("Out", (), {"logits": s}))
        assert (predict(model, image, (16, 16)) == expected).all()


def test_autocast_around_a_prediction_does_not_round_scores(model: Segmentor) -> None:
    stub, image = Stub(4), picture(40, 64)
    expected = full_logits(stub, image)[0]
    found = views_module.views(stub, image, (40, 64), protocol())
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        classes = blocks_module.classes(found, (40, 64), probabilities=False)
    assert same_but_for_ties(classes.numpy(), expected, within=1e-5)


def test_the_classes_stay_on_the_device_where_asked_for(model: Segmentor) -> None:
    image = picture(40, 64)
    found = predict_on_device(model, image, (40, 64))
    assert found.dtype == torch.uint8
    assert found.device == model.mean.device
    np.testing.assert_array_equal(found.numpy(), predict(model, image, (40, 64)))


def test_the_auxiliary_head_and_training_mode_are_no_matter(model: Segmentor) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    first = predict(model, image, (32, 32))
    np.testing.assert_array_equal(predict(model, image, (32, 32)), first)
    assert not torch.is_inference_mode_enabled()


def test_the_copy_for_prediction_predicts_the_same(model: Segmentor) -> None:
    image = picture(48, 64, seed=1)
    fast = for_prediction(model)
    found = predict(fast, image, (48, 64))
    assert (found == predict(model, image, (48, 64))).mean() > 0.999  # a tie may fall to the other class
    np.testing.assert_array_equal(predict(for_prediction(model), image, (48, 64)), found)
