"""Trials: what they say, and that they leave the run alone."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gald import cli, paths
from gald.errors import GaldError, ParamsError, TrainingInterrupted
from gald.params import Run
from gald.train import batch_search, history, trial
from gald.train.batch_search import extrapolated, find_batch, largest_fitting
from gald.train.run import train


@pytest.fixture
def of_run(make_run: Callable[..., Run]) -> Run:
    return make_run(train={"max_iters": 24, "checkpoint_every": 5})


def everything() -> dict[Path, bytes]:
    """All files of the repository but those of trials."""
    trials = paths.STATE / "trials"
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and trials not in path.parents}


def test_overfitting_learns_the_samples_and_leaves_the_run_alone(of_run: Run) -> None:
    train(of_run)
    before = everything()
    text = trial.overfit(of_run, 2, 80)
    assert everything() == before
    found = json.loads((paths.trial_dir(of_run.name) / "overfit.json").read_text())
    assert (found["samples"], found["iterations"]) == (2, 80)
    assert found["mean_iou"] > 0.6
    assert f"the mIoU of these samples {100 * found['mean_iou']:.1f} %" in text
    lines = history.read(paths.trial_dir(of_run.name) / "history.jsonl")
    assert lines[-1]["iteration"] == 80
    assert lines[-1]["learning_rate"] < 0.05 * 0.03  # the schedule ends with the trial


def test_overfitting_sees_the_first_samples_without_augmentation(of_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    recipes = []

    def look(_state: object, batch: object, params: object, *rest: object) -> object:
        seen.update(batch.ids)  # type: ignore[attr-defined]
        recipes.append(params)
        return real(_state, batch, params, *rest)  # type: ignore[arg-type]

    real = trial.loop.train_one_iteration
    monkeypatch.setattr(trial.loop, "train_one_iteration", look)
    trial.overfit(of_run, 3, 2)
    assert seen == {"train/scene00", "train/scene01", "train/scene02"}
    assert (recipes[0].scale_range, recipes[0].flip, recipes[0].max_class_ratio) == ((1, 1), False, 1)
    assert set(recipes[0].photometric.model_dump().values()) == {0}
    assert recipes[0].max_iters == 2


def test_a_limited_trial_is_the_beginning_of_the_run(of_run: Run, make_run: Callable[..., Run]) -> None:
    text = trial.limited(of_run, 7)
    assert "images a second" in text
    assert "iterations 4 to 7 of 24" in text
    assert not paths.run_dir(of_run.name).exists()
    assert not paths.checkpoint_dir(of_run.name).exists()
    (line,) = history.read(paths.trial_dir(of_run.name) / "history.jsonl")
    assert line["iteration"] == 7
    train(make_run(train={"max_iters": 24, "log_every": 1}))
    lines = history.read(paths.history(of_run.name))
    assert line["loss"] == pytest.approx(sum(one["loss"] for one in lines[3:7]) / 4, rel=1e-12)
    assert line["learning_rate"] == lines[6]["learning_rate"]  # the schedule is that of the whole run


@pytest.mark.parametrize("limit", [1, 24])
def test_limits_at_both_ends(of_run: Run, limit: int) -> None:
    assert f"to {limit} of 24" in trial.limited(of_run, limit)


@pytest.mark.slow
def test_a_profile_is_a_table_and_a_trace(make_run: Callable[..., Run], capfd: pytest.CaptureFixture[str]) -> None:
    run = make_run(train={"max_iters": 4})
    text = trial.profile(run)
    assert "USDT" not in capfd.readouterr().err
    trace = json.loads((paths.trial_dir(run.name) / "trace.json").read_text())
    names = {event.get("name") for event in trace["traceEvents"]}
    assert "aten::convolution_backward" in names
    rows = [line for line in text.splitlines() if line.strip().startswith(("aten::", "autograd::", "ProfilerStep"))]
    assert 10 <= len(rows) <= 20
    assert "trace.json" in text
    assert not paths.run_dir(run.name).exists()


def test_impossible_trials_are_refused(of_run: Run) -> None:
    with pytest.raises(ParamsError, match=r"--overfit 11: .* has 10 samples to train on"):
        trial.overfit(of_run, 11)
    with pytest.raises(ParamsError, match="--overfit 0: give a number of at least 1"):
        trial.overfit(of_run, 0)
    with pytest.raises(ParamsError, match="--limit 0: give a number of at least 1"):
        trial.overfit(of_run, 1, 0)
    with pytest.raises(ParamsError, match=r"--limit 25: .* has 24 iterations"):
        trial.limited(of_run, 25)


def test_a_stopped_trial_says_that_nothing_is_kept(of_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trial.history.Progress.show

    def show(self: history.Progress, iteration: int, loss: float) -> None:
        real(self, iteration, loss)
        if iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trial.history.Progress, "show", show)
    with pytest.raises(
        TrainingInterrupted, match=r"after iteration \d of 24, because it was sent SIGTERM; trials start"
    ):
        trial.overfit(of_run, 1)
    assert not paths.checkpoint_dir(of_run.name).exists()


@pytest.mark.parametrize("fitting", [1, 2, 3, 4, 5, 63, 64, 65, 100, 4095, 4096, 9999])
def test_the_largest_that_fits_is_found_in_few_tries(fitting: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= fitting

    assert largest_fitting(fits) == (0 if fitting < 2 else min(fitting, 4096))
    assert len(tried) < 25


def test_a_batch_for_the_cpu_is_estimated(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(train={"crop_size": [128, 128]})
    monkeypatch.setattr(batch_search, "free_bytes", lambda: 2**30)
    text = find_batch(run)
    assert "(an estimate: steps of 2 and 6 took" in text
    found = int(text.split("a batch of ")[1].split()[0])
    assert 10 < found < 2000
    assert not paths.run_dir(run.name).exists()
    monkeypatch.setattr(batch_search, "free_bytes", lambda: 0)
    with pytest.raises(GaldError, match="not even a batch of 2 fits: it needs some"):
        find_batch(run)


def test_estimates_need_two_peaks_that_differ() -> None:
    assert extrapolated({2: 300, 6: 700}, 50) == 0
    with pytest.raises(GaldError, match="took no more memory"):
        extrapolated({2: 300, 6: 300}, 1000)


def test_flags_that_make_no_sense_together(
    of_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gald.params.find_run", lambda _: of_run)
    for flag in ("--profile", "--find-batch"):
        assert cli.main(["train", of_run.name, flag, "--limit", "3"]) != 0
        assert "--limit goes with --overfit or alone" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            cli.main(["train", of_run.name, flag, "--overfit", "3"])
