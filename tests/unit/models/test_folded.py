"""The network for prediction: the same answers, fewer layers, the original untouched."""

import copy

import pytest
import torch
from torch import nn

from gald.inference import channels_last
from gald.models import released
from gald.models._winograd import WinogradConvs
from gald.models.folded import folded
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import AuxHead, Choice, ModelParams


def tiny(norm: str = "batch") -> Segmentor:
    torch.manual_seed(0)
    backbone = Choice.model_validate({"name": "tiny", "width": 16, "stem_width": 8, "norm": norm})
    params = ModelParams(
        backbone=backbone,
        channels=16,
        aggregation=Choice(name="psp"),
        distribution=Choice(name="affinity"),
        aux_head=AuxHead(channels=8, relu=True, dropout=0.1),
        aggregation_stride=1,
        align_corners=True,
    )
    return unsettled(build_segmentor(params, 5))


def unsettled(model: Segmentor) -> Segmentor:
    """Give norms statistics and affine parts as training does; whatever folding forgets then shows."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.0)
            nn.init.normal_(part.bias, std=0.1)
    return model.eval()


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_logits_are_those_of_the_network(norm: str) -> None:
    model = tiny(norm)
    state = copy.deepcopy(model.state_dict())
    images = torch.rand(1, 3, 48, 64)
    with torch.inference_mode():
        expected, found = model(images).logits, folded(model)(images).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(folded(channels_last(model))(images).logits, expected, atol=1e-4, rtol=0)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.aux_head is not None


def test_wide_heads_are_convolved_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gald.models._winograd.LEAST_CHANNELS", 128)
    torch.manual_seed(0)
    backbone = Choice.model_validate({"name": "tiny", "width": 128, "stem_width": 8})
    block = {"aggregation": Choice(name="psp"), "distribution": Choice(name="affinity"), "aggregation_stride": 1}
    params = ModelParams(backbone=backbone, channels=128, aux_head=None, align_corners=True, **block)
    model = unsettled(build_segmentor(params, 5))
    images = torch.rand(1, 3, 72, 88)
    quick = folded(model)
    assert sum(isinstance(part, WinogradConvs) for part in quick.modules()) == 3
    with torch.inference_mode():
        torch.testing.assert_close(quick(images).logits, model(images).logits, atol=1e-4, rtol=0)


def test_nothing_remains_that_predictions_do_not_need() -> None:
    model = folded(tiny())
    assert model.aux_head is None
    assert model.num_classes == 5
    assert not any(isinstance(part, nn.BatchNorm2d) for rest in (model.head.before, model.head.fuse) for part in rest)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in model.backbone.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("net", released.NETS)
@pytest.mark.filterwarnings("ignore:distribution mask")
@pytest.mark.slow
def test_released_networks(net: str) -> None:
    torch.manual_seed(0)
    model = unsettled(build_segmentor(released.find(net).model, 19))
    images = torch.rand(1, 3, 129, 161)
    with torch.inference_mode():
        expected = model(images).logits
        difference = (folded(model)(images).logits - expected).abs().max()
    assert difference < 1e-4 * max(1.0, float(expected.abs().max()))
