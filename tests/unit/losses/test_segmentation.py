import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gald.errors import DatasetError, ParamsError
from gald.losses import HardPixels, pixel_loss, segmentation_loss, valid_weight
from gald.models.segmentor import SegmentorOutput
from gald.params import LossParams

GOLDEN = Path(__file__).parents[2] / "golden"
RECORDED = json.loads((GOLDEN / "names.json").read_text())["ohem"]

# Two classes, three pixels; the true class has probability 0.8, 0.5 and 0.1.
LOGITS = torch.tensor([[[math.log(4.0), 0.0, -math.log(9.0)], [0.0, 0.0, 0.0]]]).unsqueeze(2)
MASK = torch.tensor([[[0, 0, 0]]])
OHEM = {"name": "ohem", "threshold": 0.3, "min_kept": 1}


def params(aux_weight: float = 0.4, micro_batches: int = 1, **loss):
    cross_entropy = {"name": "cross_entropy", "threshold": 0.7, "min_kept": 1, "label_smoothing": 0.0}
    loss = LossParams(**{"class_weights": None, **cross_entropy, **loss})
    return SimpleNamespace(loss=loss, aux_weight=aux_weight, micro_batches=micro_batches)


def loss_of(logits, mask=MASK, **options):
    return pixel_loss(logits, mask, align_corners=True, **options)


def both_heads(output, mask=MASK, denominator=None, devices=1, **changes):
    how = {"align_corners": True, "denominator": denominator, "devices": devices}
    return segmentation_loss(output, mask, params(**changes), **how)


def test_cross_entropy_by_hand():
    assert loss_of(LOGITS).item() == pytest.approx(-math.log(0.8 * 0.5 * 0.1) / 3)


def test_ignored_pixels_count_neither_above_nor_below_the_line():
    assert loss_of(LOGITS, torch.tensor([[[0, 255, 1]]])).item() == pytest.approx(-math.log(0.8 * 0.9) / 2)


@pytest.mark.parametrize("hard", [None, HardPixels(0.7, 2)])
@pytest.mark.parametrize("weights", [None, [0.0, 2.0]])
def test_batch_of_ignored_pixels_gives_zero_and_finite_gradients(hard, weights):
    logits = LOGITS.clone().requires_grad_()
    value = loss_of(logits, torch.full_like(MASK, 255), hard=hard, class_weights=weights, label_smoothing=0.1)
    value.backward()
    assert value.item() == 0
    assert logits.grad.abs().max() == 0


def test_weight_of_pixels_is_their_number_or_that_of_their_classes():
    mask = torch.tensor([[[0, 1, 255]], [[1, 1, 255]]])
    for kind in (torch.int64, torch.uint8):
        assert valid_weight(mask.to(kind), 2).item() == 4
        assert valid_weight(mask.to(kind), 2, (0.5, 3.0)).item() == 9.5
    assert valid_weight(torch.full((1, 1, 2), 255), 2).item() == 0


def test_parts_of_a_batch_divided_by_the_count_of_all_add_up_to_the_batch():
    logits, mask = torch.cat([LOGITS, LOGITS.flip(3)]), torch.tensor([[[0, 255, 255]], [[1, 0, 0]]])
    count = valid_weight(mask, 2)
    parts = [loss_of(logits[[i]], mask[[i]], denominator=count).item() for i in range(2)]
    assert sum(parts) == pytest.approx(loss_of(logits, mask).item())
    means = [loss_of(logits[[i]], mask[[i]]).item() / 2 for i in range(2)]
    assert sum(means) != pytest.approx(loss_of(logits, mask).item(), rel=0.01)


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
def test_hard_pixels_by_hand(threshold, min_kept, kept):
    value = loss_of(LOGITS, hard=HardPixels(threshold, min_kept))
    assert value.item() == pytest.approx(-sum(math.log(each) for each in kept) / len(kept), rel=1e-6)


def test_ignored_pixels_are_never_hard():
    value = loss_of(LOGITS, torch.tensor([[[0, 0, 255]]]), hard=HardPixels(0.0, 3))
    assert value.item() == pytest.approx(-math.log(0.8 * 0.5) / 2, rel=1e-6)


def test_pixels_that_tie_with_the_last_hard_one_are_kept():
    logits = LOGITS[..., [2, 1, 1, 0]]
    value = loss_of(logits, torch.zeros(1, 1, 4, dtype=torch.int64), hard=HardPixels(0.0, 2))
    assert value.item() == pytest.approx(-math.log(0.1 * 0.5 * 0.5) / 3, rel=1e-6)


