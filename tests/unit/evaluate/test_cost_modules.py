"""Multiply-accumulates of every module against a count by hand, peak memory against sums of tensors, and timing."""

import time

import pytest
import torch
from torch import Tensor, nn

from gald import plugins
from gald.evaluate.cost import Pass, macs, measure, parameters
from gald.models.block import GlobalThenLocal, build_part

C, H, W = 16, 12, 20
L = H * W

BY_HAND = {
    "none": L * 9 * C * C,
    "a2": L * 4 * C * 4 + L * 2 * 4 * 4,  # four projections; gathering and handing out 4 descriptors of 4 channels
    "aspp": L * C * 8 * (1 + 3 * 9) + C * 8 + L * 5 * 8 * C,  # 1x1, three dilated 3x3, one pooled position, fusing
    "cgnl": 3 * L * C * 8 + 2 * L * 8 + L * 8 * C // 8,  # projections, <p, g> and t times it, grouped convolution
    "criss_cross": 2 * (2 * L * C * 2 + L * C * C + L * (H + W) * (2 + C)),  # twice; keys of 2 channels
    "dual_attention": 2 * L * C * 2 + L * C * C + L * L * (2 + C) + 2 * C * C * L,  # positions, then channels
    "dual_gcn": (
        9 * C * (6 * 10 + 3 * 5 + 2 * 3)  # down to 6 positions
        + 6 * (3 * C * 8 + 3 * 8 * 8 + 8 * C)  # the graph over them
        + L * C  # the gate
        + L * (C * 8 + C * 4 + 2 * 4 * 8 + 8 * C)  # to 4 nodes of 8 channels, and back
        + 4 * 4 * 8 + 8 * 8 * 4  # adjacency and update
        + L * 2 * C * C
    ),
    "ema": 2 * L * C * C + (3 * 2 + 1) * L * C * 64,  # three steps of two products, and the description
    "global_context": 2 * L * C + 2 * C * 4,  # a map, a sum under it, two layers on one vector
    "non_local": 4 * L * C * 8 + 2 * L * L * 8,
    "psp": (1 + 4 + 9 + 36) * C * 4 + L * 9 * 2 * C * C,
}  # fmt: skip
AFFINITY = L * (2 * C * 4 + C * C) + 9 * L * (4 + C)  # keys, queries and values; similarities and sums of 9 shifts


def feature(height: int = H, width: int = W) -> Tensor:
    return torch.rand(1, C, height, width, generator=torch.Generator().manual_seed(0))


def test_every_aggregation_is_counted_by_hand() -> None:
    assert set(BY_HAND) == set(plugins.available("models/aggregation"))


@pytest.mark.parametrize("name", BY_HAND)
def test_an_aggregation_costs_what_a_count_by_hand_says(name: str) -> None:
    alone = GlobalThenLocal(C, aggregation=name).eval()
    assert macs(alone, feature()) == BY_HAND[name]
    with_affinity = GlobalThenLocal(C, aggregation=name, distribution="affinity").eval()
    assert macs(with_affinity, feature()) == BY_HAND[name] + AFFINITY
    assert parameters(with_affinity) - parameters(alone) == C * C + 2 * C * 4 + 2 * C  # no biases; one norm


def test_the_other_distributions_cost_what_a_count_by_hand_says() -> None:
    inputs = feature(39, 47), feature(39, 47)
    positions = 39 * 47

    def counted(name: str) -> int:
        return macs(build_part("distribution", name, C, align_corners=True).eval(), *inputs)

    assert counted("none") == 0
    assert counted("mask") == 9 * C * (19 * 23 + 9 * 11 + 4 * 5) + positions * C
    assert counted("depthwise") == positions * (2 * C * 9 + 9 * 9)  # 9 hidden channels


class Kept(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        first = x.relu()
        second = first.relu()
        return torch.max(first, second)


def test_peak_memory_is_the_most_that_is_held_at_a_time() -> None:
    one = 4 * C * L

    def peak(*modules: nn.Module) -> int:
        return measure(nn.Sequential(*modules), feature(), warm_up=0, runs=1).peak_bytes

    assert peak(nn.ReLU()) == one
    assert peak(nn.ReLU(inplace=True)) == 0
    assert peak(*(nn.ReLU() for _ in range(5))) == 2 * one  # what is done with is given back
    assert peak(Kept()) == 3 * one
    assert peak(nn.ReLU(), nn.ZeroPad2d(2), nn.ReLU(inplace=True)) == one + 4 * C * (H + 4) * (W + 4)


def test_the_window_affinity_never_unfolds_its_windows() -> None:
    found = measure(build_part("distribution", {"name": "affinity", "window": 7}, C, align_corners=True).eval(),
                    feature(), feature(), warm_up=1, runs=1)  # fmt: skip
    assert 4 * 49 * L < found.peak_bytes < 4 * 49 * L * C / 2  # weights of 49 shifts, not 49 features


class Counted(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        assert torch.is_inference_mode_enabled()
        time.sleep(0.2 if self.calls == 1 else 0.01)
        return x.relu()


def test_passes_are_timed_after_the_warm_up_and_without_the_profiler() -> None:
    module = Counted()
    found = measure(module, feature(), warm_up=1, runs=3)
    assert module.calls == 5
    assert len(found.seconds) == 3
    assert found.median_ms >= 10
    assert Pass(0, (0.001, 0.010, 0.003)).median_ms == 3.0
    assert Pass(0, (0.001, 0.003)).median_ms == 2.0
