"""A training that was stopped goes on, and what else may have changed meanwhile."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from gald import paths
from gald.errors import TrainingInterrupted
from gald.models.segmentor import build_segmentor
from gald.params import Run
from gald.train import run as train_run
from gald.train import start as start_of
from gald.train.recipe import Line, effective_recipe
from gald.train.run import train
from tests.unit.train.stopped import outcome, stop_at

LONGER = [pytest.param(iteration, marks=pytest.mark.slow) for iteration in (1, 10, 29)]


@pytest.mark.parametrize("iteration", [7, 17, *LONGER])
def test_stopping_anywhere_changes_no_bit(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, iteration: int
) -> None:
    unbroken, broken = make_run(), make_run("mini/camvid/none-seed1")
    train(unbroken)
    with monkeypatch.context() as patch:
        stop_at(patch, iteration)
        with pytest.raises(TrainingInterrupted, match=f"after iteration {iteration} of 30, because a test said so"):
            train(broken)
    assert not paths.run_json(broken.name).exists()
    train(broken)
    expected, found = outcome(unbroken), outcome(broken)
    assert found[0] == expected[0]
    assert found[2:] == expected[2:]


def test_params_that_return_go_on_from_their_checkpoints(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an advice that did not help."""
    caplog.set_level("INFO", "gald")
    unbroken = make_run("mini/camvid/none-seed1")
    train(unbroken)
    for rate, iteration in ((0.05, 12), (0.02, 11)):
        with monkeypatch.context() as patch:
            stop_at(patch, iteration)
            with pytest.raises(TrainingInterrupted):
                train(make_run(train={"learning_rate": rate}))
    run = make_run(train={"learning_rate": 0.05})
    train(run)
    assert "going on from iteration 12 of 30" in caplog.text
    assert outcome(run)[0] == outcome(unbroken)[0]
    assert outcome(run)[2:] == outcome(unbroken)[2:]
    assert not list(paths.checkpoint_dir(run.name).parent.glob("none-seed0*"))


def test_other_code_goes_on_and_is_recorded(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        patch.setattr("gald.provenance.code_digest", lambda: "0" * 64)
        with pytest.raises(TrainingInterrupted):
            train(run)
    train(run)
    assert "made by other code" in caplog.text
    record = json.loads(paths.run_json(run.name).read_text())
    assert [origin["code"] for origin in record["resumed_from"]] == ["0" * 64]
    assert record["code"]["digest"] != "0" * 64
    assert record["determinism"] == "seeded"


def test_the_recipe_of_each_part_is_recorded_and_what_changed_is_marked(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on other devices, whose number decides what batch norm sees."""

    def on_two(*given: Any) -> list[Line]:
        return [
            dataclasses.replace(line, effective="2 samples") if line.what == "batch norm sees" else line
            for line in effective_recipe(*given)
        ]

    run = make_run()
    for iteration, patched in ((12, True), (20, False)):
        with monkeypatch.context() as patch:
            stop_at(patch, iteration)
            if patched:
                patch.setattr(train_run, "effective_recipe", on_two)
            with pytest.raises(TrainingInterrupted):
                train(run)
    train(run)
    assert "on another machine (other from here on: batch norm sees); run.json says so" in caplog.text
    record = json.loads(paths.run_json(run.name).read_text())
    (origin,) = record["resumed_from"]
    assert {line["what"]: line["effective"] for line in origin["recipe"]}["batch norm sees"] == "2 samples"
    assert [(line["what"], line["effective"]) for line in record["recipe"] if line["changed"]] == [
        ("batch norm sees", "4 samples")
    ]
    assert record["determinism"] == "seeded"


def test_a_checkpoint_of_another_network_is_left_aside(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        patch.setattr(start_of, "build_segmentor", lambda model, classes: build_segmentor(model, classes + 1))
        with pytest.raises(TrainingInterrupted):
            train(run)
    train(run)
    assert "is of another network" in caplog.text
    assert json.loads(paths.run_json(run.name).read_text())["resumed_from"] == []
