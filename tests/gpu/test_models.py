"""The networks on a GPU, against the same on the CPU.

``GALD_TEST_DEVICE=cpu pytest -m gpu tests/gpu`` runs the code of these tests where there is no GPU.
"""

import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gald import plugins
from gald.models.block import GlobalThenLocal
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import AuxHead, Choice, ModelParams

CHANNELS = 32
AGGREGATIONS = plugins.available("models/aggregation")
DISTRIBUTIONS = plugins.available("models/distribution")
# aggregations and distributions whose backward pass torch has in no deterministic form on a GPU, and why
NOT_DETERMINISTIC: dict[str, str] = {}

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:distribution mask")]


@pytest.fixture
def device(monkeypatch) -> Iterator[torch.device]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, deterministic products are refused
    name = os.environ.get("GALD_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    yield torch.device(name)
    torch.use_deterministic_algorithms(False)


def block(aggregation: str, distribution: str) -> nn.Module:
    torch.manual_seed(0)
    return GlobalThenLocal(CHANNELS, aggregation=aggregation, distribution=distribution)


def passed(module: nn.Module, feature: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Output, the gradient of its mean square to the input, and to each parameter, on the CPU."""
    feature = feature.detach().requires_grad_()
    output = module(feature)
    output.float().square().mean().backward()
    gradients = [part.grad for part in module.parameters() if part.grad is not None]
    return output.detach().float().cpu(), feature.grad.cpu(), [gradient.cpu() for gradient in gradients]


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((found - expected).norm() <= tolerance * expected.norm() + 1e-7)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_every_block_is_deterministic_and_as_on_the_cpu(device, aggregation, distribution):
    feature = torch.randn(2, CHANNELS, 33, 41)
    expected = passed(block(aggregation, distribution), feature)
    listed = {aggregation, distribution} & NOT_DETERMINISTIC.keys()
    torch.use_deterministic_algorithms(not listed)
    first, second = (passed(block(aggregation, distribution).to(device), feature.to(device)) for _ in range(2))
    assert close(first[0], expected[0], 1e-4)
    assert close(first[1], expected[1], 1e-3)
    if not listed:
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
        assert all(map(torch.equal, first[2], second[2]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_mixed_precision_agrees_with_float32(device, aggregation, distribution, dtype):
    module = block(aggregation, distribution).to(device).eval()
    feature = torch.randn(2, CHANNELS, 33, 41, device=device)
    expected, _, _ = passed(module, feature)
    module.zero_grad()
    with torch.autocast(device.type, dtype=dtype):
        found, gradient, others = passed(module, feature)
    assert close(found, expected, 0.05 if dtype == torch.bfloat16 else 0.02)
    assert gradient.isfinite().all()
    assert all(other.isfinite().all() for other in others)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_channels_last_agrees(device, aggregation, distribution):
    module = block(aggregation, distribution).to(device).eval()
    feature = torch.randn(2, CHANNELS, 33, 41, device=device)
    with torch.no_grad():
        expected = module(feature)
        found = module.to(memory_format=torch.channels_last)(feature.to(memory_format=torch.channels_last))
    assert close(found, expected, 1e-4)


def network() -> Segmentor:
    torch.manual_seed(0)
    params = ModelParams(
        backbone=Choice(name="tiny"),
        channels=CHANNELS,
        aggregation=Choice(name="psp"),
        aggregation_stride=1,
        distribution=Choice(name="affinity"),
        aux_head=AuxHead(channels=8, relu=True, dropout=0.1),
        align_corners=True,
    )
    return build_segmentor(params, 5)


def test_two_trainings_give_the_same_bits(device):
    torch.use_deterministic_algorithms(True)
    states = []
    for _ in range(2):
        model = network().to(device)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            images = torch.rand(2, 3, 96, 128, generator=generator).to(device)
            output = model(images, with_aux=True)
            loss = output.logits.square().mean() + output.aux_logits.square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        states.append([tensor.cpu() for tensor in model.state_dict().values()])
    assert all(map(torch.equal, *states))
