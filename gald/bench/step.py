"""The whole ResNet-50 GALD network: a training step and a prediction, beside the textbook formulation of the same net.

The textbook formulation has the same weights and runs as one writes it first: eager, contiguous, every norm and ReLU a
layer, the features concatenated before the last convolution, the normalised image in two steps. Both compute the same
loss, cross-entropy at the image's size of both heads, so that the figures are the network's alone.

On a machine with a CUDA device, ours is also measured in mixed precision, channels-last and compiled, beside the
textbook's float32.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gald.bench._gpu import on_gpu
from gald.bench._measure import machine, tell
from gald.bench._memory import Work, peak_bytes, seconds
from gald.errors import GaldError
from gald.inference import channels_last, for_prediction
from gald.models.backbone.resnet import Bottleneck, ResNet
from gald.models.heads import AuxHead, MainHead
from gald.models.released import NETS
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import ModelParams

_NET, _CLASSES, _AUX_WEIGHT = "gald_res50", 19, 0.4
_STEP = (2, 385)
_CUDA_STEP = (8, 769)
_IMAGES = ((360, 480), (769, 769))
_THREADS = (1, 2)
_ROUNDS = 3
_TOLERANCE = 1e-4
_WAYS = ("textbook", "ours")


class Textbook(nn.Module):
    """The network as one writes it first, of another one's layers."""

    def __init__(self, model: Segmentor) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, *, with_aux: bool = False) -> tuple[Tensor, Tensor | None]:
        """Logits of both heads (N, K, H, W) of images (N, 3, H, W)."""
        model, size = self.model, images.shape[-2:]
        feature = (images - model.mean) / model.std
        assert isinstance(model.backbone, ResNet)
        for unit in model.backbone.stem:
            feature = _plain(unit, feature)
        for stage in (model.backbone.stage1, model.backbone.stage2, model.backbone.stage3):
            feature = _stage(stage, feature)
        logits = _main(model.head, _stage(model.backbone.stage4, feature))
        aux = _aux(model.aux_head, feature) if with_aux and model.aux_head is not None else None
        return self._resized(logits, size), None if aux is None else self._resized(aux, size)

    def _resized(self, logits: Tensor, size: torch.Size) -> Tensor:
        return functional.interpolate(logits, size, mode="bilinear", align_corners=self.model.align_corners)


def _plain(unit: nn.Module, feature: Tensor) -> Tensor:
    """One layer after the other."""
    for layer in unit if isinstance(unit, nn.Sequential) else [unit]:
        feature = layer(feature)
    return feature


def _stage(stage: nn.Sequential, feature: Tensor) -> Tensor:
    for block in stage:
        assert isinstance(block, Bottleneck)
        residual = feature
        for unit in block.residual:
            residual = _plain(unit, residual)
        feature = block.activation(residual + _plain(block.shortcut, feature))
    return feature


def _main(head: MainHead, feature: Tensor) -> Tensor:
    context = _plain(head.after, head.block(_plain(head.before, feature)))
    logits: Tensor = head.classifier(_plain(head.fuse, torch.cat([feature, context], dim=1)))
    return logits


def _aux(head: AuxHead, feature: Tensor) -> Tensor:
    logits: Tensor = head.classifier(head.dropout(_plain(head.transform, feature)))
    return logits


def _network(params: dict[str, Any] | None) -> Segmentor:
    torch.manual_seed(0)
    model = NETS[_NET].model if params is None else ModelParams.model_validate(params)
    return build_segmentor(model, _CLASSES)


def training_step(
    way: str, batch: int, side: int, params: dict[str, Any] | None = None, device: str = "cpu"
) -> Callable[[], object]:
    """Make a training step ready: forward, loss, backward, momentum SGD.

    Parameters
    ----------
    way : {"textbook", "ours", "fast"}
        The last one is ours in mixed precision and compiled.
    batch, side : int
        Images, and their height and width.
    params : dict, optional
        Of another network.
    device : str
    """
    model = _network(params).to(device)
    images = torch.rand(batch, 3, side, side, device=device)
    masks = torch.randint(0, _CLASSES, (batch, side, side), device=device)
    network: nn.Module = Textbook(model)
    if way != "textbook":
        network, images = channels_last(model), images.contiguous(memory_format=torch.channels_last)
    compute: Callable[..., Any] = torch.compile(network) if way == "fast" else network
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    precision: Callable[[], AbstractContextManager[object]] = nullcontext
    if way == "fast":
        precision = lambda: torch.autocast(device, torch.bfloat16)  # noqa: E731

    def step() -> None:
        with precision():
            logits, aux = compute(images, with_aux=True)
        loss = functional.cross_entropy(logits.float(), masks)
        torch.autograd.backward(loss + _AUX_WEIGHT * functional.cross_entropy(aux.float(), masks))
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)  # gradients are there all the time, and not counted

    return step


