"""The benchmark of the whole network: both formulations are one network, and the report says what was met."""

import pytest
import torch

from gald.bench import step
from gald.errors import GaldError
from gald.models.released import NETS

SMALL = {**NETS["gald_res50"].model.model_dump(mode="json"), "channels": 16}
SMALL["distribution"] = {"name": "none"}


def test_the_textbook_is_the_same_network() -> None:
    assert step.difference(SMALL, 65) < 1e-4


def test_other_logits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "for_prediction", lambda model: lambda images: model(images.flip(-1)))
    with pytest.raises(GaldError, match="differ by"):
        step.difference(SMALL, 33)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The PyTorch version")
def test_steps_and_predictions_run() -> None:
    for way in ("textbook", "ours"):
        step.training_step(way, 2, 33, SMALL)()
        output = step.prediction(way, 33, 41, SMALL)()
        assert output[0].shape == (1, 19, 33, 41)
        assert torch.isfinite(output[0]).all()


def test_the_report_says_what_is_met() -> None:
    rows = [
        step._Row("time", (2.0, 2.0), 1.05, "s"),
        step._Row("memory", (100.0, 80.0), 0.75, "MiB"),
        step._Row("prediction", (3.0, 2.0), 1.15, "s", faster=True),
        step._Row("slow prediction", (3.0, 2.9), 1.15, "s", faster=True),
    ]
    lines = step.report(1e-6, rows).splitlines()
    assert torch.__version__ in lines[0]
    assert [line.split("|")[-2].strip() for line in lines[-4:]] == ["yes", "NO", "yes", "NO"]
    assert "| 0.80 | at most 0.75 |" in lines[-3]
