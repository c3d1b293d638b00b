"""`gald evaluate` beyond the tables: other protocols and splits, masks kept, a server's archive, anybody's masks."""

import json
import shutil
import struct
import subprocess
import sys
import weakref
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from gald import cli, files, paths
from gald.commands.evaluation import Question, evaluate_otherwise
from gald.commands.score_predictions import _matched, _table, score_predictions
from gald.datasets import load_spec
from gald.datasets._reader import PreparedSplit
from gald.datasets._spec import UNKNOWN
from gald.errors import DatasetError, GaldError, ModelError, ParamsError, StaleMetrics
from gald.evaluate.predictor import Predictor
from gald.evaluate.protocol import SCORED
from gald.evaluate.run import evaluate
from gald.metrics import count_image, scores
from gald.models import weights
from gald.params import Run
from gald.prepare.objects import objects
from gald.process import locking
from gald.tables.content import Protocol
from gald.train.run import train
from tests.unit.conftest import REPOSITORY, scene, write_prepared, write_samples


@pytest.fixture
def trained(make_run: Callable[..., Run]) -> Run:
    shutil.copytree(REPOSITORY / "params", "params")
    run = make_run(train={"max_iters": 6, "warmup_iters": 0})
    train(run)
    evaluate(run)
    return run


def read(path: Path) -> dict:
    return json.loads(path.read_text())


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


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("masks", [None, Path("kept")])
def test_a_question_that_was_stopped_goes_on(trained: Run, monkeypatch: pytest.MonkeyPatch, masks: Path | None) -> None:
    question = Question(protocol="multi_scale", masks=masks, out=Path("scores.json"))
    evaluate_otherwise(trained, question)
    expected = Path("scores.json").read_bytes(), contents(Path("kept"))
    Path("scores.json").unlink()
    shutil.rmtree("kept", ignore_errors=True)
    real, asked = Predictor.__call__, []

    def stopping(self: Predictor, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return real(self, image, size)

    monkeypatch.setattr(Predictor, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate_otherwise(trained, question)
    assert not Path("scores.json").exists()
    assert not Path("kept").exists()  # whole or absent
    evaluate_otherwise(trained, question)
    assert len(asked) == 4 + 2  # three of five images were counted before
    assert (Path("scores.json").read_bytes(), contents(Path("kept"))) == expected
    assert not any(path.is_file() for path in Path(".gald/questions").rglob("*"))


def test_what_a_stopped_question_left_goes_once_the_code_has_changed(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> set[Path]:
        return {path.parent for path in Path(".gald/questions").rglob("*.counts")}

    with monkeypatch.context() as stopped:
        stopped.setattr(Predictor, "__call__", Mock(side_effect=KeyboardInterrupt))
        for name in ("multi_scale", "sliding"):
            with pytest.raises(KeyboardInterrupt):
                evaluate_otherwise(trained, Question(protocol=name))
    before = left()
    assert len(before) == 2
    evaluate_otherwise(trained, Question(protocol="whole"))
    assert left() == before  # the same commands would go on
    monkeypatch.setattr("gald.provenance.code_digest", lambda: "c" * 64)
    held = next(path.parent.name for path in before)
    with locking.held(f"questions/{trained.name}/{held}", wait_s=0):  # of a process that goes on with the code it has
        evaluate_otherwise(trained, Question(protocol="whole"))
        assert left() == before
    evaluate_otherwise(trained, Question(protocol="whole"))
    assert not left()


def test_counts_alone_do_not_stand_for_masks(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr("gald.commands.evaluation.CountTable.of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            evaluate_otherwise(trained, Question(protocol="sliding"))
    evaluate_otherwise(trained, Question(protocol="sliding", masks=Path("kept")))
    assert len(contents(Path("kept"))) == 2 * 5


def test_photographs_that_changed_are_predicted_again(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question(images=Path("images"), masks=Path("kept"))
    for index in range(2):
        files.write_bytes(Path("images") / f"{index}.png", png(np.full((40, 52, 3), 60 * index, np.uint8)))
    real, asked = Predictor.__call__, []

    def stopping(self: Predictor, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        asked.append(int(image[0, 0, 0]))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(self, image, size)

    monkeypatch.setattr(Predictor, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate_otherwise(trained, question)
    files.write_bytes(Path("images/0.png"), png(np.full((40, 53, 3), 200, np.uint8)))
    evaluate_otherwise(trained, question)
    assert asked == [0, 60, 200, 60]
    with Image.open("kept/ids/0.png") as mask:
        assert mask.size == (53, 40)


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


def test_predictions_without_a_class_are_wrong_but_give_no_class_a_pixel(prepared: Path) -> None:
    split = PreparedSplit(prepared, ["test"])
    confusion = np.zeros((4, 4), np.int64)
    for sample in split:
        prediction = sample.mask.copy()
        prediction[:, :10] = 255
        files.write_bytes(Path("theirs") / f"{sample.id}_pred.png", png(prediction))
        np.add.at(confusion, (sample.mask[:, 10:-3], sample.mask[:, 10:-3]), 1)
    truth = sum(np.bincount(sample.mask[:, :-3].ravel(), minlength=4) for sample in split)
    score_predictions("mini", "camvid", Path("theirs"), split="test", ids="train", out=Path("theirs.json"))
    found = read(Path("theirs.json"))
    expected = np.diagonal(confusion) / truth  # nothing is predicted wrongly, some is not predicted
    assert [row["iou"] for row in found["per_class"]] == pytest.approx(expected.tolist(), abs=1e-15)
    assert found["scores"]["mean_iou"] == pytest.approx(scores(np.diag(truth)).mean_iou * expected.mean(), abs=1e-15)
    assert found["absent"] == []


def png(pixels: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def theirs(prepared: Path) -> Path:
    folder = Path("theirs")
    for sample in PreparedSplit(prepared, ["test"]):
        files.write_bytes(folder / f"{sample.id.rpartition('/')[2]}.png", png(sample.mask))
    return folder


def test_masks_with_all_kinds_of_faults_are_listed_before_any_is_scored(prepared: Path) -> None:
    folder = theirs(prepared)
    score_predictions("mini", "camvid", folder, split=None, ids="train", out=Path("whole.json"))
    assert read(Path("whole.json"))["scores"]["mean_iou"] == 1
    (folder / "scene00.png").unlink()
    (folder / "other.png").write_bytes(png(np.zeros((48, 64), np.uint8)))
    (folder / "scene01.png").write_bytes(png(np.zeros((48, 63), np.uint8)))
    (folder / "scene02.png").write_bytes(png(np.zeros((48, 64, 3), np.uint8)))
    (folder / "scene03.png").write_bytes(png(np.full((48, 64), 200, np.uint8)))
    (folder / "scene04.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError) as caught:
        score_predictions("mini", "camvid", folder, split=None, ids="train", out=Path("none.json"))
    for line in (
        "6 problem(s)",
        "missing: test/scene00.png",
        "belongs to no sample: theirs/other.png",
        "scene01.png: 63x48 pixels; the mask has 64x48",
        "scene02.png: a picture of mode RGB",
        "scene03.png: holds 200, which is no train id of the benchmark",
        "scene04.png: cannot be read (not an image of a known format)",
    ):
        assert line in str(caught.value)
    assert "--ids raw" not in str(caught.value)  # 200 is no raw id either
    assert not Path("none.json").exists()


def png_of(kind: tuple[int, int], size: tuple[int, int], rows: bytes) -> bytes:
    """Grey of that many bits, and of that colour type, with a header that may promise what is not there."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", size[1], size[0], *kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def png_of_4_bits(values: np.ndarray) -> bytes:
    """Grey of 4 bits a pixel, which Pillow cannot write; two pixels a byte, each row after a filter byte of 0."""
    rows = b"".join(b"\0" + (row[::2] << 4 | row[1::2]).astype(np.uint8).tobytes() for row in values)
    return png_of((4, 0), values.shape, rows)


def test_damaged_masks_are_told_with_all_others(prepared: Path, recwarn: pytest.WarningsRecorder) -> None:
    folder = theirs(prepared)
    (folder / "scene00.png").write_bytes(png_of((8, 0), (60_000, 60_000), b""))
    (folder / "scene01.png").write_bytes(png_of((8, 0), (10_000, 10_000), b""))  # of which Pillow only warns
    (folder / "scene02.png").write_bytes((folder / "scene02.png").read_bytes()[:-40])
    Image.fromarray(np.zeros((48, 64), bool)).save(folder / "scene03.png")
    (folder / "scene04.png").unlink()
    with pytest.raises(DatasetError) as caught:
        score_predictions("mini", "camvid", folder, split=None, ids="train", out=None)
    for line in (
        "5 problem(s)",
        "scene00.png: has more pixels than any picture here; the mask has 64x48",
        "scene01.png: has more pixels than any picture here; the mask has 64x48",
        "scene02.png: cannot be read (",
        "scene03.png: a picture of 1 bit a pixel; expected one channel of 8 or 16 bits that holds ids",
        "missing: test/scene04.png",
    ):
        assert line in str(caught.value)
    assert not recwarn.list


def test_a_file_that_stands_for_several_samples_is_no_excuse_for_others(prepared: Path) -> None:
    folder = theirs(prepared)
    (folder / "scene01.png").write_bytes(b"no picture")
    ids = ["a/scene00", "b/scene00", "scene01"]
    found, problems = _matched(folder, ids)
    assert found == [folder / "scene00.png"] * 2 + [folder / "scene01.png"]
    assert problems[0] == "ambiguous: theirs/scene00.png would stand for 2 samples; name files by whole ids"
    assert len(problems) == 4  # and three belong to no sample


def test_masks_that_readers_would_change_are_told(prepared: Path) -> None:
    # Greys of 4 bits, 0 and 1 of 15, are read as 0 and 17; a JPEG's ids are about what they were.
    folder, zeros = theirs(prepared), np.zeros((48, 64), np.uint8)
    (folder / "scene00.png").write_bytes(png_of_4_bits(zeros))
    Image.fromarray(zeros).save(folder / "scene01.png", format="JPEG")
    with pytest.raises(DatasetError) as caught:
        score_predictions("mini", "camvid", folder, split=None, ids="train", out=None)
    assert "2 problem(s)" in str(caught.value)
    assert "scene00.png: grey of fewer than 8 bits" in str(caught.value)
    assert "scene01.png: holds a JPEG, whatever its name; save masks as PNG" in str(caught.value)


def test_a_suffix_in_capitals_is_one_too(prepared: Path) -> None:
    folder = theirs(prepared)
    (folder / "scene00.png").rename(folder / "scene00.PNG")
    score_predictions("mini", "camvid", folder, split=None, ids="train", out=Path("capitals.json"))
    assert read(Path("capitals.json"))["scores"]["mean_iou"] == 1


def test_files_that_might_be_several_samples_are_told(prepared: Path) -> None:
    folder = theirs(prepared)
    shutil.copy(folder / "scene00.png", folder / "scene00_a.png")
    (folder / "scene00.png").rename(folder / "scene00_b.png")
    with pytest.raises(DatasetError, match=r"ambiguous: test/scene00 might be scene00_a\.png, scene00_b\.png"):
        score_predictions("mini", "camvid", folder, split=None, ids="train", out=None)


def test_data_of_an_older_version_are_to_be_prepared_again(prepared: Path) -> None:
    manifest = read(prepared / "manifest.json")
    del manifest["source"]
    files.write_json(prepared / "manifest.json", manifest)
    with pytest.raises(DatasetError, match="older version: run `gald prepare mini/camvid` again"):
        score_predictions("mini", "camvid", prepared, split=None, ids="train", out=None)


def test_raw_ids_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec, folder = load_spec("cityscapes"), paths.prepared("mini", "cityscapes")
    rng = np.random.default_rng(0)
    samples = [scene(rng) for _ in range(3)]
    write_samples(folder, {"train": samples, "val": samples})
    manifest = read(folder / "manifest.json")
    manifest |= {"dataset": "cityscapes", "source": "fine", "classes": list(spec.class_names)}
    manifest["palette"] = [list(colour) for colour in spec.palette]
    files.write_json(folder / "manifest.json", manifest)
    from gald.prepare.objects import objects

    objects("mini", "cityscapes")
    raw = np.zeros(256, np.uint8)
    raw[:19] = spec.raw_ids()
    for sample in PreparedSplit(folder, ["val"]):
        files.write_bytes(Path("theirs") / f"{sample.id}.png", png(raw[sample.mask]))
    score_predictions("mini", "cityscapes", Path("theirs"), split=None, ids="raw", out=Path("scores.json"))
    assert read(Path("scores.json"))["scores"]["mean_iou"] == 1
    score_predictions("mini", "cityscapes", Path("theirs"), split=None, ids="train", out=Path("scores.json"))
    assert read(Path("scores.json"))["scores"]["mean_iou"] == 0
    for sample in PreparedSplit(folder, ["val"]):
        answer = raw[sample.mask]
        answer[:, :10] = 255  # no raw id of the benchmark
        files.write_bytes(Path("theirs") / f"{sample.id}.png", png(answer))
    score_predictions("mini", "cityscapes", Path("theirs"), split=None, ids="raw", out=Path("scores.json"))
    found = read(Path("scores.json"))["scores"]
    assert 0.7 < found["pixel_accuracy"] < 0.9
    first = next(iter(PreparedSplit(folder, ["val"])))
    files.write_bytes(Path("theirs") / f"{first.id}.png", png(np.full_like(first.mask, 26)))
    with pytest.raises(DatasetError, match=r"holds 26, which is no train id .* as raw ids they all are: did you mean"):
        score_predictions("mini", "cityscapes", Path("theirs"), split=None, ids="train", out=None)
    files.write_bytes(Path("theirs") / f"{first.id}.png", png(np.full_like(first.mask, 200)))
    with pytest.raises(DatasetError, match=r"holds 200, which is no raw id of the benchmark$"):
        score_predictions("mini", "cityscapes", Path("theirs"), split=None, ids="raw", out=None)


def test_255_is_the_benchmarks_where_it_has_a_class_of_that_number() -> None:
    lookup = np.full(300, UNKNOWN, np.int16)
    lookup[[7, 255, 256]] = 0, 1, 255
    table = _table(lookup, 2)
    assert [int(table[value]) for value in (7, 255, 256, 8)] == [0, 1, 2, 255]
    assert _table(lookup[:255], 2)[255] == 2


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
