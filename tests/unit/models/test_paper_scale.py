"""The paper's scale trains the network that METHOD.md describes, and every aggregation at it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from gald import plugins
from gald.models.released import NETS
from gald.models.segmentor import build_segmentor
from gald.models.weights import unpretrained
from gald.params import load_suite
from gald.params._paper import paper_params

PARAMS = Path(__file__).parents[3] / "params"


def test_the_row_of_the_authors_is_their_network_but_for_its_pretrained_weights():
    model = load_suite("paper", PARAMS).run("paper/cityscapes/authors-seed0").params.model
    assert model.backbone.options["pretrained"] == "hub"
    assert unpretrained(model.model_dump(mode="json")) == NETS["gald_res50"].model


@pytest.mark.parametrize("suite", ["paper", "camvid"])
def test_the_backbone_has_the_stem_the_dilations_and_the_multi_grid_of_the_method(suite):
    params = {run.params.model.backbone for run in load_suite(suite, PARAMS).runs}
    assert len(params) == 1
    run = load_suite(suite, PARAMS).runs[0]
    with torch.device("meta"):
        backbone = build_segmentor(unpretrained(run.params.model.model_dump(mode="json")), 19).backbone
    stem = [part for part in backbone.stem.modules() if isinstance(part, nn.Conv2d | nn.MaxPool2d)]
    assert [part.out_channels for part in stem[:-1]] == [64, 64, 128]
    assert (stem[-1].kernel_size, stem[-1].stride, stem[-1].ceil_mode) == (3, 2, True)
    for stage, dilations in ((backbone.stage3, [2] * 6), (backbone.stage4, [4, 8, 16])):
        wide = [block.residual[1][0] for block in stage]
        assert [conv.dilation[0] for conv in wide] == dilations
        assert {conv.stride for conv in wide} == {(1, 1)}


def test_every_aggregation_is_a_row_with_and_without_affinity_at_the_papers_scale_alone():
    names = set(plugins.available("models/aggregation"))
    table = load_suite("paper", PARAMS).table("aggregations")
    assert {name for name in table.rows if "-" not in name and name != "authors"} == names
    assert {name.removesuffix("-affinity") for name in table.rows if "-" in name} == names
    small = {cell.row for cell in load_suite("mini_full", PARAMS).cells["aggregations"]}
    assert small == {one + more for one in ("psp", "non_local", "cgnl") for more in ("", "-affinity")}


def test_what_trainings_are_compared_with_is_that_network_too():
    assert paper_params("cityscapes").model.backbone.name == "resnet"
