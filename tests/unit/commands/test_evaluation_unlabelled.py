"""Pictures without a truth: photographs, and a server's archive."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald import files
from gald.commands.evaluation import Question, evaluate_otherwise
from gald.commands.score_predictions import score_predictions
from gald.datasets import load_spec
from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError, ParamsError
from gald.evaluate.predictor import Predictor
from gald.params import Run
from gald.train.run import train
from tests.unit.commands.answers import png, png_of
from tests.unit.conftest import scene, write_samples

# What has no truth.


def unlabelled(prepared: Path) -> None:
    rng = np.random.default_rng(1)
    pairs = {split: [(s.image, s.mask) for s in PreparedSplit(prepared, [split])] for split in ("train", "test")}
    write_samples(prepared, {**pairs, "hidden": [(scene(rng)[0], None) for _ in range(2)]})


def test_without_a_truth_it_predicts_and_says_so(make_run: Callable[..., Run], prepared: Path) -> None:
    unlabelled(prepared)
    run = make_run(train={"max_iters": 6, "warmup_iters": 0})
    train(run)
    text = evaluate_otherwise(run, Question(split="hidden", masks=Path("kept")))
    assert text.startswith("2 images predicted; there is no ground truth, so nothing is scored\n")
    assert len(list(Path("kept/ids/hidden").iterdir())) == 2
    with pytest.raises(ParamsError, match="split 'hidden' has no ground truth to score: add --save-predictions"):
        evaluate_otherwise(run, Question(split="hidden"))
    with pytest.raises(ParamsError, match="no scores to write"):
        evaluate_otherwise(run, Question(split="hidden", masks=Path("other"), out=Path("scores.json")))
    assert not Path("other").exists()
    with pytest.raises(DatasetError, match=r"the labels of split 'hidden' are not published"):
        score_predictions("mini", "camvid", Path("kept/ids"), split="hidden", ids="train", out=None)


@pytest.mark.parametrize(
    ("dataset", "stem", "member", "raw"),
    [
        ("cityscapes", "berlin_000000_000019_leftImg8bit", "berlin_000000_000019.png", {0: 7, 1: 8, 13: 26}),
        ("ade20k", "ADE_test_00000001", "ADE_test_00000001.png", {0: 1, 1: 2, 13: 14}),
    ],
)
def test_a_test_server_gets_raw_ids_under_its_own_names(
    trained: Run, monkeypatch: pytest.MonkeyPatch, dataset: str, stem: str, member: str, raw: dict[int, int]
) -> None:
    folder = Path("images")
    picture = np.random.default_rng(2).integers(0, 255, (40, 52, 3), np.uint8)
    files.write_bytes(folder / f"{stem}.png", png(picture))
    spec, mask = load_spec(dataset), np.resize(np.array(list(raw), np.uint8), (40, 52))
    monkeypatch.setattr("gald.commands.evaluation.load_spec", lambda *_: spec)
    monkeypatch.setattr("gald.commands.evaluation.Predictor.__call__", lambda self, image, size: mask)
    text = evaluate_otherwise(trained, Question(images=folder, submission=Path("out/handed-in.zip")))
    assert "there is no ground truth" in text
    with zipfile.ZipFile("out/handed-in.zip") as archive:
        assert archive.namelist() == [member]
        with archive.open(member) as file, Image.open(file) as written:
            assert (written.mode, written.size) == ("L", (52, 40))
            np.testing.assert_array_equal(np.array(written), np.vectorize(raw.get)(mask))
    first = Path("out/handed-in.zip").read_bytes()
    evaluate_otherwise(trained, Question(images=folder, submission=Path("out/handed-in.zip")))
    assert Path("out/handed-in.zip").read_bytes() == first
    (folder / "holiday.png").write_bytes(png(picture))
    known = rf"{spec.title}'s server knows no image 'holiday' \(one of its names is {spec.submission.example}\)"
    with pytest.raises(DatasetError, match=known):
        evaluate_otherwise(trained, Question(images=folder, submission=Path("out/other.zip")))
    assert not Path("out/other.zip").exists()


def test_pictures_whose_masks_would_have_one_name_are_refused(trained: Run) -> None:
    for name in ("a.png", "a.bmp"):
        files.write_bytes(Path("images") / name, png(np.zeros((40, 52, 3), np.uint8)))
    with pytest.raises(DatasetError, match=r"images/a\.bmp and images/a\.png would have one mask"):
        evaluate_otherwise(trained, Question(images=Path("images"), masks=Path("kept")))
    assert not Path("kept").exists()


def test_pictures_that_are_none_are_told_before_any_is_predicted(
    trained: Run, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    whole = png(np.full((40, 52, 3), 9, np.uint8))
    for name, content in {
        "a.png": whole,
        "b.png": b"no picture",
        "c.png": png_of((8, 0), (60_000, 60_000), b""),
        "d.png": png_of((8, 0), (10_000, 10_000), b""),
        "e.png": whole[:-30],
    }.items():
        files.write_bytes(Path("images") / name, content)
    real = Predictor.__call__
    monkeypatch.setattr(Predictor, "__call__", None)
    with pytest.raises(DatasetError) as caught:
        evaluate_otherwise(trained, Question(images=Path("images"), masks=Path("kept")))
    lines = str(caught.value).splitlines()
    assert lines[0] == "--images images: nothing was predicted, 3 problem(s):"
    assert lines[1] == "  images/b.png: cannot be read as a picture (not an image of a known format)"
    assert [line.partition(":")[0] for line in lines[2:]] == ["  images/c.png", "  images/d.png"]
    for name in "bcd":
        (Path("images") / f"{name}.png").unlink()
    monkeypatch.setattr(Predictor, "__call__", real)
    with pytest.raises(DatasetError, match=r"images/e\.png: cannot be read as a picture \("):
        evaluate_otherwise(trained, Question(images=Path("images"), masks=Path("kept")))
    assert not Path("kept").exists()
    assert not recwarn.list
