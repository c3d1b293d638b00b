import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gald.losses import cross_entropy, ohem, segmentation_loss
from gald.models.segmentor import SegmentorOutput

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = json.loads((GOLDEN / "names.json").read_text())["ohem"]

# Two classes, three pixels; the true class has probability 0.8, 0.5 and 0.1.
LOGITS = torch.tensor([[[math.log(4.0), 0.0, -math.log(9.0)], [0.0, 0.0, 0.0]]]).unsqueeze(2)
MASK = torch.tensor([[[0, 0, 0]]])


def params(loss: dict, aux_weight: float = 0.4):
    return SimpleNamespace(loss=SimpleNamespace(**loss), aux_weight=aux_weight)


def test_cross_entropy_by_hand():
    assert cross_entropy(LOGITS, MASK).item() == pytest.approx(-math.log(0.8 * 0.5 * 0.1) / 3)


def test_ignored_pixels_count_neither_above_nor_below_the_line():
    mask = torch.tensor([[[0, 255, 1]]])
    assert cross_entropy(LOGITS, mask).item() == pytest.approx(-math.log(0.8 * 0.9) / 2)


@pytest.mark.parametrize("loss", [cross_entropy, lambda *a: ohem(*a, threshold=0.7, min_kept=2)])
def test_batch_of_ignored_pixels_gives_zero_and_finite_gradients(loss):
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, torch.full_like(MASK, 255))
    value.backward()
    assert value.item() == 0
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("threshold", "min_kept", "kept"),
    [
        (0.7, 1, [0.5, 0.1]),  # both below the threshold
        (0.3, 1, [0.1]),
        (0.3, 2, [0.5, 0.1]),  # too few are hard, so the two hardest are taken
        (0.05, 1, [0.1]),
        (0.3, 3, [0.8, 0.5, 0.1]),
        (0.3, 4, [0.8, 0.5, 0.1]),  # more than there are: all
    ],
)
def test_ohem_by_hand(threshold, min_kept, kept):
    value = ohem(LOGITS, MASK, threshold=threshold, min_kept=min_kept)
    assert value.item() == pytest.approx(-sum(math.log(each) for each in kept) / len(kept), rel=1e-6)


def test_ohem_sends_no_gradient_to_easy_pixels():
    logits = LOGITS.clone().requires_grad_()
    ohem(logits, MASK, threshold=0.7, min_kept=1).backward()
    assert (logits.grad.abs().sum(1).flatten() > 0).tolist() == [False, True, True]


@pytest.mark.parametrize("case", sorted(RECORDED))
def test_ohem_agrees_with_the_released_code(case):
    arrays = np.load(GOLDEN / "ohem.npz")
    threshold, min_kept = (part.partition("=")[2] for part in case.split(","))
    value = ohem(
        torch.from_numpy(arrays["logits"]),
        torch.from_numpy(arrays["target"]).long(),
        threshold=float(threshold),
        min_kept=int(min_kept),
    )
    assert value.item() == pytest.approx(RECORDED[case], abs=1e-6)


def test_auxiliary_loss_is_weighted_and_named():
    output = SegmentorOutput(LOGITS, torch.zeros_like(LOGITS))
    losses = segmentation_loss(output, MASK, params({"name": "cross_entropy"}))
    assert losses.aux.item() == pytest.approx(math.log(2))
    assert losses.total.item() == pytest.approx(losses.main.item() + 0.4 * math.log(2))


def test_without_auxiliary_logits_the_total_is_the_main_loss():
    losses = segmentation_loss(SegmentorOutput(LOGITS, None), MASK, params({"name": "cross_entropy"}))
    assert losses.aux is None
    assert losses.total is losses.main


def test_ohem_is_for_the_main_head_only():
    output = SegmentorOutput(LOGITS, LOGITS)
    losses = segmentation_loss(output, MASK, params({"name": "ohem", "threshold": 0.3, "min_kept": 1}))
    assert losses.main.item() == pytest.approx(-math.log(0.1))
    assert losses.aux.item() == pytest.approx(-math.log(0.8 * 0.5 * 0.1) / 3)
