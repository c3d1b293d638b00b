import json
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from gald import paths
from gald.errors import TrainingDiverged, TrainingInterrupted
from gald.params import Run
from gald.train import history, loop
from gald.train.averaging import Average
from gald.train.optimiser import Optimiser
from gald.train.precision import Precision
from gald.train.run import train
from tests.unit.train.stopped import stop_at


def weights_of(run: Run) -> dict[str, Tensor]:
    return safetensors.torch.load_file(paths.weights(run.name))


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimiser": "adamw", "learning_rate": 0.002, "decay_norm_and_bias": False, "average_decay": 0.9},
        {"precision": "fp16", "average_decay": 0.99},
        {"precision": "bf16", "optimiser": "adamw", "micro_batches": 2, "clip_gradient_norm": 1.0},
        {"activation_checkpointing": True, "batch_norm": "frozen", "momentum": 0.0},
    ],
    ids=["adamw-average", "fp16-average", "bf16-adamw", "recomputed-frozen"],
)
@pytest.mark.slow
def test_stopping_changes_no_bit_whatever_the_recipe(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any]
) -> None:
    recipe = {"max_iters": 8, "log_every": 3, **recipe}
    unbroken, broken = make_run(train=recipe), make_run("mini/camvid/none-seed1", train=recipe)
    train(unbroken)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(TrainingInterrupted):
            train(broken)
    train(broken)
    expected, found = weights_of(unbroken), weights_of(broken)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    lines = [[line["loss"] for line in history.read(paths.history(run.name))] for run in (unbroken, broken)]
    assert lines[0] == lines[1]


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Copies of the network's tensors: as built, then after every update."""
    copies: list[dict[str, Tensor]] = []

    def copied(model: torch.nn.Module) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in model.state_dict().items()}

    begin, update = Average.__init__, Average.update

    def note_first(self: Average, model: torch.nn.Module, decay: float) -> None:
        begin(self, model, decay)
        copies.append(copied(model))

    def note(self: Average, model: torch.nn.Module, iteration: int) -> None:
        update(self, model, iteration)
        copies.append(copied(model))

    monkeypatch.setattr(Average, "__init__", note_first)
    monkeypatch.setattr(Average, "update", note)
    return copies


def test_published_weights_are_the_average(make_run: Callable[..., Run], followed: list[dict[str, Tensor]]) -> None:
    run = make_run(train={"max_iters": 12, "average_decay": 0.4})
    train(run)
    assert len(followed) == 13
    average = {name: value.double() for name, value in followed[0].items()}
    for iteration, current in enumerate(followed[1:]):
        decay = min(0.4, (1 + iteration) / (10 + iteration))
        for name, value in average.items():
            average[name] = decay * value + (1 - decay) * current[name].double()
    found = weights_of(run)
    assert not torch.allclose(found["head.classifier.weight"], followed[-1]["head.classifier.weight"], atol=1e-5)
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-6, msg=name)
        else:
            assert torch.equal(value, followed[-1][name])


@pytest.mark.slow
def test_an_average_changes_no_bit_of_what_is_averaged(
    make_run: Callable[..., Run], followed: list[dict[str, Tensor]]
) -> None:
    recipe = {"max_iters": 4, "validation": {"every": 2, "split": "test", "samples": 2, "patience": None}}
    train(make_run(train={**recipe, "average_decay": 0.9}))
    plain = make_run(train=recipe)
    train(plain)
    for name, value in weights_of(plain).items():
        assert torch.equal(followed[-1][name], value), name


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.slow
def test_half_precision_trains_and_its_weights_and_logits_stay_float32(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    kinds: list[tuple[torch.dtype, torch.dtype]] = []
    real = loop.segmentation_loss

    def note(scores: Any, *args: Any, **options: Any) -> Any:
        kinds.append((scores.logits.dtype, scores.aux_logits.dtype))
        return real(scores, *args, **options)

    monkeypatch.setattr(loop, "segmentation_loss", note)
    run = make_run(train={"max_iters": 8, "log_every": 4, "precision": precision})
    train(run)
    assert set(kinds) == {(torch.float32, torch.float32)}
    lines = history.read(paths.history(run.name))
    assert lines[-1]["loss"] < lines[0]["loss"]
    half = weights_of(run)
    assert {value.dtype for value in half.values()} == {torch.float32, torch.int64}
    whole = make_run(train={"max_iters": 8})
    train(whole)
    assert not torch.equal(weights_of(whole)["backbone.stem.0.weight"], half["backbone.stem.0.weight"])


def test_an_overflow_of_fp16_skips_the_update_and_leaves_a_valid_history(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: scaler(device, init_scale=2.0**26))
    updates: list[float] = []
    step = Optimiser.step
    monkeypatch.setattr(Optimiser, "step", lambda self, rate: (updates.append(rate), step(self, rate))[1])
    run = make_run(train={"max_iters": 16, "log_every": 4, "precision": "fp16", "clip_gradient_norm": 1.0})
    train(run)
    assert 0 < len(updates) < 16
    lines = [json.loads(line, parse_constant=pytest.fail) for line in paths.history(run.name).read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [4, 8, 12, 16]
    assert all(value.isfinite().all() for value in weights_of(run).values())


def test_gradients_that_no_scale_makes_finite_are_told(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(self: Precision, optimiser: Optimiser) -> None:
        optimiser.param_groups[0]["params"][0].grad.fill_(float("nan"))
        unscale(self, optimiser)

    unscale = Precision.unscale
    monkeypatch.setattr(Precision, "unscale", note)
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: scaler(device, init_scale=2.0**-6))
    run = make_run(train={"max_iters": 8, "precision": "fp16"})
    with pytest.raises(TrainingDiverged, match=r"iteration 6: the loss is \d.*, the gradient's norm nan"):
        train(run)


@pytest.mark.slow
def test_the_layout_of_memory_changes_numbers_by_rounding_only(make_run: Callable[..., Run]) -> None:
    runs = [
        make_run(f"mini/camvid/none-seed{int(last)}", train={"max_iters": 4, "channels_last": last})
        for last in (False, True)
    ]
    for run in runs:
        train(run)
    first, second = map(weights_of, runs)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-4, msg=name)
