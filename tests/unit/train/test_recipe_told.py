"""The recipe in words: before the first iteration, in the run's record and in tables."""

import json
from collections.abc import Callable

import pytest
import torch

from gald import paths
from gald.errors import ParamsError
from gald.models.segmentor import build_segmentor
from gald.params import Run
from gald.train import loop, recipe
from gald.train.parallel import World
from gald.train.recipe import Line, as_record, as_table, effective_recipe
from gald.train.run import train
from tests.unit.train.papers import CPU, Pretrained, paper_run


def test_the_words_of_the_papers_recipe_on_eight_devices() -> None:
    lines = {
        line.what: line for line in effective_recipe(paper_run("cityscapes"), Pretrained(), 2975, World(0, 8, CPU))
    }
    assert lines["global batch"].effective == "8 (8 x 1 x 1: devices, samples, micro-batches)"
    assert lines["batch norm sees"].effective == "8 samples"
    assert lines["samples seen"].effective == "400000"
    assert lines["epochs"].effective == "134.5"
    assert lines["iterations"].effective == "50000"
    assert lines["early stop"].effective == "never"
    assert lines["data"].effective == "full cityscapes, fine"
    assert lines["crop"].effective == "769x769"
    assert lines["colours"].effective == "as they are"
    assert lines["precision"].effective == "float32, convolutions in TF32 where the GPU has it"
    assert lines["pretrained"].effective == "318 of 318 tensors of hub:resnet50s"
    assert lines["scored by"].effective.endswith(" on val")
    assert lines["determinism"].planned == lines["determinism"].effective == "seeded"


def test_a_table_marks_what_departs() -> None:
    lines = [
        Line("crop", "32x48", "32x48", "769x769", departs=True),
        Line("flip", "yes", "yes", "yes"),
        Line("precision", "fp16", "fp16"),
    ]
    assert as_table(lines).splitlines() == [
        "           planned  effective  paper",
        "crop       32x48    32x48      !  769x769",
        "flip       yes      yes        same",
        "precision  fp16     fp16",
    ]
    assert as_record(lines)[0] == {
        "what": "crop", "planned": "32x48", "effective": "32x48", "paper": "769x769", "departs": True
    }  # fmt: skip


def test_strict_refuses_before_the_first_iteration(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train_one_iteration", lambda *_: pytest.fail("it trained"))
    run = make_run(train={"strict": True})
    with pytest.raises(
        ParamsError, match=r"train\.strict is on.* departs .* in \d+: .*crop: 32x48, the paper: 360x480"
    ):
        train(run)
    assert not paths.run_json(run.name).exists()
    assert not paths.weights(run.name).exists()


def test_a_training_that_is_refused_leaves_the_finished_one_as_it_is(make_run: Callable[..., Run]) -> None:
    run = make_run(train={"strict": True})
    paths.run_json(run.name).parent.mkdir(parents=True)
    paths.run_json(run.name).write_text("of an earlier training")
    with pytest.raises(ParamsError, match=r"train\.strict is on"):
        train(run)
    assert paths.run_json(run.name).read_text() == "of an earlier training"


def test_products_that_the_environment_rounds_to_tf32_are_named() -> None:
    """Images of GPU vendors set a variable for it, which torch reads as it does this setting."""
    run = paper_run("cityscapes")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        lines = {line.what: line for line in effective_recipe(run, Pretrained(), 2975, World(0, 8, CPU))}
    finally:
        torch.set_float32_matmul_precision(before)
    assert lines["precision"].effective == ("float32, convolutions and matrix products in TF32 where the GPU has it")


def test_strict_without_a_paper_to_compare_with_is_refused(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "paper_params", lambda dataset: None)
    run = make_run(train={"strict": True})
    with pytest.raises(
        ParamsError,
        match=r"train\.strict is on, and the paper's recipe of camvid is not known: .* set train\.strict to",
    ):
        train(run)


def test_a_run_records_and_tells_its_recipe(make_run: Callable[..., Run], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gald")
    run = make_run(train={"max_iters": 4, "micro_batches": 2})
    train(run)
    recorded = json.loads(paths.run_json(run.name).read_text())["recipe"]
    by_name = {line["what"]: line for line in recorded}
    assert by_name["global batch"]["effective"] == "4 (1 x 2 x 2: devices, samples, micro-batches)"
    assert by_name["batch norm sees"] == {
        "what": "batch norm sees", "planned": "4 samples", "effective": "2 samples", "paper": "8 samples",
        "departs": True, "changed": False,
    }  # fmt: skip
    assert by_name["samples seen"]["effective"] == "16"
    assert by_name["determinism"]["effective"] == "bitwise"
    told = [message for message in caplog.messages if "batches of 4 (1 x 2 x 2" in message]
    assert len(told) == 1
    assert "micro-batches) (planned: 4), batch norm sees 2 samples (planned: 4 samples), learning rate 0.05" in told[0]
    assert "float32, compiled: no, pretrained: none, bitwise" in told[0]
    first = next(index for index, message in enumerate(caplog.messages) if "training 4 iterations" in message)
    assert caplog.messages.index(told[0]) < first


def test_the_words_of_a_run_on_one_device(make_run: Callable[..., Run]) -> None:
    run = make_run(train={"decay_norm_and_bias": False, "clip_gradient_norm": 1.5, "average_decay": 0.99})
    model = build_segmentor(run.params.model, 4)
    lines = {line.what: line for line in effective_recipe(run, model, 10, World(0, 1, CPU))}
    assert lines["optimiser"].effective == (
        "sgd, momentum 0.9, weight decay 0.0005, none for norms and biases, gradients clipped at 1.5, "
        "weights averaged at 0.99"
    )
    assert lines["learning rate"].effective == "0.05, poly 0.9, head x 2, 3 iterations of warm-up"
    assert lines["pretrained"].effective == "none"
    assert lines["pretrained"].departs
    assert lines["global batch"].effective == "4"
