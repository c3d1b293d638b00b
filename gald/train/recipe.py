"""The effective recipe: what a training really does, beside what was planned and what the paper does.

A point or two less than a paper's figure mostly comes from a smaller batch, batch norm over fewer samples, pretrained
weights that never arrived, another crop or a shorter training. So all of these are said before the first iteration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from gald.errors import ParamsError
from gald.models.segmentor import Segmentor
from gald.params import Run, RunParams, TrainParams, paper_params
from gald.train.norms import batch_norm_sees
from gald.train.parallel import World
from gald.train.planned import loss_in_words, planned


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
    paper = paper_params(run.dataset)
    theirs = {} if paper is None else _theirs(paper)
    effective = dict(_effective(run.params, model, world))
    lines = []
    for what, text in planned(run.params, samples):
        line = Line(what, text, effective.get(what, text), None if what in _TOLD_ALONE else theirs.get(what))
        lines.append(replace(line, departs=paper is not None and _departs(line, run.params.train, paper.train)))
    params = run.params.train
    return [*lines, Line("determinism", params.determinism, reached(params))]


_TOLD_ALONE = ("epochs", "samples seen", "compiled")
"""What follows from other lines and from the benchmark, or is a matter of rounding: told, but not compared."""


def _departs(line: Line, ours: TrainParams, paper: TrainParams) -> bool:
    if line.paper is None:
        return False
    if line.what == "pretrained":  # from where does not matter, but that all of it arrived
        loaded, _, total = line.effective.split(" tensors")[0].partition(" of ")
        return (line.effective == "none") != (line.paper == "none") or (total != "" and loaded != total)
    if line.what in ("global batch", "batch norm sees"):
        return line.effective.partition(" (")[0] != line.paper
    if line.what == "loss":  # as many hard pixels for each sample
        return loss_in_words(ours.loss, ours.batch_size) != loss_in_words(paper.loss, paper.batch_size)
    return line.planned != line.paper


def _theirs(paper: RunParams) -> dict[str, str]:
    """Properties of the paper's recipe, which is written down for one device."""
    found = dict(planned(paper, None))
    return found | {"loss": loss_in_words(paper.train.loss, of=f" of {paper.train.batch_size} samples")}


def _effective(run: RunParams, model: Segmentor, world: World) -> Iterator[tuple[str, str]]:
    """Properties that devices, data and files decide."""
    params = run.train
    parts = world.size * params.micro_batches
    each = params.batch_size // parts
    if parts > 1:
        product = f"{world.size} x {each} x {params.micro_batches}"
        yield "global batch", f"{params.batch_size} ({product}: devices, samples, micro-batches)"
    yield "batch norm sees", batch_norm_sees(model, params, world)
    at_once = "one sample" if each == 1 else f"{each} samples"
    share = params.loss.model_copy(update={"min_kept": params.loss.kept_of(parts)})
    yield "loss", loss_in_words(share, of=f" of the {at_once} that a device sees at once")
    rounded = _in_tf32() if params.precision == "float32" and params.device == "cuda" else []
    if rounded:
        yield "precision", f"float32, {' and '.join(rounded)} in TF32 where the GPU has it"
    coverage = model.coverage
    if coverage is not None:
        yield "pretrained", f"{coverage['loaded']} of {coverage['of']} tensors of {coverage['origin']}"


def _in_tf32() -> list[str]:
    """Operators whose float32 torch rounds to TF32; products only where the environment or the caller asks for it."""
    kinds = {
        "convolutions": torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        "matrix products": torch.backends.cuda.matmul,
    }
    return [name for name, kind in kinds.items() if kind.fp32_precision == "tf32"]


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
    rows = [(line.what, line.planned, line.effective, _verdict(line)) for line in lines]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(4)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows))


def _verdict(line: Line) -> str:
    return "" if line.paper is None else f"!  {line.paper}" if line.departs else "same"


def in_short(lines: Sequence[Line]) -> str:
    """Spell the heart of a recipe in a line; what was planned stands beside what happens where it is another."""
    said = {line.what: line.effective for line in lines}
    said |= {
        line.what: f"{line.effective} (planned: {line.planned})" for line in lines if line.planned != line.effective
    }
    return (
        "batches of {global batch}, batch norm sees {batch norm sees}, learning rate {learning rate}, {iterations} "
        "iterations ({epochs} epochs), crop {crop}, {precision}, compiled: {compiled}, pretrained: {pretrained}, "
        "{determinism}".format(**said)
    )


def as_record(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Spell a recipe for run.json."""
    return [asdict(line) for line in lines]


def changed_since(record: Sequence[dict[str, Any]], earlier: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """Name the properties that some earlier part of a training had otherwise, as on another number of devices.

    Parameters
    ----------
    record : sequence of dict
        Recipe as it is now, see `as_record`.
    earlier : sequence of sequence of dict
        Recipes of the earlier parts.
    """
    before = [{line["what"]: line["effective"] for line in lines} for lines in earlier]
    return [
        line["what"]
        for line in record
        if any(lines.get(line["what"], line["effective"]) != line["effective"] for lines in before)
    ]


def refuse_departures(run: Run, lines: Sequence[Line]) -> None:
    """In strict mode, refuse a training that departs from the paper's recipe.

    Raises
    ------
    ParamsError
        It does, and every departure is named; or nobody knows a recipe of the benchmark.
    """
    if run.params.train.strict and all(line.paper is None for line in lines):
        raise ParamsError(
            f"{run.name}: train.strict is on, and the paper's recipe of {run.dataset} is not known: add it to "
            "gald/params/paper_recipes.yaml, or set train.strict to false"
        )
    departures = [f"{line.what}: {line.effective}, the paper: {line.paper}" for line in lines if line.departs]
    if run.params.train.strict and departures:
        raise ParamsError(
            f"{run.name}: train.strict is on, and the recipe departs from the paper's in {len(departures)}: "
            f"{'; '.join(departures)}; change these, or set train.strict to false"
        )
