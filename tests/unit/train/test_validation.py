"""Scores on the way: they are the evaluation's, change no bit, and survive a stop."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gald
from gald import files, paths
from gald.datasets._reader import PreparedSplit
from gald.errors import ParamsError, TrainingInterrupted
from gald.evaluate.run import evaluate
from gald.params import Run
from gald.train import checkpoint, history, loop
from gald.train.averaging import Average
from gald.train.parallel import World, joined
from gald.train.run import train
from gald.train.validation import Validation

EVERY_8 = {"every": 8, "split": "test", "samples": None, "patience": None}


def record_of(run: Run) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(paths.run_json(run.name).read_text())
    return record


def curve(run: Run) -> dict[int, float]:
    """Mean IoU by iteration."""
    key = "validation_mean_iou"
    return {line["iteration"]: line[key] for line in history.read(paths.history(run.name)) if key in line}


def score(run: Run, weights: Path, samples: int | None = None) -> float:
    """Score a weights file as a training would."""
    validation = run.params.train.validation.model_copy(update={"samples": samples})
    changed = run.params.train.model_copy(update={"validation": validation})
    run = dataclasses.replace(run, params=run.params.model_copy(update={"train": changed}))
    split = PreparedSplit(paths.prepared("mini", "camvid"), ["test"], store="files", source="segnet")
    with joined(changed) as world:
        return Validation(run, split, Path("nowhere"), world).of(gald.load(weights)).mean_iou


def stop_at(patch: pytest.MonkeyPatch, iteration: int) -> None:
    """Let the next training be told to stop after some iterations."""
    real = loop.train

    def some(state: loop.State, samples: Any, params: Any, hooks: loop.Hooks, world: World) -> None:
        def stop() -> str | None:
            return "a test said so" if state.iteration == iteration else None

        real(state, samples, params, dataclasses.replace(hooks, stop=stop), world)

    patch.setattr(loop, "train", some)


def test_scores_are_the_evaluations_and_change_no_bit(make_run: Callable[..., Run]) -> None:
    run, plain = make_run(train={"validation": EVERY_8}), make_run("mini/camvid/none-seed1")
    train(run)
    train(plain)
    assert files.sha256(paths.weights(run.name)) == files.sha256(paths.weights(plain.name))
    assert record_of(plain)["best"] is None
    assert not paths.best_weights(plain.name).exists()
    found = curve(run)
    assert list(found) == [8, 16, 24, 30]
    evaluate(run)
    assert json.loads(paths.metrics(run.name).read_text())["scores"]["mean_iou"] == found[30]
    last = history.read(paths.history(run.name))[-1]
    assert (
        json.loads(paths.metrics(run.name).read_text())["scores"]["pixel_accuracy"] == last["validation_pixel_accuracy"]
    )


def test_the_best_is_kept_but_is_not_what_is_reported(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    ious = iter([0.2, 0.9, 0.5, 0.1])
    real = Validation.of

    def of(self: Validation, model: Any) -> Any:
        return dataclasses.replace(real(self, model), mean_iou=next(ious))

    run = make_run(train={"validation": EVERY_8})
    with monkeypatch.context() as patch:
        patch.setattr(Validation, "of", of)
        train(run)
    best = record_of(run)["best"]
    file = paths.best_weights(run.name)
    assert best == {"file": file.name, "sha256": files.sha256(file), "iteration": 16, "validation_mean_iou": 0.9}
    assert best["sha256"] != record_of(run)["weights"]["sha256"]
    until_16 = make_run("mini/camvid/none-seed1", train={"validation": EVERY_8})
    with monkeypatch.context() as patch:
        stop_at(patch, 16)
        with pytest.raises(TrainingInterrupted):
            train(until_16)
    kept = checkpoint.load(
        paths.checkpoint_dir(until_16.name),
        {"params": until_16.digest(), "data": files.sha256(paths.manifest("mini", "camvid"))},
    )
    assert kept is not None
    model = gald.load(file).state_dict()
    assert all(value.equal(kept.tensors["model"][name]) for name, value in model.items())
    evaluate(run)
    scored = json.loads(paths.metrics(run.name).read_text())["scores"]["mean_iou"]
    assert scored == score(run, paths.weights(run.name))


@pytest.mark.slow
def test_a_subset_is_its_first_samples(make_run: Callable[..., Run]) -> None:
    run = make_run(train={"validation": {**EVERY_8, "samples": 2}})
    train(run)
    assert curve(run)[30] == score(run, paths.weights(run.name), 2) != score(run, paths.weights(run.name))


@pytest.mark.parametrize(
    "iteration", [12, *(pytest.param(iteration, marks=pytest.mark.slow) for iteration in (3, 8, 19, 27))]
)
def test_resuming_between_validations_changes_nothing(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, iteration: int
) -> None:
    params = {"validation": {**EVERY_8, "every": 5}}
    unbroken, broken = make_run(train=params), make_run("mini/camvid/none-seed1", train=params)
    train(unbroken)
    with monkeypatch.context() as patch:
        stop_at(patch, iteration)
        with pytest.raises(TrainingInterrupted):
            train(broken)
    train(broken)
    assert record_of(broken)["best"] == record_of(unbroken)["best"]
    assert curve(broken) == curve(unbroken)
    for path in (paths.weights, paths.best_weights):
        assert files.sha256(path(broken.name)) == files.sha256(path(unbroken.name))
    assert not paths.checkpoint_dir(broken.name).exists()


def test_without_its_best_weights_a_training_still_ends(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where checkpoints alone were taken along to another machine."""
    ious = iter([0.9, 0.5, 0.4, 0.3])
    real = Validation.of
    monkeypatch.setattr(Validation, "of", lambda *given: dataclasses.replace(real(*given), mean_iou=next(ious)))
    run = make_run(train={"validation": EVERY_8})
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        with pytest.raises(TrainingInterrupted):
            train(run)
    (best,) = paths.checkpoint_dir(run.name).glob("best-*")
    best.unlink()
    train(run)
    assert record_of(run)["best"] is None
    assert not paths.best_weights(run.name).exists()
    assert f"{best}, the weights that validated best, went away" in caplog.text


