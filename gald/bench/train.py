"""Training beside a plain loop of torch: images a second, the wait for data, and what the loop itself costs.

The plain loop has the same network, batches and recipe and is written as one writes it first: logits enlarged to the
masks, `cross_entropy`, `torch.optim.SGD`, contiguous memory. Both run in this process in turn, so that a busy machine
slows both. Images are drawn at the benchmark's size and lie in memory, as all of CamVid does after its first epoch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gald.bench._measure import machine, tell
from gald.bench._scenes import Scenes
from gald.datasets import IGNORE_INDEX, load_spec
from gald.datasets._samples import Sample
from gald.inference import channels_last
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import Run, RunParams, TrainParams, find_run
from gald.process.threads import torch_threads
from gald.train import loop
from gald.train.loader import Samples, batches
from gald.train.norms import training_mode
from gald.train.optimiser import Optimiser
from gald.train.parallel import World
from gald.train.precision import Precision
from gald.train.run import reproducible
from gald.train.seeding import seed_dropout

_RUNS = {"mini": "mini/cityscapes/none-seed0", "CamVid cpu": "camvid_cpu/camvid/none-seed0"}
_SIZES = {"mini": (96, 192), "CamVid cpu": (360, 480)}
_ITERATIONS = {"mini": 20, "CamVid cpu": 12}  # of a round
_ROUNDS = 5
_DRAWN = 24
_AT_LEAST, _WAITED, _OVERHEAD = 1.0, 0.2, 0.03


def bench() -> str:
    """Train both recipes both ways; return the report as Markdown."""
    lines = [
        f"{machine()}, torch {torch.__version__}; {_ROUNDS} rounds of both in turn, after one that warms up",
        "",
        "| what | figure | plain loop | ratio | target | met |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name, run in _RUNS.items():
        tell("train", f"{name}, both ways in turn, {_ROUNDS} rounds")
        lines += _rows(name, measure(comparable(find_run(run), _ITERATIONS[name]), _SIZES[name], _ROUNDS))
    return "\n".join(lines) + "\n"


@dataclass
class Figures:
    """What the rounds found; images a second of each way, and shares of the time of ours.

    Attributes
    ----------
    ours, plain : list of float
        Images a second.
    waited : list of float
        Share of the time until batches were there.
    overhead : list of float
        Share of the time outside of batches, forward pass with loss, backward pass and update.
    """

    ours: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    overhead: list[float] = field(default_factory=list)


def comparable(run: Run, iterations: int) -> RunParams:
    """Params of a run, cut to a round, with what the plain loop has too; values of weights do not matter to time."""
    values = run.params.model_dump(mode="json")
    if values["model"]["backbone"].get("pretrained", "none") != "none":
        values["model"]["backbone"]["pretrained"] = "none"
    values["train"] |= {"max_iters": iterations, "log_every": iterations, "warmup_iters": 0, "micro_batches": 1}
    return RunParams.model_validate(values)


def measure(params: RunParams, size: tuple[int, int], rounds: int) -> Figures:
    """Time ours and the plain loop in turn.

    Parameters
    ----------
    params : RunParams
        Recipe, with as many iterations as a round has.
    size : (int, int)
        Height and width of the images to draw.
    rounds : int
        Timed rounds; one before them warms up.
    """
    samples = _drawn(params, size)
    figures = Figures()
    ours, plain = Ours(params, samples), Plain(params, samples)
    images = params.train.batch_size * params.train.max_iters
    with torch_threads(params.train.threads):
        for warm in range(rounds + 1):
            taken, waited, computed = ours.round()
            plain_taken = plain.round()
            if warm:
                figures.ours.append(images / taken)
                figures.plain.append(images / plain_taken)
                figures.waited.append(waited / taken)
                figures.overhead.append((taken - waited - computed) / taken)
    return figures


def _rows(name: str, found: Figures) -> list[str]:
    ours, plain = statistics.median(found.ours), statistics.median(found.plain)
    # Of the rounds' own ratios: both halves of a round met the same machine.
    ratio = statistics.median(mine / other for mine, other in zip(found.ours, found.plain, strict=True))
    waited, overhead = statistics.median(found.waited), statistics.median(found.overhead)
    return [
        f"| {name}: images a second | {ours:.1f} | {plain:.1f} | {ratio:.2f} "
        f"| at least {_AT_LEAST:g} | {_yes(ratio >= _AT_LEAST)} |",
        f"| {name}: share of time waited for data | {100 * waited:.1f} % | | | below {100 * _WAITED:g} % "
        f"| {_yes(waited < _WAITED)} |",
        f"| {name}: share of time beside data, forward, backward, update | {100 * overhead:.1f} % | | "
        f"| below {100 * _OVERHEAD:g} % | {_yes(overhead < _OVERHEAD)} |",
    ]


def _yes(met: bool) -> str:
    return "yes" if met else "NO"


class _Drawn:
    """Samples drawn into memory."""

    def __init__(self, scenes: Scenes) -> None:
        self.num_classes = scenes.classes
        self._samples = [Sample(f"scene{index:02d}", *scenes.draw(index)) for index in range(scenes.count)]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> Sample:
        return self._samples[index]

    def id(self, index: int, /) -> str:
        return self._samples[index].id


def _drawn(params: RunParams, size: tuple[int, int]) -> _Drawn:
    classes = len(load_spec(params.dataset, params.source).classes)
    return _Drawn(Scenes(params.dataset, size, classes, ".png", 1.0, _DRAWN))


def _network(params: RunParams, samples: Samples) -> Segmentor:
    torch.manual_seed(params.train.seed)
    return build_segmentor(params.model, samples.num_classes)


class _Timed(Precision):
    """Notes the time from the beginning of the forward pass to the end of the backward pass, and that of the update."""

    def __init__(self, params: TrainParams) -> None:
        super().__init__(params)
        self.seconds = 0.0
        self._began = 0.0

    def autocast(self) -> Any:
        self._began = time.perf_counter()
        return super().autocast()

    def unscale(self, optimiser: Optimiser) -> None:
        self.seconds += time.perf_counter() - self._began
        super().unscale(optimiser)

    def step(self, optimiser: Optimiser, rate: float) -> None:
        began = time.perf_counter()
        super().step(optimiser, rate)
        self.seconds += time.perf_counter() - began


class Ours:
    """The training loop of the train stage, without the files that it writes between iterations."""

    def __init__(self, params: RunParams, samples: Samples) -> None:
        self._params = params.train
        self._samples = samples
        model = _network(params, samples)
        self.model = channels_last(model) if params.train.channels_last else model
        training_mode(self.model, params.train)
        self._precision = _Timed(params.train)
        self._state = loop.State(self.model, self.model, Optimiser(self.model, params.train), self._precision)

    def round(self) -> tuple[float, float, float]:
        """Train for a round; return its seconds, those waited for batches, and those of forward, backward, update."""
        lines: list[dict[str, Any]] = []
        hooks = loop.Hooks(
            stop=lambda: None,
            keep=lambda _state: None,
            write=lines.append,
            show=lambda _iteration, _loss: None,
            validate=lambda _state: {},
        )
        self._state.iteration, self._precision.seconds = 0, 0.0
        with reproducible(self._params):
            began = time.perf_counter()
            loop.train(self._state, self._samples, self._params, hooks, World(0, 1, torch.device("cpu")))
            taken = time.perf_counter() - began
        images = self._params.max_iters * self._params.batch_size
        waited = sum(line["data_wait"] * images / line["images_per_second"] for line in lines)
        return taken, waited, self._precision.seconds


class Plain:
    """The same training as one writes it first."""

    def __init__(self, params: RunParams, samples: Samples) -> None:
        self._params = params.train
        self._samples = samples
        self.model = _network(params, samples).train()
        body, head = self.model.backbone.parameters(), [
            parameter for name, parameter in self.model.named_parameters() if not name.startswith("backbone.")
        ]  # fmt: skip
        self._optimiser = torch.optim.SGD(
            [{"params": body, "factor": 1.0}, {"params": head, "factor": params.train.head_learning_rate_factor}],
            lr=params.train.learning_rate,
            momentum=params.train.momentum,
            weight_decay=params.train.weight_decay,
        )
        self._criterion: Callable[[Tensor, Tensor], Tensor] = nn.CrossEntropyLoss(ignore_index=IGNORE_INDEX)

    def round(self) -> float:
        """Train for a round; return its seconds."""
        params = self._params
        began = time.perf_counter()
        for iteration, batch in batches(self._samples, params, 0):
            rate = params.learning_rate * (1 - iteration / params.max_iters) ** params.power
            for group in self._optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            seed_dropout(params.seed, iteration)
            images, masks = batch.images.permute(0, 3, 1, 2).float().contiguous() / 255, batch.masks.long()
            output = self.model(images, with_aux=self.model.aux_head is not None, full_size=False)
            loss = self._loss(output.logits, masks)
            if output.aux_logits is not None:
                loss = loss + params.aux_weight * self._loss(output.aux_logits, masks)
            self._optimiser.zero_grad()
            torch.autograd.backward(loss)
            self._optimiser.step()
            loss.item()  # a loop that shows its loss
        return time.perf_counter() - began

    def _loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        size = (masks.shape[-2], masks.shape[-1])
        enlarged = functional.interpolate(logits, size, mode="bilinear", align_corners=self.model.align_corners)
        return self._criterion(enlarged, masks)
