from pathlib import Path

import pytest
import torch
from torch import nn

from gald.evaluate.cost import cost
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import ModelParams, read_yaml


def model(**changes: object) -> Segmentor:
    content = read_yaml(Path(__file__).parents[3] / "params" / "base.yaml")["model"]
    content |= {"backbone": {"name": "tiny", "width": 16, "stem_width": 8}, "channels": 16} | changes
    return build_segmentor(ModelParams.model_validate(content), 5).eval()


def test_convolutions_by_hand() -> None:
    found = cost(model(), (32, 64))
    half, quarter = 16 * 32, 8 * 16
    stem = half * 9 * 3 * 8 + quarter * 9 * 8 * 16
    blocks = 4 * quarter * 9 * 16 * 16
    neck = quarter * 9 * (16 * 16 * 3 + 32 * 16)  # before, aggregation `none`, after; fuse takes both features
    classifier = quarter * 16 * 5
    assert found.gmacs * 1e9 == pytest.approx(stem + blocks + neck + classifier)
    assert found.size == (32, 64)


def test_parameters_leave_the_auxiliary_head_out() -> None:
    plain = model()
    assert cost(plain, (32, 64)).parameters == sum(value.numel() for value in plain.parameters())
    aux_head = {"channels": 8, "relu": True, "dropout": 0.1}
    assert cost(model(aux_head=aux_head), (32, 64)) == cost(plain, (32, 64))


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2).transpose(1, 2).unsqueeze(1)
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_fused_attention_costs_two_products_of_all_positions() -> None:
    difference = cost(model(aggregation={"name": "non_local"}), (32, 64)).gmacs - cost(model(), (32, 64)).gmacs
    positions, channels = 8 * 16, 16
    convolution = positions * 9 * channels**2  # of aggregation `none`
    projections = 4 * positions * channels * channels // 2
    assert difference * 1e9 == pytest.approx(2 * positions**2 * channels // 2 + projections - convolution)


def test_affinity_counts_its_products_inside_custom_functions() -> None:
    plain = cost(model(aggregation={"name": "psp"}), (32, 64)).gmacs
    affinity = {"name": "affinity", "window": 3, "key_reduction": 4}
    difference = cost(model(aggregation={"name": "psp"}, distribution=affinity), (32, 64)).gmacs - plain
    positions, channels, keys = 8 * 16, 16, 4
    projections = positions * channels * (2 * keys + channels)
    assert difference * 1e9 == pytest.approx(projections + 9 * positions * (keys + channels))
