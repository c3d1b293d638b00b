"""Ours against the released code, number by number: blocks with their gradients, the whole ResNet-50 network."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gald.models import released
from gald.models.aggregation import cgnl, dual_gcn
from gald.models.block import GlobalThenLocal
from gald.models.distribution import mask
from gald.models.heads import AuxHead
from gald.models.segmentor import build_segmentor

GOLDEN = Path(__file__).parents[2] / "golden"

pytestmark = pytest.mark.filterwarnings("ignore:distribution mask")  # the recorded inputs leave masks of 3x4


class _OfOne(nn.Module):
    """The mask distribution as the released module has it: of the aggregated feature alone."""

    def __init__(self):
        super().__init__()
        self.distribution = mask.build(32, residual="none")

    def forward(self, feature):
        return self.distribution(torch.full_like(feature, torch.nan), feature)


def block() -> nn.Module:
    return GlobalThenLocal(32, aggregation="cgnl", distribution="mask", aggregation_stride=2)


# what stands here for each recorded block, the renames, and the factor of its input, drawn small for one
BLOCKS = {
    "cgnl": (lambda: cgnl.build(32), released.CGNL, 1),
    "spatial_gcn": (lambda: dual_gcn.CoordinateGraph(32), released.COORDINATE_GRAPH, 1),
    "dual_gcn": (lambda: dual_gcn.build(32), released.DUAL_GCN, 0.1),
    "local_attention": (_OfOne, [*released.GALD_BLOCK, (r"^local_attention\.", "")], 1),
    "gald_block": (block, released.GALD_BLOCK, 1),
}


def test_every_recorded_array_is_held():
    held = {f"{name}.{what}" for name in BLOCKS for what in ("output", "input_grad")}
    files = {"blocks.npz": held, "gald_res50.npz": {"logits"}, "ohem.npz": {"logits", "target"}}
    assert {path.name for path in GOLDEN.glob("*.npz")} == files.keys()
    for file, names in files.items():
        with np.load(GOLDEN / file) as arrays:
            assert set(arrays) == names
    recorded = json.loads((GOLDEN / "names.json").read_text())
    assert recorded.keys() == {"blocks", "gald_res50", "ohem"}
    assert recorded["blocks"].keys() == BLOCKS.keys()
    for case, value in recorded["ohem"].items():  # each is a test of its own in tests/unit/losses
        assert re.fullmatch(r"thresh=[\d.]+,min_kept=\d+", case)
        assert value > 0


@pytest.mark.parametrize("name", BLOCKS)
def test_block_with_its_gradient(recorded, name):
    build, renames, scale = BLOCKS[name]
    record, module = recorded(name), build()
    record.fill(module, renames)
    images = (scale * record.input).requires_grad_()
    output = module.eval()(images)
    output.double().square().mean().backward()
    torch.testing.assert_close(output, record.array("blocks.npz", f"{name}.output"), atol=1e-4, rtol=0)
    expected = record.array("blocks.npz", f"{name}.input_grad")
    torch.testing.assert_close(images.grad, expected, atol=1e-4, rtol=0)
    # gradients are so small that the tolerance alone would pass a gradient of zero
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


@pytest.mark.parametrize("net", released.NETS)
def test_auxiliary_head_is_the_released_one(recorded, net):
    head = AuxHead(1024, 512, 19, relu=released.NETS[net].model.aux_head.relu, dropout=0.1).eval()
    drawn = recorded("gald_res50").state()
    weights = {name.removeprefix("dsn."): tensor for name, tensor in drawn.items() if name.startswith("dsn.")}
    if net.startswith("dual"):  # without the ReLU, the classifier comes one place earlier
        weights = {name.replace("4.", "3.", 1) if name[0] == "4" else name: part for name, part in weights.items()}
    renames = released.NETS[net].renames
    names = released.released_names((f"aux_head.{n}" for n in head.state_dict() if "num_batches" not in n), renames)
    head.load_state_dict(
        {ours.removeprefix("aux_head."): weights[theirs.removeprefix("dsn.")] for theirs, ours in names.items()},
        strict=False,  # the counters of batch norm
    )
    feature = torch.randn(2, 1024, 5, 7)
    with torch.no_grad():
        expected = functional.conv2d(feature, weights["0.weight"], weights["0.bias"], padding=1)
        norm = [weights[f"1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        expected = functional.batch_norm(expected, *norm)
        if net.startswith("gald"):
            expected = expected.clamp(min=0)
        last = "4" if net.startswith("gald") else "3"
        expected = functional.conv2d(expected, weights[f"{last}.weight"], weights[f"{last}.bias"])
        torch.testing.assert_close(head(feature), expected, atol=1e-4, rtol=0)
