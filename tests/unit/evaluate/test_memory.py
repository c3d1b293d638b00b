"""An evaluation says what it takes of memory, and ends in a message where there is less."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from gald import paths
from gald.errors import GaldError, ParamsError
from gald.evaluate import memory
from gald.evaluate.predictor import Predictor
from gald.evaluate.run import evaluate
from gald.inference import peak_bytes
from gald.params import Run
from gald.train.run import train


@pytest.fixture
def trained(make_run: Callable[..., Run]) -> Run:
    run = make_run(train={"max_iters": 6, "warmup_iters": 0})
    train(run)
    return run


def by(run: Run, **changes: object) -> Run:
    params = run.params.evaluate
    changed = params.model_copy(update={"protocol": params.protocol.model_copy(update=changes)})
    return Run(run.name, run.scale, run.dataset, run.row, run.seed, run.params.model_copy(update={"evaluate": changed}))


def test_the_peak_is_said_once_before_anything_is_predicted(trained: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gald.evaluate"):
        evaluate(trained)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == f"{trained.name}: whole on 64x48 pixels takes up to 1 MB of memory beyond the network's own"
    assert sum("memory" in line for line in said) == 1


def test_the_peak_is_that_of_the_network_and_of_the_largest_image(
    trained: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor(trained, trained.params.evaluate, ["sky", "road", "car", "tree"])
    needed = peak_bytes(4, (2000, 3000), (2000, 3000), 4, trained.params.evaluate.protocol)  # `tiny` is of stride 4
    assert predictor.peak_bytes((2000, 3000)) == needed
    monkeypatch.setattr(memory, "free_bytes", lambda: needed)
    sizes = [(10, 10), (2000, 3000), (3000, 1000)]
    with caplog.at_level(logging.INFO, "gald.evaluate"):
        memory.check("a run", predictor, sizes, tell=True)
        memory.check("a run", predictor, sizes, tell=False)
        memory.check("a run", predictor, [], tell=True)
    (record,) = caplog.records
    assert f"whole on 3000x2000 pixels takes up to {needed / 1e6:.0f} MB" in record.getMessage()
    monkeypatch.setattr(memory, "free_bytes", lambda: needed - 1)
    with pytest.raises(
        ParamsError, match=r"a run: whole on 3000x2000 pixels takes .* choose another evaluate.protocol"
    ):
        memory.check("a run", predictor, sizes, tell=True)


def test_a_protocol_that_no_memory_holds_is_refused_before_anything_is_predicted(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "__call__", None)
    for changes in ({"scales": (1000.0,)}, {"window": (100_000, 100_000)}):
        with pytest.raises(ParamsError, match=r"takes \d+\.\d GB of memory beyond the network's own, but .* are free"):
            evaluate(by(trained, **changes))
    assert not paths.metrics(trained.name).exists()


def test_memory_that_runs_out_is_named(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("a bug"),
    ]
    for error in errors:
        monkeypatch.setattr(Predictor, "__call__", Mock(side_effect=error))
        with pytest.raises(Exception, match=r"memory ran out: whole on 64x48 pixels takes about 1 MB|a bug") as caught:
            evaluate(trained)
        if error is errors[-1]:  # no matter of memory
            assert caught.value is error
        else:
            assert isinstance(caught.value, GaldError)
            assert caught.value.__cause__ is error


def test_a_gpus_memory_is_not_held_against_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 0)
    predictor = SimpleNamespace(model=SimpleNamespace(mean=SimpleNamespace(device=torch.device("cuda"))))
    memory.check("a run", predictor, [(1000, 1000)], tell=True)
