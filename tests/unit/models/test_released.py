"""The released networks: every tensor's name and shape, spelt out from the recorded ones, and what sets them apart."""

import re

import pytest
import torch
from torch import nn

from gald.errors import ModelError
from gald.models.released import NETS, find, released_names
from gald.models.segmentor import build_segmentor

CLASSES = 19
Shapes = dict[str, list[int]]


def deeper(shapes: Shapes) -> Shapes:
    """R-101: the third stage has 23 blocks for 6, the further ones as the last."""
    last = {name: shape for name, shape in shapes.items() if name.startswith("layer3.5.")}
    further = {name.replace("layer3.5.", f"layer3.{i}."): shape for i in range(6, 23) for name, shape in last.items()}
    return shapes | further


def dual(shapes: Shapes, block: Shapes) -> Shapes:
    """DualGCN: another block, recorded at 32 channels for 512; no ReLU before the dropout of the auxiliary head."""
    kept = {name.replace("dsn.4.", "dsn.3."): shape for name, shape in shapes.items() if "a2block" not in name}
    wide = {name: [size * 16 if size > 3 else size for size in shape] for name, shape in block.items()}
    return kept | {f"head.dualgcn.{name}": shape for name, shape in wide.items()}


def expected(recorded, net: str) -> Shapes:
    shapes = recorded("gald_res50").shapes
    if net.startswith("dual"):
        shapes = dual(shapes, recorded("dual_gcn").shapes)
    if net.endswith("101"):
        shapes = deeper(shapes)
    return {name: shape for name, shape in shapes.items() if not name.endswith("__input__")}


def unfilled(net: str, classes: int = CLASSES) -> nn.Module:
    with torch.device("meta"):
        return build_segmentor(NETS[net].model, classes)


@pytest.mark.parametrize("net", NETS)
def test_each_tensor_has_its_released_name_and_shape(recorded, net):
    own = unfilled(net).state_dict()
    weights = [name for name in own if not re.search("num_batches_tracked$|^mean$|^std$", name)]
    names = released_names(weights, NETS[net].renames)
    assert {name: list(own[ours].shape) for name, ours in names.items()} == expected(recorded, net)
    assert sorted(names.values()) == sorted(weights)


@pytest.mark.parametrize("net", NETS)
def test_what_sets_the_networks_apart(net):
    model, is_dual = unfilled(net), net.startswith("dual")
    assert len(model.backbone.stage3) == (23 if net.endswith("101") else 6)
    assert isinstance(model.head.block.reduce, nn.Identity) == is_dual
    assert [type(layer) for layer in model.aux_head.transform] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU][: 3 - is_dual]
    assert model.aux_head.dropout.p == 0.1
    dilations = [block.residual[1][0].dilation for block in model.backbone.stage4]
    assert dilations == [(4, 4), (8, 8), (16, 16)]
    assert NETS[net].rgb == is_dual


def test_unknown_network_is_named_with_its_neighbours():
    with pytest.raises(ModelError, match=r"'gald_res5'; did you mean 'gald_res50'\? known: dualgcn_res101"):
        find("gald_res5")


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(ModelError, match=r"a\.weight and b\.weight would both be c\.weight"):
        released_names(["a.weight", "b.weight"], [("^[ab]", "c")])
