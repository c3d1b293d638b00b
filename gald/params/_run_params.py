"""A run's params as a whole, and what its sections allow one by one but not together.

The modules refuse the same when they are built. Here it is said for all rows of a suite at once, hours earlier and
without importing torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator

from gald.datasets import IGNORE_INDEX, load_spec
from gald.params._sections import EvaluateParams, ModelParams, Section, TrainParams
from gald.plugins import nearest


class RunParams(Section):
    """Everything that decides a run's numbers."""

    edition: Literal["mini", "full"]
    dataset: str
    source: str  # published form of the benchmark
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams

    @model_validator(mode="after")
    def _check(self) -> RunParams:
        found = "; ".join(_problems(self))
        if found:
            raise ValueError(found)
        return self


def _problems(params: RunParams) -> Iterator[str]:
    """Name every impossible combination of a run's params, with what to change."""
    yield from _splits(params)
    yield from _divisors(params)
    yield from _widths(params.model)
    yield from _mask_size(params)
    yield from _training(params)
    yield from _lone_samples(params)


def _splits(params: RunParams) -> Iterator[str]:
    known = load_spec(params.dataset, params.source).labelled
    named = [("train.splits", split) for split in params.train.splits] + [("evaluate.split", params.evaluate.split)]
    for key, split in named:
        if split not in known:
            yield f"{key}: {params.dataset} has no split {split!r}; {nearest(split, known)}"
    if params.evaluate.split in params.train.splits:
        yield f"evaluate.split {params.evaluate.split!r} is among train.splits: scores would be of no use"


def _divisors(params: RunParams) -> Iterator[str]:
    model = params.model
    for part, parts, narrowing in (
        (model.aggregation, "groups", "reduction"),
        (model.distribution, "heads", "key_reduction"),
    ):
        if parts not in part.options or narrowing not in part.options:
            continue
        count, inner = part.options[parts], model.channels // part.options[narrowing]
        if model.channels % count or inner % count or inner == 0:
            yield (
                f"model.channels {model.channels}: the {count} {parts} of {part.name!r} must divide it and its "
                f"{inner} inner channels; change {parts}, {narrowing} or model.channels"
            )


def _widths(model: ModelParams) -> Iterator[str]:
    """Name options that leave a part of the network without channels, or ask for more of something than there is."""
    aggregation, options = model.aggregation.name, model.aggregation.options
    if aggregation == "psp" and len(options["bins"]) > model.channels:
        yield f"model.channels {model.channels} do not suffice for the {len(options['bins'])} bins of 'psp': give fewer"
    if aggregation == "dual_gcn" and (model.channels < 2 or model.channels < options["reduction"]):
        yield (
            f"model.channels {model.channels} leave no node of 'dual_gcn' at reduction {options['reduction']}: lower "
            "it, or raise model.channels"
        )
    if aggregation == "ema" and options["gradient_steps"] > options["steps"]:
        yield f"model.aggregation.gradient_steps {options['gradient_steps']} exceeds its steps, {options['steps']}"
    if model.backbone.name == "tiny" and model.backbone.options["norm"] == "group":
        for key in ("width", "stem_width"):
            width = model.backbone.options[key]
            if width > 15 and width % (width // 8):
                yield (
                    f"model.backbone.{key} {width} is no number of channels that groups of 8 share: give a multiple of "
                    "8, or norm: batch"
                )


def _mask_sides(params: RunParams) -> list[int] | None:
    """Sides of the map that a mask distribution's unpadded convolutions leave of a crop; None without one."""
    stride = params.model.backbone.options.get("output_stride")
    if params.model.distribution.name != "mask" or stride is None:
        return None
    sides = [-(-side // stride) for side in params.train.crop_size]
    for _ in range(params.model.distribution.options["reductions"]):
        sides = [(side - 1) // 2 for side in sides]
    return sides


def _mask_size(params: RunParams) -> Iterator[str]:
    """Refuse a mask distribution on a map that its convolutions would use up."""
    sides = _mask_sides(params)
    if sides is not None and min(sides) < 1:
        stride = params.model.backbone.options["output_stride"]
        smallest = 2 ** (params.model.distribution.options["reductions"] + 1) - 1
        yield (
            f"train.crop_size {list(params.train.crop_size)} at output stride {stride} leaves too small a map for "
            f"distribution 'mask' with its reductions; it needs {smallest} positions a side ({smallest * stride} "
            "pixels): enlarge the crop or lower distribution.reductions"
        )


def one_value_of_a_sample(params: RunParams) -> str | None:
    """Where a norm of the network sees one value a channel of a sample, so that it needs two; None: nowhere."""
    aggregation = params.model.aggregation
    if aggregation.name == "psp" and 1 in aggregation.options["bins"]:
        return "the 1x1 bin of aggregation 'psp'"
    if aggregation.name == "aspp":
        return "the pooled image of aggregation 'aspp'"
    return "the 1x1 mask of distribution 'mask'" if _mask_sides(params) == [1, 1] else None


def _lone_samples(params: RunParams) -> Iterator[str]:
    """Refuse batch norm on a single value a channel, whose variance is none."""
    train, what = params.train, one_value_of_a_sample(params)
    if what is not None and train.batch_norm != "frozen" and train.batch_size == train.micro_batches:
        yield (
            f"train.batch_size {train.batch_size} in micro_batches {train.micro_batches} gives a device one sample at "
            f"once, and batch norm cannot train on {what}: make the batch twice micro_batches or more, or set "
            "train.batch_norm to 'frozen'"
        )


def _training(params: RunParams) -> Iterator[str]:
    """Refuse what the training recipe says of classes and of scores on the way."""
    spec, loss, validation = load_spec(params.dataset, params.source), params.train.loss, params.train.validation
    if len(spec.classes) > IGNORE_INDEX:
        yield (
            f"dataset: {params.dataset} has {len(spec.classes)} classes; masks have 8 bits, and {IGNORE_INDEX} marks "
            f"what is ignored: merge classes until there are {IGNORE_INDEX} at most"
        )
    if loss.class_weights is not None and len(loss.class_weights) != len(spec.classes):
        yield (
            f"train.loss.class_weights has {len(loss.class_weights)} weights, but {params.dataset} has "
            f"{len(spec.classes)} classes: give one for each, or null"
        )
    if loss.class_weights is not None and not any(loss.class_weights):
        yield "train.loss.class_weights are all 0, so that nothing would be learnt"
    if validation.every == 0:
        if validation.patience is not None:
            yield "train.validation.patience counts validations, but train.validation.every is 0: set both or neither"
        return
    if validation.split not in spec.labelled:
        found = nearest(validation.split, spec.labelled)
        yield f"train.validation.split: {params.dataset} has no split {validation.split!r}; {found}"
    if validation.split in params.train.splits:
        yield (
            f"train.validation.split {validation.split!r} is among train.splits: its scores would say nothing of other "
            "images; leave it out of train.splits, or set train.validation.every to 0"
        )
