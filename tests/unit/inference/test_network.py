import pytest
import torch

from gald.inference import as_input


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
