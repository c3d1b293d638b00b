"""`gald evaluate` beyond the tables: other protocols and splits, and masks kept."""

import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gald import cli, files, paths
from gald.commands.evaluation import Question, evaluate_otherwise
from gald.commands.score_predictions import score_predictions
from gald.datasets import load_spec
from gald.errors import DatasetError, GaldError, ModelError, ParamsError, StaleMetrics
from gald.evaluate.protocol import SCORED
from gald.metrics import count_image
from gald.models import weights
from gald.params import Run
from gald.prepare.objects import objects
from gald.tables.content import Protocol
from gald.train.run import train
from tests.unit.commands.answers import contents, read
from tests.unit.conftest import REPOSITORY, write_prepared


def test_the_same_protocol_gives_the_same_scores_and_leaves_the_results(trained: Run) -> None:
    before = {path: files.sha256(path) for path in (paths.metrics(trained.name), paths.counts(trained.name))}
    text = evaluate_otherwise(trained, Question(protocol="whole", out=Path("scores.json")))
    found, expected = read(Path("scores.json")), read(paths.metrics(trained.name))
    made_of = ("run", "run_sha256", "manifest_sha256", "evaluation_code_digest")
    for key in ("scores", "per_class", "protocol", *made_of):
        assert found[key] == expected[key]
    assert f"mIoU{'':<45}{100 * expected['scores']['mean_iou']:.1f} %" in text
    assert {path: files.sha256(path) for path in before} == before


def test_the_best_weights_are_scored_where_they_were_not_chosen(make_run: Callable[..., Run], prepared: Path) -> None:
    write_prepared(prepared, {"train": 10, "val": 3, "test": 5})
    objects("mini", "camvid")
    shutil.copytree(REPOSITORY / "params", "params")
    chosen = {"every": 1, "split": "val", "samples": 2, "patience": None}
    run = make_run(train={"max_iters": 6, "warmup_iters": 0, "validation": chosen})
    train(run)
    last, best = weights.load(paths.weights(run.name)), weights.load(paths.best_weights(run.name))
    with torch.no_grad():
        best.head.classifier.bias[2] += 50.0  # so that the two differ in every image
    weights.save(paths.best_weights(run.name), best, run.params.model, list(last.class_names))
    record = read(paths.run_json(run.name))
    record["best"]["sha256"] = files.sha256(paths.best_weights(run.name))
    files.write_json(paths.run_json(run.name), record)
    before = contents(Path("reports"))
    for name in ("last", "best"):
        text = evaluate_otherwise(run, Question(out=Path(f"{name}.json"), best=name == "best"))
    found = read(Path("best.json"))
    assert found["best"] == {
        "iteration": record["best"]["iteration"], "sha256": record["best"]["sha256"], "chosen_on": "val"
    }  # fmt: skip
    assert f"weights of iteration {record['best']['iteration']}, the best on val, not the last ones" in text
    ious = {row["name"]: row["iou"] for row in found["per_class"]}
    assert ious == pytest.approx({"sky": 0.0, "road": 0.0, "car": ious["car"], "tree": 0.0})
    assert "best" not in read(Path("last.json"))
    assert read(Path("last.json"))["scores"] != found["scores"]
    assert contents(Path("reports")) == before
    with pytest.raises(ParamsError, match=r"--best: .* chose its best weights on 'val', .* another --split"):
        evaluate_otherwise(run, Question(split="val", best=True))
    paths.best_weights(run.name).write_bytes(b"others")
    with pytest.raises(StaleMetrics, match=r"best\.safetensors is not what .* promises"):
        evaluate_otherwise(run, Question(best=True))


def test_without_validation_there_is_no_best_to_score(trained: Run) -> None:
    with pytest.raises(ModelError, match=r"has no best weights, .* set train\.validation\.every"):
        evaluate_otherwise(trained, Question(best=True))


