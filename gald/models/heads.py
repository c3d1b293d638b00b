"""Neck and heads: from a backbone's features to the logits of each class at the output stride."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gald.models._recompute import applied, early
from gald.models.layers import Feature, conv_norm_act

Logits = Float[Tensor, "n k h w"]


class MainHead(nn.Module):
    """Convolution, block, convolution; concatenated after the backbone's feature; convolution, 1x1 classifier.

    The order of the concatenation, backbone first, is that of the released code. All convolutions but the classifier
    are 3x3 without bias, with norm and ReLU.

    Parameters
    ----------
    in_channels : int
        Channels of the backbone's feature.
    channels : int
        Width of the neck; the authors take 512.
    num_classes : int
        Classes K.
    block : nn.Module
        (N, channels, h, w) to the same shape.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, block: nn.Module) -> None:
        super().__init__()
        self.before = conv_norm_act(in_channels, channels)
        self.block = block
        self.after = conv_norm_act(channels, channels)
        self.fuse = conv_norm_act(in_channels + channels, channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, feature: Feature) -> Logits:
        """Logits (N, K, h, w) of the backbone's feature (N, in_channels, h, w)."""
        context = self.after(self.block(self.before(early(feature))))
        logits: Logits = applied(self.classifier, self.fuse(torch.cat([feature, context], dim=1)))
        return logits


class AuxHead(nn.Module):
    """3x3 convolution with bias, norm, ReLU if wanted, dropout of whole channels, 1x1 classifier.

    Parameters
    ----------
    in_channels, channels, num_classes : int
        Channels of the feature, of the head and of the logits.
    relu : bool
        The authors' GALD nets have it, their DualGCN nets do not.
    dropout : float
        Probability with which a channel is dropped in training.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, *, relu: bool, dropout: float) -> None:
        super().__init__()
        self.transform = conv_norm_act(in_channels, channels, bias=True, activation=relu)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, feature: Feature) -> Logits:
        """Logits (N, K, h, w) of an earlier feature (N, in_channels, h, w)."""
        logits: Logits = self.classifier(self.dropout(self.transform(early(feature))))
        return logits
