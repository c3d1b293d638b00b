import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gald
from gald import cli, files, paths
from gald.commands.export_weights import export_weights
from gald.errors import GaldError, ModelError, ParamsError, StaleMetrics
from gald.params import Run
from gald.train.run import train

VALIDATED = {"max_iters": 6, "validation": {"every": 2, "split": "test", "samples": 2, "patience": None}}


@pytest.fixture
def trained(make_run: Callable[..., Run]) -> Run:
    run = make_run(train=VALIDATED)
    train(run)
    return run


def test_the_file_is_the_runs_and_loads_anywhere(
    trained: Run, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path_factory.mktemp("elsewhere") / "net.safetensors"
    for best, source in ((False, paths.weights), (True, paths.best_weights)):
        text = export_weights(trained, out, best=best)
        assert f"gald.load({str(out)!r})" in text
        assert files.sha256(out) == files.sha256(source(trained.name))
    monkeypatch.chdir(out.parent)  # where there is no repository
    model = gald.load("net.safetensors")
    assert model.class_names == ("sky", "road", "car", "tree")
    assert model(torch.zeros(1, 3, 32, 48)).logits.shape == (1, 4, 32, 48)


def test_what_is_not_there_or_not_as_promised(make_run: Callable[..., Run], trained: Run) -> None:
    out = Path("net.safetensors")
    with pytest.raises(StaleMetrics, match=r"run\.json is missing: run `gald train mini/camvid/other-seed0` first"):
        export_weights(make_run("mini/camvid/other-seed0"), out)
    with pytest.raises(StaleMetrics, match="params have changed since it was trained"):
        export_weights(make_run(train={**VALIDATED, "momentum": 0.8}), out)
    with pytest.raises(GaldError, match=r"net\.pth: weights are written as \.safetensors"):
        export_weights(trained, Path("net.pth"))
    paths.best_weights(trained.name).unlink()
    with pytest.raises(StaleMetrics, match=r"best\.safetensors is missing"):
        export_weights(trained, out, best=True)
    file = paths.weights(trained.name)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(StaleMetrics, match=r"is not what .*run\.json promises"):
        export_weights(trained, out)
    paths.run_json(trained.name).write_text("{")
    with pytest.raises(StaleMetrics, match="is damaged"):
        export_weights(trained, out)
    assert not out.exists()


def test_no_trainings_file_is_written_over(trained: Run) -> None:
    before = files.sha256(paths.weights(trained.name))
    with pytest.raises(ParamsError, match=r"-o \S+ lies in runs/ or \.gald/, whose files are trainings'"):
        export_weights(trained, paths.weights(trained.name))
    assert files.sha256(paths.weights(trained.name)) == before
    export_weights(trained, Path("runs.safetensors"))


def test_without_validation_there_is_no_best(make_run: Callable[..., Run]) -> None:
    run = make_run(train={"max_iters": 4})
    train(run)
    assert json.loads(paths.run_json(run.name).read_text())["best"] is None
    with pytest.raises(ModelError, match=r"has no best weights, .* set train\.validation\.every"):
        export_weights(run, Path("net.safetensors"), best=True)


def test_the_verb(trained: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("gald.params.find_run", lambda _: trained)
    assert cli.main(["export-weights", trained.name, "-o", "net.safetensors", "--best"]) == 0
    assert "the best validated weights" in capsys.readouterr().out
    assert Path("net.safetensors").exists()