@pytest.mark.parametrize("name", ["sliding", "multi_scale", "sliding_multi_scale"])
def test_another_protocol_is_named_beside_its_scores(trained: Run, name: str) -> None:
    evaluate_otherwise(trained, Question(protocol=name, out=Path("scores.json")))
    found = read(Path("scores.json"))
    assert found["protocol"]["name"] == name
    assert found["protocol"]["window"] == ([32, 48] if name.startswith("sliding") else None)
    assert found["protocol"]["flip"] == ("multi" in name)
    assert 0 < found["scores"]["mean_iou"] < 1
    assert found["scores"] != read(paths.metrics(trained.name))["scores"]


def test_kept_masks_score_what_the_run_scores(trained: Run, prepared: Path) -> None:
    evaluate_otherwise(trained, Question(masks=Path("kept")))
    ids = sorted(path.relative_to("kept/ids").as_posix() for path in Path("kept/ids").rglob("*.png"))
    assert ids == [f"test/scene{index:02d}.png" for index in range(5)]
    with Image.open("kept/ids/test/scene01.png") as mask, Image.open("kept/colour/test/scene01.png") as colours:
        assert mask.mode == "L"
        palette = np.array(load_spec("camvid").palette, np.uint8)
        np.testing.assert_array_equal(palette[np.array(mask)], np.array(colours))
    text = score_predictions("mini", "camvid", Path("kept/ids"), split=None, ids="train", out=Path("theirs.json"))
    theirs, ours = read(Path("theirs.json")), read(paths.metrics(trained.name))
    assert theirs["scores"] == ours["scores"]
    assert theirs["per_class"] == ours["per_class"]
    assert theirs["absent"] == ours["absent"]
    assert "masks of kept/ids (train ids), mini/camvid" in text
    given, own = Protocol.of(theirs), Protocol.of(ours)
    assert (given.name, given.split) == ("given", "test")
    assert not given.same(own)  # nobody knows how they came about
    assert {key: theirs["protocol"][key] for key in SCORED} == {key: ours["protocol"][key] for key in SCORED}
    assert "wrong wherever the truth has one" in theirs["protocol"]["no_class"]
    assert (theirs["edition"], theirs["dataset"]) == ("mini", "camvid")
    assert all(theirs[key] == ours[key] for key in ("manifest_sha256", "evaluation_code_digest"))
    with pytest.raises(DatasetError, match=r"kept: nothing was scored, did you mean kept/ids\? "):
        score_predictions("mini", "camvid", Path("kept"), split=None, ids="train", out=None)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(protocol="guess"), r"no protocol 'guess' in params/protocols\.yaml"),
        (Question(split="trial"), r"no split is called 'trial'; it has train, test"),
        (Question(split="test", images=Path("images")), "--split and --images name two sources"),
        (Question(images=Path("nowhere"), masks=Path("kept")), "--images nowhere: no such folder"),
        (Question(submission=Path("x.zip")), "CamVid has no test server"),
        (Question(masks=Path("params")), "--save-predictions params: it is not empty"),
        (Question(masks=Path("params/base.yaml")), r"params/base\.yaml: params/base\.yaml is a file; name a folder"),
        (Question(masks=Path("params/base.yaml/x")), r"params/base\.yaml is a file; name a f"),
        (Question(protocol="sliding", out=Path("params")), "-o params is a folder; name a file"),
        (Question(out=Path("params/base.yaml/scores.json")), r"params/base\.yaml is a file; name a f"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_before_anything_is_predicted(
    trained: Run, monkeypatch: pytest.MonkeyPatch, question: Question, message: str
) -> None:
    monkeypatch.setattr("gald.commands.evaluation.Predictor", None)
    with pytest.raises(GaldError, match=message):
        evaluate_otherwise(trained, question)


@pytest.mark.slow
def test_torchrun_shares_a_question(trained: Run, tmp_path: Path) -> None:
    import pickle

    question = Question(protocol="sliding", masks=Path("kept"), out=Path("scores.json"))
    text = evaluate_otherwise(trained, question)
    expected = contents(Path("kept")), Path("scores.json").read_bytes()
    shutil.rmtree("kept")
    Path("scores.json").unlink()
    (tmp_path / "asked.pickle").write_bytes(pickle.dumps((trained, question)))
    script = tmp_path / "share.py"
    script.write_text(
        "import pickle, sys\nfrom gald.commands.evaluation import evaluate_otherwise\n"
        "sys.stdout.write(evaluate_otherwise(*pickle.load(open(sys.argv[1], 'rb'))))\n"
    )
    options = ["--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(script)]
    done = subprocess.run([*command, str(tmp_path / "asked.pickle")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout == text  # once
    assert (contents(Path("kept")), Path("scores.json").read_bytes()) == expected


def test_counts_of_images_are_not_held_as_they_come(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(dict):  # a dict bears no weak reference
        pass

    held: weakref.WeakValueDictionary[int, Counted] = weakref.WeakValueDictionary()
    most = []

    def noted(*arguments: Any) -> Counted:
        counts = Counted(count_image(*arguments))
        held[len(most)] = counts
        most.append(len(held))
        return counts

    monkeypatch.setattr("gald.evaluate.counting.count_image", noted)
    evaluate_otherwise(trained, Question(protocol="whole", masks=Path("kept")))
    assert len(most) == 5
    assert max(most) <= 2


def test_an_untrained_run_answers_nothing(trained: Run) -> None:
    paths.weights(trained.name).write_bytes(b"others")
    with pytest.raises(StaleMetrics, match=r"is not what .* promises"):
        evaluate_otherwise(trained, Question(protocol="sliding"))


def test_masks_are_of_a_benchmark_and_not_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "mini/camvid/psp-seed0", "--predictions", "theirs"]) == 2
    assert "'mini/camvid/psp-seed0': expected EDITION/DATASET" in capsys.readouterr().err


def test_the_command_line_asks_what_was_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "params", "params")
    asked = []
    monkeypatch.setattr(
        "gald.commands.evaluation.evaluate_otherwise", lambda run, *args, **_: asked.append((run.name, *args)) or ""
    )
    monkeypatch.setattr(
        "gald.commands.score_predictions.score_predictions", lambda *args, **kw: asked.append((args, kw)) or ""
    )
    name = "mini/cityscapes/psp-seed1"
    assert cli.main(["evaluate", name, "--protocol", "multi_scale", "--submission", "a.zip", "-o", "b.json"]) == 0
    assert cli.main(["evaluate", "full/camvid", "--predictions", "theirs", "--ids", "raw", "--split", "val"]) == 0
    assert asked[0] == (name, Question(protocol="multi_scale", submission=Path("a.zip"), out=Path("b.json")))
    assert asked[1][0] == ("full", "camvid", Path("theirs"))
    assert (asked[1][1]["ids"], asked[1][1]["split"], asked[1][1]["out"]) == ("raw", "val", None)
    assert cli.main(["evaluate", "full/camvid", "--predictions", "theirs", "--protocol", "whole"]) == 2
    assert cli.main(["evaluate", "full/camvid", "--predictions", "theirs", "--best"]) == 2
    assert cli.main(["evaluate", "camvid", "--predictions", "theirs"]) == 2
    assert cli.main(["evaluate", name, "--ids", "raw", "-o", "c.json"]) == 2
    assert cli.main(["evaluate", name, "--best"]) == 0
    assert asked[2:] == [(name, Question(best=True))]


@pytest.mark.parametrize(("rank", "tells"), [("0", True), ("1", False)])
def test_of_several_processes_the_first_tells_how_far_the_suite_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], rank: str, tells: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "params", "params")
    monkeypatch.setattr("gald.evaluate.run.evaluate", lambda run, **_: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert cli.main(["evaluate", "mini/cityscapes/psp-seed1"]) == 0
    assert ("runs trained" in capsys.readouterr().err) == tells


@pytest.mark.parametrize("question", [[], ["--protocol", "whole"]])
@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "a"), ("RANK", "first"), ("LOCAL_RANK", "")])
def test_processes_that_are_no_number_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    question: list[str],
    name: str,
    value: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "params", "params")
    monkeypatch.setenv(name, value)
    assert cli.main(["evaluate", "mini/cityscapes/psp-seed1", *question]) == 2
    assert "RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers (" in capsys.readouterr().err
