"""Half and double precision against float32: whole networks, forward and backward."""

import pytest
import torch
from torch import Tensor

from gald.models.block import build_part
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import AuxHead, Choice, ModelParams

# largest difference of the logits, in units of their largest value, and of the gradient, in units of its norm
TOLERANCES = {torch.bfloat16: (0.05, 0.2), torch.float16: (0.01, 0.06)}
# whose gradient is held finite only: a group's similarity, summed over all positions, may nearly cancel, and the norm
# after it divides by it; the features' own rounding then decides, were the block computed in float32 throughout
ILL_CONDITIONED = {"cgnl"}
SCALE = 2.0**12  # of the loss, as a gradient scaler has it: small gradients would vanish in float16
BACKBONES = {
    "tiny": {"name": "tiny", "width": 16},
    "timm": {"name": "timm", "model": "test_resnet", "fuse": "add", "fuse_channels": 16},
}
REDUCTIONS = {"mask": {"reductions": 2}}  # the feature has 9x12 positions
BLOCKS = [("cgnl", "mask"), ("psp", "affinity"), ("non_local", "none"), ("ema", "affinity")]

pytestmark = pytest.mark.filterwarnings("ignore:distribution mask")


def network(backbone: str, aggregation: str, distribution: str) -> Segmentor:
    torch.manual_seed(0)
    params = ModelParams(
        backbone=Choice.model_validate(BACKBONES[backbone]),
        channels=16,
        aggregation=Choice(name=aggregation),
        aggregation_stride=1,
        distribution=Choice.model_validate({"name": distribution, **REDUCTIONS.get(distribution, {})}),
        aux_head=AuxHead(channels=8, relu=True, dropout=0.0),
        align_corners=True,
    )
    return build_segmentor(params, 5)


def images() -> Tensor:
    return torch.rand(2, 3, 72, 96, generator=torch.Generator().manual_seed(1))


def step(model: Segmentor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Logits of both heads after one forward pass in training mode, and the gradient of their mean square."""
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        output = model(images(), with_aux=True)
    assert output.logits.dtype == output.aux_logits.dtype == torch.float32
    logits = torch.cat([output.logits, output.aux_logits])
    model.zero_grad()
    (SCALE * logits.square().mean()).backward()
    gradients = [part.grad.flatten() / SCALE for part in model.parameters() if part.grad is not None]
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)
    return logits.detach(), torch.cat(gradients)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("aggregation", "distribution"), BLOCKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_autocast_agrees_with_float32(backbone, aggregation, distribution, dtype):
    model = network(backbone, aggregation, distribution)
    if aggregation == "ema":
        model.eval()  # its moving average changes with every pass in training
    logits, gradient = step(model, None)
    found, found_gradient = step(model, dtype)
    of_logits, of_gradient = TOLERANCES[dtype]
    assert (found - logits).abs().max() < of_logits * logits.abs().max()
    if aggregation not in ILL_CONDITIONED:
        assert (found_gradient - gradient).norm() < of_gradient * gradient.norm()
    assert not torch.equal(found, logits)  # otherwise nothing ran in half precision


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", ["autocast", "half"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)], ids=str)
def test_similarities_beyond_what_half_precision_holds(dtype, tolerance, kind, scaled):
    """With p = g a similarity is a sum of squares, here beyond 65 504, which float16 cannot tell from infinity."""
    torch.manual_seed(0)
    block = build_part("aggregation", {"name": "cgnl", "scaled": scaled}, 16, align_corners=True)
    block.g.weight.data.mul_(20)
    block.p.load_state_dict(block.g.state_dict())
    feature, ahead = torch.rand(2, 16, 40, 60), torch.randn(2, 16, 40, 60)
    assert block.g(feature).square().sum((2, 3)).max() > 65504
    results = []
    for half in (False, True):
        block = block.to(dtype if half and kind == "half" else torch.float32)
        given = feature.to(dtype if half else torch.float32).requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=half and kind == "autocast"):
            found = block(given)
        assert found.dtype == given.dtype
        (gradient,) = torch.autograd.grad(found, given, ahead.to(found.dtype))
        results.append((found.detach().float() - feature, gradient.float() - ahead))
    (expected, expected_gradient), (found, gradient) = results
    assert (found - expected).norm() < tolerance * expected.norm()
    assert (gradient - expected_gradient).norm() < tolerance * expected_gradient.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("aggregation", "distribution"), BLOCKS)
def test_whole_model_in_one_precision(aggregation, distribution, dtype):
    model = network("tiny", aggregation, distribution).eval()
    with torch.no_grad():
        expected = model(images()).logits
        found = model.to(dtype)(images().to(dtype)).logits
    assert found.isfinite().all()
    tolerance = 1e-5 if dtype == torch.float64 else 2 * TOLERANCES[dtype][0]
    assert (found.double() - expected).abs().max() < tolerance * expected.abs().max()
