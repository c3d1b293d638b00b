"""Small networks to export, and what their exported files compute."""

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

from gald.models import weights as weights_file
from gald.models.segmentor import build_segmentor
from gald.params import ModelParams, read_yaml

BASE = Path(__file__).parents[3] / "params" / "base.yaml"
CLASSES = ("road", "ciel couvert é", "car")
TINY = {"name": "tiny", "width": 16, "stem_width": 8, "blocks": 1}


def save(path: str, **changes: object) -> Path:
    """Weights of a small network, none at a neutral value: a block that starts as the identity would test nothing."""
    plain = {"aggregation": {"name": "none"}, "distribution": {"name": "none"}}
    small = {"backbone": TINY, "channels": 16, **plain, "aux_head": {"channels": 8, "relu": True, "dropout": 0.1}}
    params = ModelParams.model_validate(read_yaml(BASE)["model"] | small | changes)
    torch.manual_seed(0)
    model = build_segmentor(params, len(CLASSES))
    for name, tensor in model.state_dict().items():
        if name not in ("mean", "std") and tensor.ndim <= 1 and tensor.is_floating_point():
            tensor.add_(0.2 * torch.rand_like(tensor))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = 1.0
    scenes = functional.interpolate(
        torch.rand(4, 3, 4, 6), (64, 96)
    )  # noise looks alike far up: norms would amplify it
    with torch.no_grad():
        model(scenes)  # norms of an untrained network that fit its features, as a trained one's do
    weights_file.save(Path(path), model, params, CLASSES)
    return Path(path)


def images_of(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(7))


def run_onnx(path: str, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(logits)


@torch.no_grad()
def logits_of(weights: Path, images: Tensor) -> Tensor:
    return weights_file.load(weights)(images).logits
