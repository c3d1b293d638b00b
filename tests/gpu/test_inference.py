"""Predictions on a GPU, against the same on the CPU."""

import os

import numpy as np
import pytest
import torch

from gald.inference import peak_bytes, predict, predict_on_device
from gald.metrics import confusion_matrix, confusion_on_device
from gald.params import ProtocolParams
from tests.unit.inference.stubs import Stub, picture, protocol, same_but_for_ties, scores_of

pytestmark = pytest.mark.gpu

PROTOCOLS = {
    "whole": protocol(),
    "sliding": protocol(window=(65, 65), overlap=1 / 3),
    "multi-scale": protocol(scales=(0.5, 1.0, 1.5), flip=True, average="probabilities"),
    "sliding multi-scale": protocol(
        window=(65, 65), overlap=1 / 3, scales=(0.5, 1.0, 1.5), flip=True, average="probabilities"
    ),
    "sliding logits with flip": protocol(window=(65, 65), overlap=1 / 3, scales=(0.5, 1.0), flip=True),
}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    name = os.environ.get("GALD_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return torch.device(name)


@pytest.mark.parametrize("size", [(96, 160), (131, 77)])
@pytest.mark.parametrize("by", PROTOCOLS.values(), ids=PROTOCOLS)
def test_scores_and_classes_are_the_cpus(device: torch.device, by: ProtocolParams, size: tuple[int, int]) -> None:
    image, expected = picture(96, 160), scores_of(Stub(19), picture(96, 160), size, by)
    model = Stub(19).to(device)
    found = scores_of(model, image, size, by)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert same_but_for_ties(predict(model, image, size, by), expected, within=1e-3)


@pytest.mark.parametrize("by", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_prediction_repeats_bit_for_bit(device: torch.device, by: ProtocolParams) -> None:
    model, image = Stub(19).to(device), picture(96, 160)
    first = predict_on_device(model, image, (96, 160), by)
    assert first.device.type == device.type
    assert first.dtype == torch.uint8
    assert torch.equal(predict_on_device(model, image, (96, 160), by), first)


def test_products_are_not_rounded_to_tf32_where_a_user_allows_it(device: torch.device) -> None:
    model, image = Stub(19).to(device), picture(96, 160)
    expected = scores_of(model, image, (96, 160), protocol())
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32"
    try:
        assert torch.equal(scores_of(model, image, (96, 160), protocol()), expected)
        assert products.fp32_precision == "tf32"
    finally:
        products.fp32_precision = before


def test_classes_can_be_counted_where_they_are(device: torch.device) -> None:
    model, image = Stub(19).to(device), picture(96, 160)
    truth = np.random.default_rng(0).integers(0, 19, (96, 160)).astype(np.uint8)
    truth[:5] = 255
    found = confusion_on_device(torch.from_numpy(truth).to(device), predict_on_device(model, image, (96, 160)), 19)
    expected = confusion_matrix(truth, predict(model, image, (96, 160)), 19)
    np.testing.assert_array_equal(found.cpu().numpy(), expected)


def test_memory_of_the_device_stays_below_all_scores_at_the_images_size(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("only CUDA tells what tensors take")
    model, image = Stub(171).to(device), picture(1024, 2048)
    predict(model, image, (1024, 2048))
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    predict(model, image, (1024, 2048))
    taken = torch.cuda.max_memory_allocated() - held
    blocks = 2 * 2**26  # of 64 MiB there, where a CPU has 2
    stated = peak_bytes(171, (1024, 2048), (1024, 2048), 8, protocol())
    assert taken < 2 * stated + blocks < 4 * 171 * 1024 * 2048 / 4
