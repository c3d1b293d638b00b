"""The same figures as the field's own evaluators."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gald._torchvision import import_with_torchvision
from gald.datasets.cityscapes import SPEC
from gald.metrics import confusion_matrix, scores
from tests.optional import need
from tests.unit.metrics.cityscapes import GOLDEN, evaluated, evaluator, pairs
from tests.unit.metrics.scenes import drawn_pair


@pytest.fixture
def ours() -> np.ndarray:
    return sum(confusion_matrix(*pair, 19) for pair in pairs())


def check(found: dict, confusion: np.ndarray) -> None:
    """Hold the official evaluator's figures against a confusion matrix of train ids."""
    own = [one.raw_ids[0] for one in SPEC.classes]
    np.testing.assert_array_equal(np.array(found["confusion"])[np.ix_(own, own)], confusion)
    ours = scores(confusion)
    for one, iou in zip(SPEC.classes, ours.iou, strict=True):
        theirs = found["iou"][one.name]
        # a class that is predicted but never true is 0 there and in its mean; here it is absent, see `gald.metrics`
        assert (theirs in (None, 0.0)) if np.isnan(iou) else theirs == iou
    extra = sum(found["iou"][SPEC.classes[index].name] is not None for index in ours.absent)
    present = len(SPEC.classes) - len(ours.absent)
    assert found["mean_iou"] * (present + extra) / present == pytest.approx(ours.mean_iou, rel=1e-14)


def test_recorded_figures_of_the_official_cityscapes_evaluator(ours: np.ndarray) -> None:
    check(json.loads(GOLDEN.read_text(encoding="utf-8")), ours)
    assert len(scores(ours).absent) >= 3
    assert ours.sum() < sum(truth.size for truth, _ in pairs())


@pytest.mark.slow
def test_the_official_cityscapes_evaluator(ours: np.ndarray, tmp_path: Path) -> None:
    need("cityscapesscripts")
    found = evaluated(evaluator(), tmp_path)
    check(found, ours)
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.slow  # for the seconds that the import takes
@pytest.mark.parametrize("num_classes", [2, 19, 171])
def test_torchmetrics(num_classes: int) -> None:
    need("torchmetrics")
    functional = import_with_torchvision("torchmetrics.functional.classification")
    drawn = [drawn_pair(seed, num_classes, (40, 50)) for seed in range(4)]
    truth, prediction = (torch.from_numpy(np.stack(one)).long() for one in zip(*drawn, strict=True))
    confusion = sum(confusion_matrix(*pair, num_classes) for pair in drawn)
    found = scores(confusion)
    asked = {"num_classes": num_classes, "ignore_index": 255, "validate_args": False}
    expected = functional.multiclass_confusion_matrix(prediction, truth, **asked)
    np.testing.assert_array_equal(confusion, expected)
    present = ~np.isnan(found.iou)
    iou = functional.multiclass_jaccard_index(prediction, truth, average="none", **asked)
    np.testing.assert_allclose(found.iou[present], iou[present], rtol=1e-6)
    mean_iou = functional.multiclass_jaccard_index(prediction, truth, average="macro", **asked)
    extra = int(((confusion.sum(1) == 0) & (confusion.sum(0) > 0)).sum())  # predicted, never true: there 0, here absent
    assert found.mean_iou == pytest.approx(float(mean_iou) * (present.sum() + extra) / present.sum(), rel=1e-6)
    accuracy = functional.multiclass_accuracy(prediction, truth, average="none", **asked)
    np.testing.assert_allclose(found.accuracy[present], accuracy[present], rtol=1e-6)
    pixel_accuracy = functional.multiclass_accuracy(prediction, truth, average="micro", **asked)
    assert found.pixel_accuracy == pytest.approx(float(pixel_accuracy), rel=1e-6)
