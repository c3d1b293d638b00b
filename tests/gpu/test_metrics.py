import numpy as np
import pytest
import torch

from gald.metrics import confusion_matrix, confusion_on_device

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("num_classes", [1, 19, 171, 255])
def test_counts_on_a_gpu_equal_those_on_the_host(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    truth, prediction = rng.integers(0, num_classes, (2, 300, 401)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.2] = 255
    expected = confusion_matrix(truth, prediction, num_classes)
    for kind in (torch.uint8, torch.int64):
        tensors = (torch.from_numpy(one).to("cuda", kind) for one in (truth, prediction))
        found = confusion_on_device(*tensors, num_classes)
        assert found.device.type == "cuda"
        np.testing.assert_array_equal(found.cpu().numpy(), expected)


def test_counting_is_allowed_where_only_deterministic_algorithms_are() -> None:
    zeros = torch.zeros(4, 4, dtype=torch.int64, device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        assert confusion_on_device(zeros, zeros, 2).tolist() == [[16, 0], [0, 0]]
    finally:
        torch.use_deterministic_algorithms(False)


def test_ids_out_of_range_are_refused_before_they_index() -> None:
    zeros = torch.zeros(4, 4, dtype=torch.int64, device="cuda")
    with pytest.raises(ValueError, match="there are only 3 classes"):
        confusion_on_device(zeros, zeros + 3, 3)
