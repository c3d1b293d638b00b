"""Ours against the released code, number by number: blocks with their gradients, the whole ResNet-50 network."""

import pytest
import torch
from torch import Tensor, nn

from gald.models.aggregation import cgnl, dual_gcn
from gald.models.block import GlobalThenLocal
from gald.models.distribution import mask
from gald.models.segmentor import build_segmentor
from gald.params import AuxHead, Choice, ModelParams

pytestmark = pytest.mark.filterwarnings("ignore:distribution mask")  # the recorded inputs leave masks of 3x4

MASK = [(r"dconv(\d)", lambda match: f"reduce.{int(match[1]) - 1}")]
CGNL = [(r"\bgn\.", "norm.")]
BLOCK = [(r"\bdown\.", "reduce."), ("long_relation", "aggregation"), ("local_attention", "distribution"), *MASK, *CGNL]
GRAPH = [("node_k", "key"), ("node_q", "query"), ("node_v", "value"), ("conv_wg", "update.0"), ("bn_wg", "update.1")]
DUAL = [
    (r"^gcn_local_attention", "coordinate"), (r"^final", "fuse"),
    (r"^local\.(\d)", lambda match: f"down.{int(match[1]) // 2}.{int(match[1]) % 2}"),
    (r"^phi", "feature.reduce.0"), (r"^bn_phi", "feature.reduce.1"),
    (r"^theta", "feature.assign.0"), (r"^bn_theta", "feature.assign.1"),
    (r"^conv_adj", "feature.adjacency.0"), (r"^bn_adj", "feature.adjacency.1"),
    (r"^conv_wg", "feature.update.0"), (r"^bn_wg", "feature.update.1"),
    (r"^conv3", "feature.out.0"), (r"^bn3", "feature.out.1"), *GRAPH,
]  # fmt: skip
NET = [
    (r"^conv1\.0", "backbone.stem.0.0"), (r"^conv1\.1", "backbone.stem.0.1"),
    (r"^conv1\.3", "backbone.stem.1.0"), (r"^conv1\.4", "backbone.stem.1.1"),
    (r"^conv1\.6", "backbone.stem.2.0"), (r"^bn1", "backbone.stem.2.1"),
    (r"^layer", "backbone.stage"), (r"\.downsample\.", ".shortcut."),
    (r"(stage.*)\.conv(\d)", lambda match: f"{match[1]}.residual.{int(match[2]) - 1}.0"),
    (r"(stage.*)\.bn(\d)", lambda match: f"{match[1]}.residual.{int(match[2]) - 1}.1"),
    (r"\.conva\.", ".before."), (r"\.a2block\.", ".block."), (r"\.convb\.", ".after."),
    (r"\.bottleneck\.3\.", ".classifier."), (r"\.bottleneck\.", ".fuse."),
    (r"^dsn\.4", "aux_head.classifier"), (r"^dsn", "aux_head.transform"), *BLOCK,
]  # fmt: skip


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
    check(cgnl.build(32), recorded, "cgnl", CGNL)


def test_graph_over_positions(recorded):
    assert check(dual_gcn.CoordinateGraph(32), recorded, "spatial_gcn", GRAPH) < 1e-4


def test_dual_gcn(recorded):
    assert check(dual_gcn.build(32), recorded, "dual_gcn", DUAL, scale=0.1) < 1e-4  # its input was drawn so small


class _OfOne(nn.Module):
    """The mask distribution as the released module has it: of the aggregated feature alone."""

    def __init__(self):
        super().__init__()
        self.distribution = mask.build(32, residual="none")

    def forward(self, feature):
        return self.distribution(torch.full_like(feature, torch.nan), feature)


def test_mask_distribution(recorded):
    check(_OfOne(), recorded, "local_attention", [("^dconv", "distribution.dconv"), *MASK])


def test_block(recorded):
    block = GlobalThenLocal(32, aggregation="cgnl", distribution="mask", aggregation_stride=2)
    check(block, recorded, "gald_block", BLOCK)


def test_gradients_agree_at_their_own_scale(recorded):
    # they are so small that the tolerance of 1e-4 would pass a gradient of zero
    block = GlobalThenLocal(32, aggregation="cgnl", distribution="mask", aggregation_stride=2).eval()
    record = recorded("gald_block")
    record.fill(block, BLOCK)
    images = record.input.requires_grad_()
    block(images).double().square().mean().backward()
    expected = record.array("blocks.npz", "gald_block.input_grad")
    assert (images.grad - expected).norm() < 1e-4 * expected.norm()


def test_whole_network_of_the_released_code(recorded):
    params = ModelParams(
        backbone=Choice(name="resnet", depth=50, output_stride=8, multi_grid=(1, 2, 4)),
        channels=512,
        aggregation=Choice(name="cgnl"),
        aggregation_stride=2,
        distribution=Choice(name="mask", reductions=3, residual="g"),
        aux_head=AuxHead(channels=512, relu=True, dropout=0.1),
        align_corners=True,
    )
    model = build_segmentor(params, 19).eval()
    record = recorded("gald_res50")
    del model.mean, model.std  # the recorded network takes images that are normalised already
    record.fill(model, NET)
    with torch.no_grad():
        logits = model.head(model.backbone(record.input).main)
    torch.testing.assert_close(logits, record.array("gald_res50.npz", "logits"), atol=1e-4, rtol=0)
