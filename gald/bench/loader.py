"""What a training sample takes to read and augment, beside the same recipe through torchvision.

One process, one thread; every way of every round is timed right after the other, so that a busy machine slows all of
them. What is timed of ours is what a training calls. Files lie in the system's page cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gald import paths
from gald._torchvision import import_with_torchvision
from gald.bench._measure import machine, tell
from gald.bench._scenes import ADE20K, CITYSCAPES, Scenes, data_in
from gald.datasets import IGNORE_INDEX
from gald.datasets._reader import PreparedSplit
from gald.inference import as_input
from gald.params import TrainParams, read_yaml
from gald.process.threads import torch_threads
from gald.train.loader import CachedSamples, batches, make_batch
from gald.transforms import PADDING_COLOUR

_BATCH = 8
_ROUNDS = 9
_CROPS = {"cityscapes": (769, 769), "ade20k": (512, 512)}
_SCALES = (0.5, 2.0)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCHES_OF_WORKERS = {"files": 10, "packed": 100}  # enough that starting threads weighs little


@dataclass(frozen=True)
class _Row:
    """One line of the table: ms a sample of each round, and the same of what it is held against."""

    what: str
    taken: list[float]
    against: list[float] | None = None
    target: float | None = None

    def line(self) -> str:
        median = statistics.median(self.taken)
        cells = [self.what, f"{median:.2f}", f"{min(self.taken):.2f} to {max(self.taken):.2f}", "", "", ""]
        if self.against is not None:
            ratio = statistics.median(self.against) / median
            cells[3] = f"{ratio:.2f}"
            if self.target is not None:
                cells[4:] = [f"{self.target:g}", "yes" if ratio >= self.target else "NO"]
        return f"| {' | '.join(cells)} |"


def bench() -> str:
    """Time our feed and torchvision's; return the report as Markdown."""
    root = paths.STATE / "bench" / "loader"
    with torch_threads(1), data_in(root):
        tables = [_compared(scenes) for scenes in (CITYSCAPES, ADE20K)]
        tables.append(_workers(CITYSCAPES))
    heading = f"{machine()}; one thread, batches of {_BATCH}, {_ROUNDS} rounds; data kept in {root}"
    return "\n\n".join([heading, *tables]) + "\n"


def _compared(scenes: Scenes) -> str:
    """Time every way of feeding one benchmark, side by side."""
    folder = _written(scenes)
    params = _params(scenes, workers=0)
    ours = {store: _samples(scenes, folder, store) for store in ("files", "packed")}
    rival = _Torchvision(folder, scenes, params.crop_size)
    buffer = torch.empty(_BATCH, 3, *params.crop_size).to(memory_format=torch.channels_last)
    ways: dict[str, Callable[[int], object]] = {"torchvision uint8": rival.crops, "torchvision float": rival.inputs}
    for store, samples in ours.items():
        ways[f"{store} uint8"] = partial(make_batch, samples, params)
        ways[f"{store} float"] = partial(_inputs, samples, params, buffer)
    taken: dict[str, list[float]] = {way: [] for way in ways}
    tell("loader", f"{scenes.name}, {len(ways)} ways in turn, {_ROUNDS} rounds")
    for turn in range(_ROUNDS):
        for way, run in ways.items():
            run(2 * turn)  # not timed: in a training a batch follows another of its kind, and finds its caches warm
            taken[way].append(_milliseconds(partial(run, 2 * turn + 1)) / _BATCH)
    targets = {"files uint8": 1.6, "files float": 1.6, "packed uint8": 30.0, "packed float": 15.0}
    rows = [_Row(way, taken[way]) for way in ("torchvision uint8", "torchvision float")]
    for way in list(ways)[2:]:
        target = targets[way] if scenes is CITYSCAPES else None
        rows.append(_Row(f"ours, {way}", taken[way], taken[f"torchvision {way.split()[1]}"], target))
    size = "{1}x{0}".format(*scenes.size)
    crop = "{1}x{0}".format(*params.crop_size)
    title = f"{size} {scenes.suffix[1:].upper()} of {scenes.megabytes(folder):.2f} MB, crop {crop}, scale 0.5 to 2:"
    return f"{title}\n\n{_table(rows, 'times torchvision')}"


