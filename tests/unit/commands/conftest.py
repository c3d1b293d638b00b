"""A run to ask questions of."""

import shutil
from collections.abc import Callable

import pytest

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
