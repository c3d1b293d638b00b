import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gald import cli, explanation, files, paths
from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError, GaldError, StaleMetrics
from gald.evaluate.run import evaluate, gallery_indices
from gald.metrics import confusion_matrix, scores
from gald.metrics.counts import CountTable
from gald.params import SCORES, Run
from gald.prepare.pack import pack
from gald.train.run import train
from tests.unit.conftest import REPOSITORY

NAME = "mini/cityscapes/psp-seed1"
SHORT = {"max_iters": 12, "warmup_iters": 0}


@pytest.fixture
def trained(make_run: Callable[..., Run]) -> Run:
    run = make_run(train=SHORT)
    train(run)
    return run


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def counts_of(run: Run) -> CountTable:
    return CountTable.read(paths.counts(run.name))


def test_metrics_say_what_the_predictions_score(trained: Run, prepared: Path) -> None:
    evaluate(trained)
    metrics, table = read(paths.metrics(trained.name)), counts_of(trained)
    rings = table.total("rings")
    found, band = scores(rings.sum(0)), scores(rings[:2].sum(0))
    assert table.ids == tuple(f"test/scene{index:02d}" for index in range(5))
    assert rings.sum() == 5 * 48 * 61  # three columns of each mask are ignored
    assert 0 < rings[:2].sum() < rings.sum() / 2
    assert set(metrics["scores"]) == set(SCORES)
    assert metrics["scores"]["mean_iou"] == found.mean_iou
    assert metrics["scores"]["trimap_mean_iou_3"] == band.mean_iou
    assert metrics["scores"]["frequency_weighted_iou"] == found.frequency_weighted_iou
    assert metrics["scores"]["pixel_accuracy"] == found.pixel_accuracy > 0.4
    assert [row["name"] for row in metrics["per_class"]] == ["sky", "road", "car", "tree"]
    assert [row["iou"] for row in metrics["per_class"]] == found.iou.tolist()
    assert metrics["absent"] == []
    assert metrics["area_edges"] == read(paths.objects("mini", "camvid"))["area_edges"]
    assert metrics["run_sha256"] == files.sha256(paths.run_json(trained.name))
    assert metrics["params_sha256"] == trained.digest()
    assert (metrics["images"], metrics["split"], metrics["gmacs_size"]) == (5, "test", [32, 48])
    assert metrics["protocol"]["name"] == "whole"
    assert metrics["protocol"]["text"].startswith("whole image, native size")
    assert metrics["protocol"]["classes"] == 4


def test_kept_predictions_are_those_that_were_scored(trained: Run, prepared: Path) -> None:
    evaluate(trained)
    listing, table = read(paths.predictions_json(trained.name)), counts_of(trained)
    assert listing["counts"]["sha256"] == files.sha256(paths.counts(trained.name))
    assert json.loads(paths.metrics(trained.name).read_text())["counts_sha256"] == listing["counts"]["sha256"]
    assert [sample["id"] for sample in listing["samples"]] == ["test/scene00", "test/scene04"]
    assert not any("explanation" in sample for sample in listing["samples"])  # there is no distribution
    split = PreparedSplit(prepared, ["test"])
    for sample, index in zip(listing["samples"], (0, 4), strict=True):
        path = paths.predictions(trained.name) / sample["file"]
        assert files.sha256(path) == sample["sha256"]
        with Image.open(path) as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[:6] == [70, 130, 180, 128, 64, 128]
            prediction = np.array(picture)
        image = table.confusions()[[index]].toarray().reshape(4, 4)
        np.testing.assert_array_equal(confusion_matrix(split[index].mask, prediction, 4), image)


def test_what_a_distribution_does_is_kept_beside_the_predictions(make_run: Callable[..., Run], prepared: Path) -> None:
    run = make_run("mini/camvid/ld-seed0", train=SHORT, model={"distribution": {"name": "affinity"}})
    train(run)
    evaluate(run)
    folder, split = paths.predictions(run.name), PreparedSplit(prepared, ["test"])
    first = {path.name: files.sha256(path) for path in folder.iterdir()}
    for sample, index in zip(read(paths.predictions_json(run.name))["samples"], (0, 4), strict=True):
        assert first[sample["explanation"]["file"]] == sample["explanation"]["sha256"]
        found = explanation.read(folder / sample["explanation"]["file"])
        assert found.labels.shape == split[index].mask.shape
        with Image.open(folder / sample["file"]) as picture:
            np.testing.assert_array_equal(found.labels, np.array(picture))
        assert len(found.places) == len(found.weights) >= 2
    evaluate(run)
    assert {path.name: files.sha256(path) for path in folder.iterdir()} == first


def test_twice_is_the_same_to_the_byte(trained: Run) -> None:
    def written() -> dict[str, str]:
        found = [paths.metrics(trained.name), *paths.predictions(trained.name).iterdir()]
        return {path.name: files.sha256(path) for path in found}

    evaluate(trained)
    first = written()
    evaluate(trained)
    assert written() == first


