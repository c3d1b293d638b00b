"""Backbones: strides, what they see, images of any size; pretrained weights are in test_pretrained.py."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from gald.errors import ModelError
from gald.models.backbone import resnet, timm, tiny
from gald.models.backbone._features import IMAGENET
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


# One small network of each family at odd sides, at the size it was published for where it is fixed, and beyond.
FAMILIES = {
    "resnet10t": {"output_stride": 8},
    "convnext_atto": {"output_stride": 16},
    "tf_efficientnet_lite0": {"fuse": "concat"},
    "pvt_v2_b0": {"fuse": "add"},
    "vit_tiny_patch16_224": {"output_stride": 16},
}
FURTHER = {
    "mobilevit_xxs": {"output_stride": 16},
    "edgenext_xx_small": {"fuse": "add"},
    "poolformer_s12": {"output_stride": 32},
    "test_mambaout": {"fuse": "add"},
    "swin_tiny_patch4_window7_224": {"output_stride": 32},
    "swinv2_cr_tiny_ns_224": {"fuse": "add"},
    "swinv2_tiny_window8_256": {"output_stride": 16, "fuse": "concat"},
    "tiny_vit_5m_224": {"fuse": "add"},
    "davit_tiny": {"fuse": "add"},
    "vgg11": {"fuse": "add"},
    "hrnet_w18_small": {"fuse": "add"},
    "mobilenetv3_small_050": {"output_stride": 8},
    "regnetx_002": {"output_stride": 8},
}


def goes_through(name: str, options: dict[str, object]) -> None:
    """Train and evaluate at odd and at tiny sides; gradients reach the first layer."""
    torch.manual_seed(0)
    module = timm.build(model=name, **options)
    stride = options.get("output_stride", 8)
    for size, training in (((97, 129), True), ((97, 129), False), ((64, 96), False)):
        output = module.train(training)(torch.randn(2, 3, *size))
        assert output.main.shape == (2, module.channels.main, *(-(-side // stride) for side in size))
        assert output.aux.shape[:2] == (2, module.channels.aux)
        assert output.main.isfinite().all()
        if training:
            (output.main.square().mean() + output.aux.square().mean()).backward()
            first = next(part for part in module.network.parameters() if part.dim() == 4)
            assert first.shape[1] == 3
            assert first.grad.abs().max() > 0
            assert all(part.grad.isfinite().all() for part in module.parameters() if part.grad is not None)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_takes_images_of_any_size(name):
    goes_through(name, FAMILIES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", FURTHER)
def test_further_networks_take_images_of_any_size(name):
    goes_through(name, FURTHER[name])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet19", {}, "timm has no model 'resnet19'; did you mean"),
        ("resnet18.x_in1k", {}, r"timm has no weights 'resnet18\.x_in1k'; .*known: .*resnet18\.tv_in1k"),
        (
            "swin_tiny_patch4_window7_224",
            {"output_stride": 8},
            "ends at stride 32 and cannot be dilated to output stride 8; use output_stride: 32, or fuse: add or concat",
        ),
        ("test_vit", {"output_stride": 8}, "ends at stride 16 and cannot .* stride 8; use output_stride: 16"),
        ("test_vit", {"fuse": "add"}, "strides 16, 16, 16, so .* nothing to join at output stride 8; use .*: 16"),
        ("test_resnet", {"output_stride": 32, "fuse": "add"}, "nothing to join at output stride 32; use .*: 8 or 16"),
        ("efficientformerv2_s0", {"fuse": "add"}, "efficientformerv2_s0 does not take images of any size"),
    ],
)
def test_what_a_network_cannot_do_is_refused_with_what_it_can(name, options, said):
    with pytest.raises(ModelError, match=said):
        timm.build(model=name, **options)


def test_what_is_padded_changes_nothing_where_nothing_is_missing():
    module = timm.build(model="test_convnext", output_stride=16).eval()
    images = torch.randn(1, 3, 64, 96)
    assert module.fit.multiple == 16
    torch.testing.assert_close(module(images).main, module.network(images)[-1], rtol=0, atol=0)
    padded = torch.nn.functional.pad(images[..., :50, :81], (0, 15, 0, 14))
    expected = module.network(padded)[-1][..., :4, :6]
    torch.testing.assert_close(module(images[..., :50, :81]).main, expected, rtol=0, atol=0)


def test_channels_are_told_from_rows_also_where_there_are_as_many():
    module = timm.build(model="test_mambaout", fuse="add").eval()
    width = module.fit.widths[0]
    images = torch.randn(1, 3, 8 * width, 64)
    found = module.fit.features(module.network, images)
    assert found[0].shape == (1, width, width, 8)
    assert torch.equal(found[0][0, 3, 5], module.network(images)[0][0, 5, :, 3])


def test_a_transformer_of_one_stride_gives_its_last_blocks():
    module = timm.build(model="test_vit", output_stride=16).eval()
    images = torch.randn(1, 3, 64, 96)
    whole = import_timm().create_model("test_vit", dynamic_img_size=True).eval()
    whole.load_state_dict(
        {name.removeprefix("model."): value for name, value in module.network.state_dict().items()}, strict=False
    )
    expected = whole.forward_intermediates(images, indices=2, norm=False, intermediates_only=True)
    torch.testing.assert_close(module(images).main, expected[-1])
    torch.testing.assert_close(module(images).aux, expected[-2])


def test_building_leaves_a_network_in_training_and_draws_nothing_more():
    torch.manual_seed(0)
    timm.build(model="test_resnet")
    after = torch.rand(1)
    torch.manual_seed(0)
    for _ in range(2):  # once to see its strides, once with the features that are used
        import_timm().create_model("test_resnet", features_only=True, output_stride=8)
    assert torch.equal(torch.rand(1), after)
    assert timm.build(model="test_resnet").network.training
