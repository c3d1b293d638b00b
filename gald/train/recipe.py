"""The effective recipe: what a training really does, beside what was planned and what the paper does.

A point or two less than a paper's figure mostly comes from a smaller batch, batch norm over fewer samples, pretrained
weights that never arrived, another crop or a shorter training. So all of these are said before the first iteration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gald.errors import ParamsError
from gald.models.segmentor import Segmentor
from gald.params import Run, RunParams, TrainParams, paper_params
from gald.train.norms import batch_norm_sees
from gald.train.parallel import World


@dataclass(frozen=True)
class Line:
    """One property of a recipe, in words.

    Attributes
    ----------
    what : str
        The property.
    planned, effective : str
        What the params say, and what happens.
    paper : str or None
        What the paper, or else the literature, does; None where that is no matter of the recipe.
    departs : bool
        Whether the training does other than the paper.
    """

    what: str
    planned: str
    effective: str
    paper: str | None = None
    departs: bool = False


def effective_recipe(run: Run, model: Segmentor, samples: int, world: World) -> list[Line]:
    """Describe what a training is about to do.

    Parameters
    ----------
    run : Run
        What was planned.
    model : Segmentor
        The network as it was built, which knows its norms and its pretrained weights.
    samples : int
        Samples to train on.
    world : World
        The processes that train.
    """
    params = run.params.train
    paper = paper_params(run.dataset)
    theirs = {} if paper is None else dict(_planned(paper, None))
    effective = dict(_effective(run.params, model, world))
    lines = []
    for what, planned in _planned(run.params, samples):
        line = Line(what, planned, effective.get(what, planned), theirs.get(what) if what in _COMPARED else None)
        lines.append(replace(line, departs=_departs(line)))
    return [*lines, Line("determinism", params.determinism, reached(params))]


def _departs(line: Line) -> bool:
    if line.paper is None:
        return False
    if line.what == "pretrained":  # from where does not matter, but that all of it arrived
        loaded, _, total = line.effective.split(" tensors")[0].partition(" of ")
        return (line.effective == "none") != (line.paper == "none") or (total != "" and loaded != total)
    if line.what in ("global batch", "batch norm sees"):
        return line.effective.partition(" (")[0] != line.paper
    return line.planned != line.paper


_COMPARED = (
    *("global batch", "batch norm sees", "optimiser", "learning rate", "iterations", "crop", "scale", "flip", "loss"),
    *("auxiliary loss weight", "pretrained", "training splits"),
)


def _planned(run: RunParams, samples: int | None) -> Iterator[tuple[str, str]]:
    """Properties that the params alone decide, in words."""
    params = run.train
    yield "global batch", str(params.batch_size)
    yield "batch norm sees", _planned_norm(params)
    yield "optimiser", _optimiser(params)
    yield "learning rate", _rate(params)
    yield "iterations", str(params.max_iters)
    if samples is not None:
        yield "epochs", f"{params.max_iters * params.batch_size / samples:.1f}"
        yield "samples seen", str(params.max_iters * params.batch_size)
    yield "training splits", ", ".join(params.splits)
    yield "input size", "as prepared" if params.image_size is None else _size(params.image_size)
    yield "crop", _size(params.crop_size)
    yield "scale", "{:g} to {:g}".format(*params.scale_range)
    yield "flip", "yes" if params.flip else "no"
    yield "loss", _loss(params)
    yield "auxiliary loss weight", f"{params.aux_weight:g}" if run.model.aux_head is not None else "no auxiliary head"
    yield "pretrained", _pretrained_plan(run)
    yield "precision", params.precision
    yield "scored on", run.evaluate.split


def _effective(run: RunParams, model: Segmentor, world: World) -> Iterator[tuple[str, str]]:
    """Properties that devices, data and files decide."""
    params = run.train
    each = params.batch_size // (world.size * params.micro_batches)
    product = f"{world.size} x {each} x {params.micro_batches}" if world.size * params.micro_batches > 1 else ""
    if product:
        yield "global batch", f"{params.batch_size} ({product}: devices, samples, micro-batches)"
    yield "batch norm sees", batch_norm_sees(model, params, world)
    if params.loss.name == "ohem" and world.size * params.micro_batches > 1:
        yield "loss", f"{_loss(params)}, of each device's {each} samples"
    coverage = model.coverage
    if coverage is not None:
        yield "pretrained", f"{coverage['loaded']} of {coverage['of']} tensors of {coverage['origin']}"


def _planned_norm(params: TrainParams) -> str:
    return "frozen statistics" if params.batch_norm == "frozen" else f"{params.batch_size} samples"


def _optimiser(params: TrainParams) -> str:
    numbers = f"momentum {params.momentum:g}" if params.optimiser == "sgd" else "betas {:g}, {:g}".format(*params.betas)
    bare = "" if params.decay_norm_and_bias else ", none for norms and biases"
    clipped = "" if params.clip_gradient_norm is None else f", gradients clipped at {params.clip_gradient_norm:g}"
    averaged = "" if params.average_decay is None else f", weights averaged at {params.average_decay:g}"
    return f"{params.optimiser}, {numbers}, weight decay {params.weight_decay:g}{bare}{clipped}{averaged}"


def _rate(params: TrainParams) -> str:
    head = f", head x {params.head_learning_rate_factor:g}" if params.head_learning_rate_factor != 1 else ""
    warm = f", {params.warmup_iters} iterations of warm-up" if params.warmup_iters else ""
    return f"{params.learning_rate:g}, poly {params.power:g}{head}{warm}"


def _loss(params: TrainParams) -> str:
    loss = params.loss
    text = "cross-entropy"
    if loss.name == "ohem":
        text = f"OHEM, threshold {loss.threshold:g}, at least {loss.min_kept} pixels"
    text += ", class weights" if loss.class_weights is not None else ""
    return text + (f", labels smoothed by {loss.label_smoothing:g}" if loss.label_smoothing else "")


def _pretrained_plan(run: RunParams) -> str:
    source = run.model.backbone.options.get("pretrained", "none")
    return "none" if source == "none" else f"from {source}"


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


def reached(params: TrainParams) -> str:
    """Level of determinism of a training that nothing interrupts.

    ``bitwise``: the same commit, params, number of processes and kind of machine give the same weights, bit for bit;
    ``seeded``: only the random numbers are the same.
    """
    if params.device == "cpu" and not params.compile:
        return "bitwise"
    return params.determinism


def as_table(lines: Sequence[Line]) -> str:
    """Spell a recipe as a table of text; what departs from the paper is marked."""
    head = ("", "planned", "effective", "paper")
    rows = [(line.what, line.planned, line.effective, _theirs(line)) for line in lines]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(4)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows))


def _theirs(line: Line) -> str:
    return "" if line.paper is None else f"!  {line.paper}" if line.departs else "same"


def as_record(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Spell a recipe for run.json."""
    return [asdict(line) for line in lines]


def refuse_departures(run: Run, lines: Sequence[Line]) -> None:
    """In strict mode, refuse a training that departs from the paper's recipe.

    Raises
    ------
    ParamsError
        It does, and every departure is named; or there are no params to know the paper's recipe from.
    """
    if run.params.train.strict and all(line.paper is None for line in lines):
        raise ParamsError(
            f"{run.name}: train.strict is on, and there is no folder params with the paper's recipe to compare with; "
            "train where it is, or set train.strict to false"
        )
    departures = [f"{line.what}: {line.effective}, the paper: {line.paper}" for line in lines if line.departs]
    if run.params.train.strict and departures:
        raise ParamsError(
            f"{run.name}: train.strict is on, and the recipe departs from the paper's in {len(departures)}: "
            f"{'; '.join(departures)}; change these, or set train.strict to false"
        )
