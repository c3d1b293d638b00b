"""Networks whose scores tests know, and the plain formulas that predictions are held against."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gald.inference import as_input
from gald.inference._blocks import blocks
from gald.inference._views import views
from gald.models.segmentor import SegmentorOutput
from gald.params import ProtocolParams


def protocol(**changes: object) -> ProtocolParams:
    whole = {"name": "test", "window": None, "overlap": 0.0, "average": "logits", "scales": (1.0,), "flip": False}
    return ProtocolParams.model_validate(whole | changes)


class Stub(nn.Module):
    """Random convolutions whose zero padding makes scores depend on where a tile ends, as those of networks do."""

    def __init__(self, num_classes: int, *, align_corners: bool = True, stride: int = 8) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(num_classes)
        self.register_buffer("weight", torch.randn(num_classes, 3, 5, 5, generator=generator))
        self.align_corners, self.stride, self.num_classes = align_corners, stride, num_classes
        self.register_buffer("mean", torch.tensor([0.48, 0.45, 0.4]).view(1, 3, 1, 1))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, *, full_size: bool = True) -> SegmentorOutput:
        self.seen.append(images)
        scores = functional.conv2d(images - self.mean, self.weight, stride=self.stride, padding=2)
        return SegmentorOutput(self.resized(scores, images.shape[2:]) if full_size else scores, None)

    def resized(self, scores: Tensor, size: tuple[int, int]) -> Tensor:
        return functional.interpolate(scores, tuple(size), mode="bilinear", align_corners=self.align_corners)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@torch.inference_mode()
def scores_of(model: Stub, image: np.ndarray, size: tuple[int, int], by: ProtocolParams) -> Tensor:
    """What classes are chosen from, put together: (K, h, w), the sum over scales and mirror images."""
    found = torch.full((model.num_classes, *size), torch.nan)
    for top, left, part in blocks(views(model, image, size, by), size, probabilities=by.average == "probabilities"):
        found[:, top : top + part.shape[0], left : left + part.shape[2]] = part.transpose(0, 1)
    return found


@torch.inference_mode()
def full_logits(model: Stub, image: np.ndarray) -> Tensor:
    """(1, K, H, W) of a whole image at its own size."""
    return model(as_input(torch.from_numpy(image.copy())[None]), full_size=True).logits


def same_but_for_ties(found: np.ndarray, scores: Tensor, within: float = 1e-4) -> bool:
    """Whether classes are those of the largest scores (K, h, w), where the second largest is farther than `within`."""
    best = scores.topk(2, dim=0)
    clear = ((best.values[0] - best.values[1]) > within).numpy()
    assert clear.mean() > 0.98
    return bool((found == best.indices[0].numpy())[clear].all())