@pytest.mark.slow
def test_a_kill_after_a_better_one_loses_nothing(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint is of iteration 10, and better weights of 12 were kept when the process died at 14."""
    params = {"validation": {**EVERY_8, "every": 4}}
    unbroken, broken = make_run(train=params), make_run("mini/camvid/none-seed1", train=params)
    train(unbroken)
    with monkeypatch.context() as patch:
        real = loop.train_one_iteration

        def die(state: loop.State, batch: Any, params: Any, iteration: int, *rest: Any) -> Any:
            if iteration == 14:
                raise KeyboardInterrupt
            return real(state, batch, params, iteration, *rest)

        patch.setattr(loop, "train_one_iteration", die)
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    train(broken)
    assert record_of(broken)["best"] == record_of(unbroken)["best"]
    assert files.sha256(paths.best_weights(broken.name)) == files.sha256(paths.best_weights(unbroken.name))


def test_patience_ends_a_training_early_and_says_so(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gald")
    ious = iter([0.2, 0.9, 0.5, 0.1, 0.95])
    real = Validation.of
    monkeypatch.setattr(
        Validation, "of", lambda self, model: dataclasses.replace(real(self, model), mean_iou=next(ious))
    )
    run = make_run(train={"validation": {**EVERY_8, "every": 5, "patience": 2}})
    train(run)
    record = record_of(run)
    assert (record["stopped_early"], record["iterations"], record["best"]["iteration"]) == (True, 20, 10)
    assert list(curve(run)) == [5, 10, 15, 20]
    assert "ended early, after iteration 20 of 30: no validation since that of iteration 10 was better" in caplog.text


def test_patience_survives_a_stop(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    ious = iter([0.9, 0.5, 0.1, 0.95])
    real = Validation.of
    monkeypatch.setattr(
        Validation, "of", lambda self, model: dataclasses.replace(real(self, model), mean_iou=next(ious))
    )
    run = make_run(train={"validation": {**EVERY_8, "every": 5, "patience": 2}})
    with monkeypatch.context() as patch:
        stop_at(patch, 15)  # told to stop in the very iteration that used the patience up
        with pytest.raises(TrainingInterrupted):
            train(run)
    train(run)
    assert (record_of(run)["iterations"], record_of(run)["best"]["iteration"]) == (15, 5)
    assert record_of(run)["stopped_early"]


@pytest.mark.slow
def test_an_average_is_what_is_scored(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(train={"validation": EVERY_8, "average_decay": 0.9})
    train(run)
    assert curve(run)[30] == score(run, paths.weights(run.name))  # what is published is the average
    loaded: list[str] = []
    real = Average.update
    monkeypatch.setattr(Average, "update", lambda self, *rest: (loaded.append(""), real(self, *rest))[1])
    plain = make_run("mini/camvid/none-seed1", train={"validation": EVERY_8})
    train(plain)
    assert not loaded
    assert curve(plain)[8] != curve(run)[8]


@pytest.mark.slow
def test_frozen_norms_stay_frozen_after_a_validation(make_run: Callable[..., Run]) -> None:
    runs = [
        make_run(f"mini/camvid/none-seed{index}", train={"batch_norm": "frozen", "validation": validation})
        for index, validation in enumerate([EVERY_8, {**EVERY_8, "every": 0}])
    ]
    for run in runs:
        train(run)
    assert files.sha256(paths.weights(runs[0].name)) == files.sha256(paths.weights(runs[1].name))
    statistics = {
        name: value for name, value in gald.load(paths.weights(runs[0].name)).state_dict().items() if "running" in name
    }
    assert statistics
    assert all(value.eq(0).all() if "mean" in name else value.eq(1).all() for name, value in statistics.items())


def test_training_images_are_no_validation(make_run: Callable[..., Run]) -> None:
    with pytest.raises((ParamsError, ValueError), match=r"is among train\.splits"):
        make_run(train={"validation": {**EVERY_8, "split": "train"}})


@pytest.mark.slow
def test_a_damaged_checkpoint_does_not_end_the_next_one(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(train={"validation": EVERY_8})
    with monkeypatch.context() as patch:
        stop_at(patch, 20)
        with pytest.raises(TrainingInterrupted):
            train(run)
    newest = paths.checkpoint_dir(run.name) / "000000020.checkpoint"
    newest.write_bytes(bytes(newest.stat().st_size))  # as a power cut may leave it
    with monkeypatch.context() as patch:
        stop_at(patch, 17)
        with pytest.raises(TrainingInterrupted, match="after iteration 17"):
            train(run)
    train(run)
    assert list(curve(run)) == [8, 16, 24, 30]
