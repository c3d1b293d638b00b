"""Ours against the released code, number by number: blocks with their gradients, the whole ResNet-50 network."""

import pytest
import torch
from torch import Tensor, nn

from gald.models import released
from gald.models.aggregation import cgnl, dual_gcn
from gald.models.block import GlobalThenLocal
from gald.models.distribution import mask
from gald.models.segmentor import build_segmentor

pytestmark = pytest.mark.filterwarnings("ignore:distribution mask")  # the recorded inputs leave masks of 3x4


def check(module: nn.Module, recorded, prefix: str, renames, scale: float = 1) -> Tensor:
    """Hold output and gradient against the record; returns the gradient's error by its norm."""
    record = recorded(prefix)
    record.fill(module, renames)
    images = (scale * record.input).requires_grad_()
    output = module.eval()(images)
    output.double().square().mean().backward()
    torch.testing.assert_close(output, record.array("blocks.npz", f"{prefix}.output"), atol=1e-4, rtol=0)
    expected = record.array("blocks.npz", f"{prefix}.input_grad")
    torch.testing.assert_close(images.grad, expected, atol=1e-4, rtol=0)
    return (images.grad - expected).norm() / expected.norm()


def test_cgnl(recorded):
    check(cgnl.build(32), recorded, "cgnl", released.CGNL)


def test_graph_over_positions(recorded):
    assert check(dual_gcn.CoordinateGraph(32), recorded, "spatial_gcn", released.COORDINATE_GRAPH) < 1e-4


def test_dual_gcn(recorded):
    assert (
        check(dual_gcn.build(32), recorded, "dual_gcn", released.DUAL_GCN, scale=0.1) < 1e-4
    )  # its input was drawn so small


class _OfOne(nn.Module):
    """The mask distribution as the released module has it: of the aggregated feature alone."""

    def __init__(self):
        super().__init__()
        self.distribution = mask.build(32, residual="none")

    def forward(self, feature):
        return self.distribution(torch.full_like(feature, torch.nan), feature)


def test_mask_distribution(recorded):
    check(_OfOne(), recorded, "local_attention", [*released.GALD_BLOCK, (r"^local_attention\.", "")])


def test_block(recorded):
    block = GlobalThenLocal(32, aggregation="cgnl", distribution="mask", aggregation_stride=2)
    check(block, recorded, "gald_block", released.GALD_BLOCK)


def test_gradients_agree_at_their_own_scale(recorded):
    # they are so small that the tolerance of 1e-4 would pass a gradient of zero
    block = GlobalThenLocal(32, aggregation="cgnl", distribution="mask", aggregation_stride=2).eval()
    record = recorded("gald_block")
    record.fill(block, released.GALD_BLOCK)
    images = record.input.requires_grad_()
    block(images).double().square().mean().backward()
    expected = record.array("blocks.npz", "gald_block.input_grad")
    assert (images.grad - expected).norm() < 1e-4 * expected.norm()


def test_whole_network_of_the_released_code(recorded):
    net = released.NETS["gald_res50"]
    model = build_segmentor(net.model, 19).eval()
    record = recorded("gald_res50")
    del model.mean, model.std  # the recorded network takes images that are normalised already
    record.fill(model, net.renames)
    with torch.no_grad():
        logits = model.head(model.backbone(record.input).main)
    torch.testing.assert_close(logits, record.array("gald_res50.npz", "logits"), atol=1e-4, rtol=0)