@pytest.mark.parametrize(
    ("image_size", "words"),
    [([24, 40], "24x40"), ({"long_side": 40, "short_side": 24}, "at most 40x24, ratio kept")],
)
def test_input_size_and_scored_size_differ(make_run: Callable[..., Run], image_size: Any, words: str) -> None:
    run = make_run(train=SHORT, evaluate={"image_size": image_size})
    train(run)
    evaluate(run)
    protocol = read(paths.metrics(run.name))["protocol"]
    assert protocol["text"].startswith(f"whole image, input {words}, ")
    assert protocol["input_size"] == image_size
    assert counts_of(run).total("rings").sum() == 5 * 48 * 61


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no record", r"runs/.*/run\.json is missing: run `gald train mini/camvid/none-seed0` again"),
        ("half a record", r"run\.json is damaged"),
        ("no weights", r"weights\.safetensors is missing"),
        ("other weights", r"weights\.safetensors is not what .*run\.json promises"),
        ("another run", r"run\.json: it is another run's"),
        ("other data", r"manifest\.json has changed since the run was trained"),
        ("no objects", r"camvid-objects\.json is missing, .*: run `gald objects mini/camvid`"),
        ("other objects", r"camvid-objects\.json was made of camvid as it was prepared before: run `gald objects"),
        ("half of the objects", r"camvid-objects\.json is damaged"),
        ("no data", r"manifest\.json is missing; run `gald prepare mini/camvid`"),
    ],
)
def test_what_does_not_belong_together_is_refused(trained: Run, prepared: Path, damage: str, message: str) -> None:
    evaluate(trained)
    record, manifest = paths.run_json(trained.name), prepared / "manifest.json"
    if damage == "no record":
        record.unlink()
    elif damage == "half a record":
        record.write_text(record.read_text()[:50])
    elif damage == "no weights":
        paths.weights(trained.name).unlink()
    elif damage == "other weights":
        content = bytearray(paths.weights(trained.name).read_bytes())
        content[-1] ^= 1
        paths.weights(trained.name).write_bytes(content)
    elif damage == "another run":
        record.write_text(record.read_text().replace("none-seed0", "none-seed7"))
    elif damage == "other data":
        manifest.write_text(manifest.read_text().replace('"converter": 1', '"converter": 2'))
    elif damage == "no objects":
        paths.objects("mini", "camvid").unlink()
    elif damage == "other objects":
        path = paths.objects("mini", "camvid")
        path.write_text(path.read_text().replace('"manifest_sha256": "', '"manifest_sha256": "0'))
    elif damage == "half of the objects":
        path = paths.objects("mini", "camvid")
        path.write_text(path.read_text()[:40])
    else:
        shutil.rmtree(prepared)
    with pytest.raises(GaldError, match=message):
        evaluate(trained)
    assert not paths.metrics(trained.name).exists()  # no number of before survives


def test_scores_that_came_with_a_clone_survive_an_evaluation_of_nothing(trained: Run) -> None:
    evaluate(trained)
    before = paths.metrics(trained.name).read_bytes()
    shutil.rmtree(paths.run_dir(trained.name))
    with pytest.raises(StaleMetrics, match=r"run\.json is missing"):
        evaluate(trained)
    assert paths.metrics(trained.name).read_bytes() == before


def test_changed_params_are_refused(trained: Run, make_run: Callable[..., Run]) -> None:
    with pytest.raises(StaleMetrics, match="params have changed since it was trained"):
        evaluate(make_run(train=SHORT | {"learning_rate": 0.01}))


def test_a_damaged_sample_leaves_nothing_half_written(trained: Run, prepared: Path) -> None:
    path = prepared / "masks/test/scene03.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DatasetError, match=r"scene03\.png cannot be read"):
        evaluate(trained)
    assert not paths.metrics(trained.name).exists()
    assert not paths.predictions(trained.name).exists()
    assert not paths.predictions(trained.name).parent.exists()


def test_a_mask_changed_since_it_was_prepared_is_named(trained: Run, prepared: Path) -> None:
    Image.fromarray(np.full((48, 64), 3, np.uint8)).save(prepared / "masks/test/scene02.png")
    with pytest.raises(DatasetError, match=r"masks/test/scene02.png does not hold the pixels that were prepared"):
        evaluate(trained)


def test_data_of_another_source_are_refused(trained: Run, prepared: Path) -> None:
    path = prepared / "manifest.json"
    path.write_text(path.read_text().replace('"source": "segnet"', '"source": "native"'))
    with pytest.raises(
        DatasetError, match=r"from source 'native', .* ask for 'segnet'; run `gald download mini/camvid`"
    ):
        evaluate(trained)
    assert not paths.metrics(trained.name).exists()


def test_the_store_changes_no_score(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[bool] = []
    real = PreparedSplit.verified_pixels
    monkeypatch.setattr(
        PreparedSplit, "verified_pixels", lambda split, i: packed.append(split.packed) or real(split, i)
    )
    evaluate(trained)
    expected = read(paths.metrics(trained.name))
    pack("mini", "camvid")
    del packed[5:]  # packing reads too
    for store in ("auto", "files"):
        evaluate(trained, store=store)
        assert read(paths.metrics(trained.name)) == expected
    assert packed == [False] * 5 + [True] * 5 + [False] * 5


@pytest.mark.parametrize(("store", "expected"), [("packed", "auto"), ("files", "files")])
def test_the_command_line_reads_what_the_params_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "params", "params")
    path = Path("params/base.yaml")
    path.write_text(path.read_text().replace("store: packed", f"store: {store}"))
    asked: list[str] = []
    for stage in ("train", "evaluate"):
        monkeypatch.setattr(f"gald.{stage}.run.{stage}", lambda run, *, store: asked.append(f"{run.name} {store}"))
        arguments = cli.parser().parse_args([stage, NAME])
        arguments.action(arguments)
    assert asked == [f"{NAME} {expected}"] * 2


def test_the_gallery_is_spread_over_the_split() -> None:
    assert gallery_indices(233, 4) == [0, 77, 155, 232]
    assert gallery_indices(3, 0) == []
    assert gallery_indices(1, 4) == [0]
