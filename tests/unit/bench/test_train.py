"""The benchmark of the training loop: both ways train the same network, and the report says what was met."""

import pytest
import torch

from gald.bench import train
from gald.params import Run, RunParams
from tests.unit.conftest import run_params

SIZE = (128, 128)


@pytest.fixture
def params() -> RunParams:
    """Three iterations of a small recipe, with dropout, an auxiliary head and two learning rates."""
    changed = {"train": {"learning_rate": 0.01, "warmup_iters": 0}}
    run = Run("mini/camvid/none-seed0", "mini", "camvid", "none", 0, RunParams.model_validate(run_params(**changed)))
    return train.comparable(run, 3)


def test_both_ways_learn_the_same(params: RunParams) -> None:
    samples = train._drawn(params, SIZE)
    ours, plain = train.Ours(params, samples), train.Plain(params, samples)
    before = ours.model.head.classifier.weight.detach().clone()
    ours.round()
    plain.round()
    expected = dict(plain.model.named_parameters())
    for name, value in ours.model.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    assert not torch.equal(ours.model.head.classifier.weight, before)


def test_what_is_measured_adds_up(params: RunParams) -> None:
    threads = torch.get_num_threads()
    found = train.measure(params, SIZE, 2)
    assert torch.get_num_threads() == threads
    assert len(found.ours) == len(found.plain) == 2
    assert all(speed > 0 for speed in found.ours + found.plain)
    for waited, overhead in zip(found.waited, found.overhead, strict=True):
        assert 0 < waited < 1
        assert 0 < overhead < 1 - waited


def test_a_recipe_is_cut_to_a_round_and_draws_its_weights() -> None:
    backbone = {"name": "timm", "model": "resnet18", "pretrained": "hub"}
    changed = {"model": {"backbone": backbone}, "train": {"micro_batches": 2}}
    run = Run("mini/camvid/none-seed0", "mini", "camvid", "none", 0, RunParams.model_validate(run_params(**changed)))
    params = train.comparable(run, 7)
    assert params.model.backbone.options["pretrained"] == "none"
    assert (params.train.max_iters, params.train.log_every, params.train.micro_batches) == (7, 7, 1)


def test_the_report_says_what_is_met() -> None:
    good = train.Figures(ours=[11.0, 12.0], plain=[10.0, 10.0], waited=[0.1, 0.1], overhead=[0.02, 0.02])
    bad = train.Figures(ours=[9.0], plain=[10.0], waited=[0.3], overhead=[0.031])
    assert [row.split("|")[-2].strip() for row in train._rows("mini", good)] == ["yes", "yes", "yes"]
    rows = train._rows("mini", bad)
    assert [row.split("|")[-2].strip() for row in rows] == ["NO", "NO", "NO"]
    assert "| 9.0 | 10.0 | 0.90 | at least 1 |" in rows[0]
    assert "| 30.0 % |" in rows[1]
    assert "| 3.1 % |" in rows[2]
