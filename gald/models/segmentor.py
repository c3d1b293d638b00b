"""The whole network: image in, one named pair of logits out."""

from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gald.datasets import IGNORE_INDEX
from gald.errors import ModelError
from gald.models.backbone._features import Channels, Normalisation
from gald.models.block import GlobalThenLocal, build_plugin
from gald.models.heads import AuxHead, Logits, MainHead
from gald.models.layers import resize
from gald.params import ModelParams


class SegmentorOutput(NamedTuple):
    """Logits of each class, at the size of the input unless the features' size was asked for.

    Attributes
    ----------
    logits : Tensor
        float32 (N, K, H, W) of the main head.
    aux_logits : Tensor or None
        The same of the auxiliary head where it was asked for.
    """

    logits: Logits
    aux_logits: Logits | None


class Segmentor(nn.Module):
    """Backbone, main head, perhaps an auxiliary head, and the normalisation of the images.

    The normalisation is the backbone's, and part of the model (buffers `mean` and `std`, saved with the weights), so
    that nobody who predicts can forget or mistake it.

    Parameters
    ----------
    backbone : nn.Module
        Images to `Features`, see `gald.models.backbone`.
    head : MainHead
        Main feature to logits.
    aux_head : AuxHead or None
        Auxiliary feature to logits.
    align_corners : bool
        Convention of the last resize; the model's, as of every other one.
    """

    mean: Tensor
    std: Tensor
    class_names: tuple[str, ...] = ()  # known once weights are loaded from a file

    def __init__(self, backbone: nn.Module, head: MainHead, aux_head: AuxHead | None, *, align_corners: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.aux_head = aux_head
        self.align_corners = align_corners
        normalisation = cast(Normalisation, backbone.normalisation)
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, 3, 1, 1))

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.head.classifier.out_channels

    @property
    def coverage(self) -> dict[str, object] | None:
        """Which pretrained tensors the backbone holds, by name, or None where nothing is pretrained."""
        coverage: dict[str, object] | None = getattr(self.backbone, "coverage", None)
        return coverage

    def forward(
        self, images: Float[Tensor, "n 3 h w"], *, with_aux: bool = False, full_size: bool = True
    ) -> SegmentorOutput:
        """Compute the logits of a batch of images.

        Parameters
        ----------
        images : Tensor
            float32 (N, 3, H, W), RGB in [0, 1], not normalised.
        with_aux : bool
            Run the auxiliary head too. What comes back never depends on whether the model trains.
        full_size : bool
            Resize the logits to the images' size. The losses do that themselves, strip by strip, and take them as they
            leave the heads.

        Returns
        -------
        SegmentorOutput
            Logits (N, K, H, W), float32 under autocast too; (N, K, h, w) of the features' sizes without `full_size`.

        Raises
        ------
        ModelError
            The images are of another type or shape, or the auxiliary head is asked for and the model has none.
        """
        _check(images)
        if with_aux and self.aux_head is None:
            raise ModelError("this model has no auxiliary head; set model.aux_head, or do not ask for its logits")
        size = (images.shape[-2], images.shape[-1]) if full_size else None
        features = self.backbone(torch.sub(images, self.mean).div_(self.std))  # one copy, not two
        logits = self._at_size(self.head(features.main), size)
        aux_logits = self._at_size(self.aux_head(features.aux), size) if with_aux and self.aux_head else None
        return SegmentorOutput(logits, aux_logits)

    def _at_size(self, logits: Logits, size: tuple[int, int] | None) -> Logits:
        logits = logits.float()
        return logits if size is None else resize(logits, size, align_corners=self.align_corners)


def _check(images: Tensor) -> None:
    """Refuse what would be answered too, by nonsense: bytes, or one channel for three."""
    if not images.is_floating_point() or images.dim() != 4 or images.shape[1] != 3:
        raise ModelError(
            f"images are {str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}; a network takes "
            "floats (N, 3, H, W), RGB in [0, 1]: gald.inference.as_input makes them of bytes (N, H, W, 3)"
        )


def build_segmentor(model: ModelParams, num_classes: int) -> Segmentor:
    """Build the network that the params describe, with freshly drawn (or pretrained) weights.

    Parameters
    ----------
    model : ModelParams
        Backbone, neck, aggregation, distribution and auxiliary head.
    num_classes : int
        Classes K of the benchmark.

    Returns
    -------
    Segmentor
        In training mode; draws come from torch's global generator, so seed it first.

    Raises
    ------
    ModelError
        Options that do not fit each other, classes that a mask of 8 bits cannot tell apart, or pretrained weights that
        do not cover the backbone.
    """
    if not 1 <= num_classes <= IGNORE_INDEX:
        raise ModelError(
            f"{num_classes} classes; masks have 8 bits, and {IGNORE_INDEX} marks what is ignored: a network here has 1 "
            f"to {IGNORE_INDEX}"
        )
    backbone = build_plugin(
        "backbone", model.backbone.name, align_corners=model.align_corners, options=model.backbone.options
    )
    channels = cast(Channels, backbone.channels)
    block = GlobalThenLocal(
        model.channels,
        aggregation={"name": model.aggregation.name, **model.aggregation.options},
        distribution={"name": model.distribution.name, **model.distribution.options},
        aggregation_stride=model.aggregation_stride,
        align_corners=model.align_corners,
        output_stride=model.backbone.options["output_stride"],
    )
    head = MainHead(channels.main, model.channels, num_classes, block)
    aux_head = None
    if model.aux_head is not None:
        aux_head = AuxHead(
            channels.aux,
            model.aux_head.channels,
            num_classes,
            relu=model.aux_head.relu,
            dropout=model.aux_head.dropout,
        )
    return Segmentor(backbone, head, aux_head, align_corners=model.align_corners)