def test_easy_pixels_get_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    loss_of(logits, hard=HardPixels(0.7, 1)).backward()
    assert (logits.grad.abs().sum(1).flatten() > 0).tolist() == [False, True, True]


@pytest.mark.parametrize("case", sorted(RECORDED))
def test_hard_pixels_agree_with_the_released_code(case):
    arrays = np.load(GOLDEN / "ohem.npz")
    threshold, min_kept = (part.partition("=")[2] for part in case.split(","))
    value = loss_of(
        torch.from_numpy(arrays["logits"]),
        torch.from_numpy(arrays["target"]).long(),
        hard=HardPixels(float(threshold), int(min_kept)),
    )
    assert value.item() == pytest.approx(RECORDED[case], abs=1e-6)


def test_auxiliary_loss_is_weighted_and_named():
    losses = both_heads(SegmentorOutput(LOGITS, torch.zeros_like(LOGITS)))
    assert losses.aux.item() == pytest.approx(math.log(2))
    assert losses.total.item() == pytest.approx(losses.main.item() + 0.4 * math.log(2))


def test_without_auxiliary_logits_the_total_is_the_main_loss():
    losses = both_heads(SegmentorOutput(LOGITS, None))
    assert losses.aux is None
    assert losses.total is losses.main


def test_hard_pixels_are_for_the_main_head_only():
    losses = both_heads(SegmentorOutput(LOGITS, LOGITS), **OHEM)
    assert losses.main.item() == pytest.approx(-math.log(0.1))
    assert losses.aux.item() == pytest.approx(-math.log(0.8 * 0.5 * 0.1) / 3)


def test_hard_pixels_of_each_micro_batch_count_for_its_share():
    losses = both_heads(SegmentorOutput(LOGITS, LOGITS), denominator=torch.tensor(6.0), micro_batches=2, **OHEM)
    assert losses.main.item() == pytest.approx(-math.log(0.1) / 2)
    assert losses.aux.item() == pytest.approx(-math.log(0.8 * 0.5 * 0.1) / 6)


@pytest.mark.parametrize(
    ("devices", "micro_batches", "min_kept", "kept"),
    [
        (1, 1, 2, [0.5, 0.1]),
        (2, 1, 2, [0.1]),
        (2, 1, 3, [0.5, 0.1]),  # no part keeps less than its share
        (2, 3, 12, [0.5, 0.1]),
        (8, 1, 24, [0.8, 0.5, 0.1]),
    ],
)
def test_devices_and_micro_batches_keep_an_equal_share_of_hard_pixels_each(devices, micro_batches, min_kept, kept):
    hard = OHEM | {"min_kept": min_kept, "micro_batches": micro_batches}
    losses = both_heads(SegmentorOutput(LOGITS, None), denominator=torch.tensor(6.0), devices=devices, **hard)
    expected = -sum(math.log(each) for each in kept) / len(kept) / micro_batches
    assert losses.main.item() == pytest.approx(expected, rel=1e-6)


def test_class_weights_and_smoothing_reach_both_heads():
    options = {"class_weights": (0.25, 4.0), "label_smoothing": 0.2}
    mask = torch.tensor([[[0, 1, 1]]])
    losses = both_heads(SegmentorOutput(LOGITS, LOGITS.flip(1)), mask, **options)
    criterion = torch.nn.CrossEntropyLoss(torch.tensor(options["class_weights"]), label_smoothing=0.2)
    assert losses.main.item() == pytest.approx(criterion(LOGITS, mask).item())
    assert losses.aux.item() == pytest.approx(criterion(LOGITS.flip(1), mask).item())


@pytest.mark.parametrize("value", [2, 254, -1])
def test_a_class_that_there_is_not_is_refused_by_name(value):
    mask = torch.tensor([[[0, value, 255]]])
    for refused in (lambda: loss_of(LOGITS, mask), lambda: valid_weight(mask, 2)):
        with pytest.raises(DatasetError, match=rf"the mask holds {value}, but its values must be classes from 0 to 1"):
            refused()


def test_weights_that_do_not_fit_the_classes_are_refused():
    for refused in (lambda w: loss_of(LOGITS, class_weights=w), lambda w: valid_weight(MASK, 2, w)):
        with pytest.raises(ParamsError, match="class_weights: found 3 weights for 2 classes"):
            refused([1.0, 1.0, 1.0])


def test_a_denominator_of_hard_pixels_is_refused():
    with pytest.raises(ParamsError, match="leave out denominator"):
        loss_of(LOGITS, hard=HardPixels(0.5, 1), denominator=3.0)
