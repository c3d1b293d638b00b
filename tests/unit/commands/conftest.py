"""A run to ask questions of, and an empty folder to work in."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gald.evaluate.run import evaluate
from gald.params import Run
from gald.train.run import train
from tests.unit.conftest import REPOSITORY


@pytest.fixture
def trained(make_run: Callable[..., Run]) -> Run:
    shutil.copytree(REPOSITORY / "params", "params")
    run = make_run(train={"max_iters": 6, "warmup_iters": 0})
    train(run)
    evaluate(run)
    return run


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, and compute with one thread: on a busy machine several wait for each other."""
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