def prediction(way: str, height: int, width: int, params: dict[str, Any] | None = None) -> Callable[[], object]:
    """Make the prediction of one image's logits ready; arguments as `training_step` has them."""
    model = _network(params).eval()
    images = torch.rand(1, 3, height, width)
    network: nn.Module = Textbook(model)
    if way == "ours":
        network, images = for_prediction(model), images.contiguous(memory_format=torch.channels_last)

    def predict() -> object:
        with torch.inference_mode():
            return network(images)

    return predict


@torch.inference_mode()
def difference(params: dict[str, Any] | None = None, side: int = 129) -> float:
    """Largest difference of logits between textbook, ours and ours for prediction.

    Raises
    ------
    GaldError
        It is so large that they are not the same network.
    """
    model = _network(params).eval()
    images = torch.rand(1, 3, side, side)
    expected = Textbook(model)(images)[0]
    found = max(float((net(images).logits - expected).abs().max()) for net in (model, for_prediction(model)))
    if not found < _TOLERANCE:
        raise GaldError(f"the logits of the textbook's network and ours differ by {found:.1g}; nothing was timed")
    return found


class _Row(NamedTuple):
    """A figure of both ways, and the ratio that is held to a target: of ours to the textbook's, unless `faster`."""

    what: str
    found: Sequence[float]  # of the textbook, and of ours
    target: float
    unit: str
    faster: bool = False

    def line(self) -> str:
        ratio = self.found[0] / self.found[1] if self.faster else self.found[1] / self.found[0]
        met = ratio >= self.target if self.faster else ratio <= self.target
        bound = f"at least {self.target:g} faster" if self.faster else f"at most {self.target:g}"
        textbook, ours = (
            f"{value:.0f} {self.unit}" if value >= 100 else f"{value:.3g} {self.unit}" for value in self.found
        )
        return f"| {self.what} | {textbook} | {ours} | {ratio:.2f} | {bound} | {'yes' if met else 'NO'} |"


def bench() -> str:
    """Measure both formulations with one and two threads; return the report as Markdown."""
    rows = list(_cpu_rows(None, _STEP, _IMAGES, _ROUNDS))
    if torch.cuda.is_available():
        rows += _cuda_rows(*_CUDA_STEP)
    return report(difference(), rows)


def report(differing: float, rows: list[_Row]) -> str:
    """Write the figures as Markdown."""
    lines = [
        f"{machine()}, torch {torch.__version__}; {_NET}, {_CLASSES} classes, logits differ by {differing:.0e}; times: "
        f"median of {_ROUNDS} rounds in turn; memory: peak beyond weights, gradients and optimiser, of a process of "
        "its own",
        "",
        "| what | textbook | ours | ratio | target | met |",
        "|---|--:|--:|--:|--:|---|",
        *(row.line() for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _cpu_rows(
    params: dict[str, Any] | None, step: tuple[int, int], images: tuple[tuple[int, int], ...], rounds: int
) -> list[_Row]:
    works = [Work(f"{__name__}:training_step", (way, *step, params)) for way in _WAYS]
    name = f"training step ({step[0]}, 3, {step[1]}, {step[1]})"
    rows = []
    for threads in _THREADS:
        tell("step", f"{name}, {_threads(threads)}")
        rows.append(_Row(f"{name}, {_threads(threads)}", _medians(works, threads, rounds), 1.05, "s"))
        peaks = [peak_bytes(work, threads=threads) / 2**20 for work in works]
        rows.append(_Row(f"activation memory of it, {_threads(threads)}", peaks, 0.75, "MiB"))
        for size in images:
            predictions = [Work(f"{__name__}:prediction", (way, *size, params)) for way in _WAYS]
            what = f"prediction (1, 3, {size[0]}, {size[1]}), {_threads(threads)}"
            tell("step", what)
            rows.append(_Row(what, _medians(predictions, threads, rounds), 1.15, "s", faster=True))
    return rows


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _medians(works: list[Work], threads: int, rounds: int) -> list[float]:
    return [statistics.median(each) for each in seconds(works, threads=threads, rounds=rounds)]


def _cuda_rows(batch: int, side: int) -> list[_Row]:
    tell("step", f"training step ({batch}, 3, {side}, {side}) on a GPU")
    slow, fast = (on_gpu(training_step(way, batch, side, None, "cuda")) for way in ("textbook", "fast"))
    name = f"training step ({batch}, 3, {side}, {side}) on {torch.cuda.get_device_name()}, bfloat16 and compiled"
    peaks = [one.whole_bytes / 2**20 for one in (slow, fast)]
    return [
        _Row(name, (slow.seconds, fast.seconds), 2.0, "s", faster=True),
        _Row("peak memory of it, all included", peaks, 1.0, "MiB"),
    ]
