"""Pretrained weights of others in our own ResNet."""

import pytest
import torch
from torch import nn

from gald.errors import ModelError
from gald.models.backbone import resnet
from gald.models.backbone._resnet_weights import fill
from gald.models.backbone._timm import import_timm


@pytest.fixture(scope="module")
def deep_stem():
    """timm's ResNet-50 with the deep stem, its norms away from the identity, so that a swap of two would be seen."""
    torch.manual_seed(6)
    network = import_timm().create_model("resnet50s").eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low, high in ((part.weight, 0.5, 1), (part.bias, -0.1, 0.1)):
                nn.init.uniform_(tensor, low, high)
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return network


def test_our_resnet_with_timms_weights_gives_timms_numbers(deep_stem, tmp_path):
    torch.save(deep_stem.state_dict(), tmp_path / "in.pth")
    ours = resnet.build(depth=50, output_stride=32).eval()
    coverage = fill(ours, 50, "file", str(tmp_path / "in.pth"))
    assert coverage["loaded"] == coverage["of"] == 275
    assert coverage["unused"] == ["fc.weight", "fc.bias"]
    images = torch.randn(1, 3, 97, 129)  # at odd sides, pooling that rounds up gives what rounding down gives
    with torch.no_grad():
        third, fourth = deep_stem.forward_intermediates(images, indices=[3, 4], intermediates_only=True)
        found = ours(images)
    for feature, expected in ((found.aux, third), (found.main, fourth)):
        assert feature.shape == expected.shape
        assert (feature - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_our_resnet_names_what_it_lacks_and_what_may_lack(deep_stem, tmp_path):
    state = {name: tensor for name, tensor in deep_stem.state_dict().items() if not name.startswith("layer4.2.")}
    torch.save(state, tmp_path / "in.pth")
    with torch.device("meta"):
        ours = resnet.build(depth=50)
    with pytest.raises(ModelError, match=r"missing stage4\.2\.residual\.0\.0\.weight, "):
        fill(ours, 50, "file", str(tmp_path / "in.pth"))
    for allowed in ("layer4.2", "stage4.2"):
        coverage = fill(resnet.build(depth=50), 50, "file", str(tmp_path / "in.pth"), (allowed,))
        assert len(coverage["missing"]) == 15
    assert fill(ours, 50, "none", None) is None


def test_our_resnet_asks_the_hub_for_its_depth(deep_stem, monkeypatch):
    asked = []

    def load(place, *args, **kwargs):
        asked.append(place)
        return dict(deep_stem.state_dict())

    monkeypatch.setattr(import_timm().models._builder, "load_state_dict_from_hf", load)
    coverage = fill(resnet.build(depth=50), 50, "hub", None)
    assert (asked, coverage["origin"]) == (["timm/resnet50s.gluon_in1k"], "hub resnet50s")
    with torch.device("meta"):
        deeper = resnet.build(depth=101)
    monkeypatch.setattr("gald.models.backbone._resnet_weights.from_hub", lambda name: deep_stem.state_dict())
    with pytest.raises(ModelError, match=r"hub resnet101s do not cover .* missing stage3\.6\."):
        fill(deeper, 101, "hub", None)
