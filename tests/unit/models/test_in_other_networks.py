"""The block in networks of other libraries, in the five lines that the README shows."""

import pytest
import torch
from torch import nn

from gald._torchvision import import_with_torchvision
from gald.models.block import GlobalThenLocal


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_before_the_classifier_of_torchvision(name):
    build = getattr(import_with_torchvision("torchvision.models.segmentation"), name)
    torch.manual_seed(0)
    model = build(weights=None, weights_backbone=None, num_classes=5)
    *layers, classifier = model.classifier
    block = GlobalThenLocal(classifier.in_channels, aggregation="psp", distribution="affinity")
    model.classifier = nn.Sequential(*layers, block, classifier)
    images = torch.rand(2, 3, 64, 96)
    logits = model(images)["out"]
    assert logits.shape == (2, 5, 64, 96)
    logits.square().mean().backward()
    assert all(part.grad.isfinite().all() for part in block.parameters())
    assert model.backbone.conv1.weight.grad.abs().max() > 0


def test_on_features_of_timm():
    timm = import_with_torchvision("timm")
    torch.manual_seed(0)
    backbone = timm.create_model("resnet10t", features_only=True, output_stride=8)
    channels = backbone.feature_info.channels()[-1]
    block = GlobalThenLocal(channels, aggregation="psp", distribution="affinity")
    classifier = nn.Conv2d(channels, 5, 1)
    logits = classifier(block(backbone(torch.rand(2, 3, 64, 96))[-1]))
    assert logits.shape == (2, 5, 8, 12)
    logits.square().mean().backward()
    assert all(part.grad.isfinite().all() for part in block.parameters())
    assert backbone.conv1[0].weight.grad.abs().max() > 0
