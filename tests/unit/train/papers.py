"""Runs of the paper's suite, and what departs from its recipe."""

import functools
from typing import Any

import torch
from torch import nn

from gald.params import Run, TrainParams, load_suite
from gald.train.parallel import World
from gald.train.recipe import effective_recipe
from tests.unit.conftest import REPOSITORY

CPU = torch.device("cpu")


class Pretrained(nn.Module):
    """Stands for a network of which all tensors, or some, are pretrained."""

    def __init__(self, loaded: int = 318) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.coverage: dict[str, Any] = {"loaded": loaded, "of": 318, "origin": "hub:resnet50s"}


@functools.cache
def paper_runs() -> tuple[Run, ...]:
    return load_suite("paper", REPOSITORY / "params").runs


def paper_run(name: str, **changes: Any) -> Run:
    run = next(run for run in paper_runs() if run.dataset == name)
    params = run.params.model_copy(update={"train": run.params.train.model_copy(update=changes)})
    return Run(run.name, run.scale, run.dataset, run.row, run.seed, params)


def departures(run: Run, model: Any, world: World) -> dict[str, str]:
    return {line.what: line.effective for line in effective_recipe(run, model, 2975, world) if line.departs}


def strict(run: Run) -> TrainParams:
    return run.params.train.model_copy(update={"strict": True})