def _workers(scenes: Scenes) -> str:
    """Time batches made by one and by two loader threads."""
    folder = _written(scenes)
    rows = []
    for store, count in _BATCHES_OF_WORKERS.items():
        tell("loader", f"{scenes.name}, one loader thread and two, {store}")
        samples = _samples(scenes, folder, store)
        taken: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(-(-_ROUNDS // 2)):
            for workers, found in taken.items():
                params = _params(scenes, workers=workers, max_iters=count)
                found.append(_milliseconds(partial(_exhaust, samples, params)) / (count * _BATCH))
        rows += [_Row(f"{store}, one worker", taken[1]), _Row(f"{store}, two workers", taken[2], taken[1], 1.8)]
    return f"Loader threads, uint8, {scenes.size[1]}x{scenes.size[0]}:\n\n{_table(rows, 'times one worker')}"


def _written(scenes: Scenes) -> Path:
    """Draw, write and pack the scenes, unless an earlier benchmark has."""
    tell("loader", f"{scenes.name}, {scenes.count} scenes are drawn unless they are there")
    return scenes.write()


def _table(rows: list[_Row], ratio: str) -> str:
    head = f"| what | ms a sample | min to max | {ratio} | target | met |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(row.line() for row in rows)


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def _params(scenes: Scenes, **changes: int) -> TrainParams:
    """The project's own recipe, at the benchmark's crop size."""
    recipe = {"crop_size": _CROPS[scenes.name], "scale_range": _SCALES, "batch_size": _BATCH, "seed": 0}
    return TrainParams.model_validate(read_yaml(paths.PARAMS / "base.yaml")["train"] | recipe | changes)


def _samples(scenes: Scenes, folder: Path, store: Any) -> CachedSamples:
    """Read every sample anew each time, as a training on the whole benchmark does after its first epoch.

    The first time that a file is decoded its pixels are also compared with the index, once in a training.
    """
    samples = CachedSamples(PreparedSplit(folder, ["train"], store=store), scenes.classes, budget=0)
    for index in range(len(samples)):
        samples[index]
    return samples


def _inputs(samples: CachedSamples, params: TrainParams, buffer: Tensor, iteration: int) -> Tensor:
    """Make a batch as the first convolution takes it, into memory used before."""
    images = as_input(make_batch(samples, params, iteration).images, out=buffer)
    mean, std = (torch.tensor(values).repeat(images.shape[-1]) for values in (_MEAN, _STD))
    images.permute(0, 2, 3, 1).flatten(2).sub_(mean).div_(std)  # row by row: loops over three channels are slow
    return images


def _exhaust(samples: CachedSamples, params: TrainParams) -> None:
    for _ in batches(samples, params, 0):
        pass


class _Torchvision:
    """The usual recipe: decode with Pillow, resize the whole image, pad, crop, flip, normalise."""

    def __init__(self, folder: Path, scenes: Scenes, crop: tuple[int, int]) -> None:
        v2: Any = import_with_torchvision("torchvision.transforms.v2")
        self._tensors: Any = import_with_torchvision("torchvision.tv_tensors")
        image, mask = self._tensors.Image, self._tensors.Mask
        split = PreparedSplit(folder, ["train"], store="files")
        self._files = [(folder / row["image"], folder / row["mask"]) for row in split.rows]
        shortest = min(scenes.size)
        self._to_image = v2.ToImage()
        self._crop = v2.Compose(
            [
                v2.RandomResize(round(_SCALES[0] * shortest), round(_SCALES[1] * shortest)),
                v2.RandomCrop(crop, pad_if_needed=True, fill={image: PADDING_COLOUR, mask: IGNORE_INDEX}),
                v2.RandomHorizontalFlip(),
            ]
        )
        types = {image: torch.float32, mask: torch.uint8, "others": None}
        self._normalise = v2.Compose([v2.ToDtype(types, scale=True), v2.Normalize(_MEAN, _STD)])

    def crops(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Make a batch of bytes."""
        return self._stacked(iteration, self._crop)

    def inputs(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Make a batch as the first convolution takes it."""
        return self._stacked(iteration, lambda image, mask: self._normalise(*self._crop(image, mask)))

    def _stacked(self, iteration: int, transform: Callable[..., tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        torch.manual_seed(iteration)
        made = [self._sample(iteration * _BATCH + place, transform) for place in range(_BATCH)]
        return torch.stack([image for image, _ in made]), torch.stack([mask for _, mask in made])

    def _sample(self, place: int, transform: Callable[..., tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        image_file, mask_file = self._files[place % len(self._files)]
        with Image.open(image_file) as image, Image.open(mask_file) as mask:
            return transform(self._to_image(image), self._tensors.Mask(self._to_image(mask)))
