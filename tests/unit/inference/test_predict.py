from pathlib import Path

import numpy as np
import pytest
import torch

from gald.inference import as_input, channels_last, for_prediction, predict
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import ModelParams, read_yaml


@pytest.fixture(scope="module")
def model() -> Segmentor:
    content = read_yaml(Path(__file__).parents[3] / "params" / "base.yaml")["model"]
    content |= {"backbone": {"name": "tiny", "width": 16, "stem_width": 8}, "channels": 16}
    torch.manual_seed(0)
    return channels_last(build_segmentor(ModelParams.model_validate(content), 5)).eval()


def test_images_become_fractions_in_the_order_of_networks() -> None:
    images = torch.arange(2 * 3 * 4 * 3, dtype=torch.uint8).view(2, 3, 4, 3)
    inputs = as_input(images)
    assert inputs.shape == (2, 3, 3, 4)
    assert inputs.dtype == torch.float32
    assert inputs[1, 2, 0, 3].item() == pytest.approx(images[1, 0, 3, 2].item() / 255)


def test_inputs_in_memory_used_before_are_the_same_bits() -> None:
    out = torch.full((2, 3, 5, 7), torch.nan).to(memory_format=torch.channels_last)
    for seed in range(2):
        images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        found = as_input(images, out=out)
        assert found is out
        assert torch.equal(found, as_input(images))
        assert as_input(images).is_contiguous(memory_format=torch.channels_last)


def test_logits_are_resized_to_the_masks_size_before_the_class_is_chosen(model: Segmentor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    found = predict(model, image, (61, 95))
    with torch.no_grad():
        logits = model(torch.from_numpy(image).permute(2, 0, 1)[None].contiguous() / 255).logits
        resized = torch.nn.functional.interpolate(logits, (61, 95), mode="bilinear", align_corners=True)
    assert found.dtype == np.uint8
    assert found.shape == (61, 95)
    assert (found == resized[0].argmax(0).numpy()).mean() > 0.999  # another memory layout, so other last bits
    assert predict(model, image[:, ::-1], (32, 48)).shape == (32, 48)  # views are fine


def test_the_auxiliary_head_and_training_mode_are_no_matter(model: Segmentor) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    first = predict(model, image, (32, 32))
    np.testing.assert_array_equal(predict(model, image, (32, 32)), first)
    assert not torch.is_inference_mode_enabled()


def test_the_copy_for_prediction_predicts_the_same(model: Segmentor) -> None:
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    fast = for_prediction(model)
    found = predict(fast, image, (48, 64))
    assert (found == predict(model, image, (48, 64))).mean() > 0.999  # a tie may fall to the other class
    np.testing.assert_array_equal(predict(for_prediction(model), image, (48, 64)), found)
