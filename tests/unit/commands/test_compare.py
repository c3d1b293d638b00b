"""What one run's predictions have over another's: numbers from hand-made counts, pages from runs that exist."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gald import files, paths
from gald.commands import _compare_pictures as pictures
from gald.commands._compare_counts import Side, changes
from gald.commands._compare_rows import sections
from gald.commands.compare import compare
from gald.errors import ParamsError, StaleMetrics
from gald.evaluate.run import evaluate
from gald.metrics import CountTable, Layout, count_image
from gald.models import weights
from gald.models.segmentor import build_segmentor
from gald.params import SCORES, Run
from gald.prepare.objects import objects
from gald.tables.bootstrap import paired_bootstrap
from gald.tables.content import Measured
from tests.unit.conftest import CLASSES, DATASET, EDITION

FIRST, SECOND = "mini/camvid/none-seed0", "mini/camvid/psp-seed0"


def leave_trained(run: Run, seed: int) -> None:
    """Leave what a training would: weights (drawn from a seed) and run.json."""
    import torch

    torch.manual_seed(seed)
    model = build_segmentor(run.params.model, len(CLASSES)).eval()
    weights.save(paths.weights(run.name), model, run.params.model, CLASSES)
    record = {
        "run": run.name, "params_sha256": run.digest(), "determinism": "bitwise",
        "manifest_sha256": files.sha256(paths.manifest(EDITION, DATASET)),
        "weights": {"sha256": files.sha256(paths.weights(run.name))},
        "code": {"commit": "0123456789abcdef", "digest": "c" * 64, "dirty": False}, "iterations": 0, "resumed_from": [],
        "environment": {"torch": "2", "device": "cpu", "cpu": "one", "instruction_set": "AVX2", "threads": 1},
    }  # fmt: skip
    files.write_json(paths.run_json(run.name), record)


@pytest.fixture
def two(make_run: Callable[..., Run]) -> tuple[Run, Run]:
    """Two evaluated runs of untrained networks."""
    objects(EDITION, DATASET)
    runs = make_run(FIRST), make_run(SECOND)
    for seed, run in enumerate(runs):
        leave_trained(run, seed)
        evaluate(run)
    return runs


def test_a_comparison_of_two_evaluated_runs(two: tuple[Run, Run]) -> None:
    report = compare(*two, Path("out"))
    scores = [json.loads(paths.metrics(run.name).read_text())["scores"]["mean_iou"] for run in two]
    with (Path("out") / "compare.csv").open(newline="") as file:
        boot, *rows = csv.DictReader(file)
    assert float(boot["difference"]) == scores[1] - scores[0]
    counts = [CountTable.read(paths.counts(run.name)).per_class() for run in two]
    assert (float(boot["low"]), float(boot["high"])) == paired_bootstrap(*counts).interval
    listed = {row["name"]: row for row in rows if row["section"] == "All scores"}
    assert len(listed) == len(SCORES)
    assert (float(listed["mIoU"]["first"]), float(listed["mIoU"]["second"])) == tuple(scores)
    page = (Path("out") / "compare.html").read_text()
    for text in (report, page):
        assert f"{SECOND} minus {FIRST}" in text
        assert "of these two weight files on such images, not of the methods" in re.sub(r"\s+", " ", text)
        assert "The differences below bear no interval" in text
        assert "predicted again" not in text.replace("predicted it again", "")  # as the evaluation predicted them
        assert "mIoU of the pixels in disjoint rings of distance to a boundary" in text
        assert "IoU of each class that the truth has." in text
    assert page.count("data:image/png;base64,") == 4 * page.count('class="sample"') > 0
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert compare(*two, Path("again")) == report.replace("out/", "again/")
    assert (Path("again") / "compare.html").read_bytes() == page.encode()


def test_unlike_runs_and_results_that_do_not_belong_are_refused(
    two: tuple[Run, Run], make_run: Callable[..., Run]
) -> None:
    first, second = two
    with pytest.raises(ParamsError, match="named twice"):
        compare(first, first, Path("out"))
    path = paths.metrics(second.name)
    good = json.loads(path.read_text())

    def refused(error: type[Exception], match: str, **metrics: object) -> None:
        files.write_json(path, good | metrics)
        with pytest.raises(error, match=match):
            compare(first, second, Path("out"))
        files.write_json(path, good)

    refused(ParamsError, "split of the one is test, of the other val", protocol=good["protocol"] | {"split": "val"})
    other = good["protocol"] | {"flip": True, "name": "flipped", "text": "mirrored too"}
    refused(ParamsError, r"protocol of the one is whole \(.*\), of the other flipped \(mirrored too\)", protocol=other)
    refused(StaleMetrics, "different prepared data of camvid", manifest_sha256="0" * 64)
    refused(StaleMetrics, "other params than the suite asks for now", evaluate_sha256="0" * 64)
    counts = paths.counts(second.name)
    counts.write_bytes(paths.counts(first.name).read_bytes())
    with pytest.raises(StaleMetrics, match=rf"{counts} is not what belongs to .*: run `gald evaluate {second.name}`"):
        compare(first, second, Path("out"))
    listing = paths.predictions_json(second.name)
    whole = listing.read_text()
    found = json.loads(whole)
    found["counts"]["sha256"] = files.sha256(counts)  # of the same weights, and another evaluation than was published
    files.write_json(listing, found)
    with pytest.raises(StaleMetrics, match=rf"{counts} is not what belongs to {path}: run `gald evaluate"):
        compare(first, second, Path("out"))
    for damage in (whole[:-4], '{"run_sha256": "0"}', "[]"):
        listing.write_text(damage)
        with pytest.raises(StaleMetrics, match=rf"{listing} is damaged .*: run `gald evaluate {second.name}`"):
            compare(first, second, Path("out"))
    listing.write_text(whole)
    counts.unlink()
    with pytest.raises(StaleMetrics, match="is missing"):
        compare(first, second, Path("out"))
    assert not Path("out").exists()


def test_benchmarks_are_never_mixed(make_run: Callable[..., Run]) -> None:
    import dataclasses

    run = make_run(FIRST)
    other = dataclasses.replace(make_run(SECOND), dataset="cityscapes")
    with pytest.raises(ParamsError, match="benchmark of the one is mini/camvid, of the other mini/cityscapes"):
        compare(run, other, Path("out"))


def test_counts_of_two_versions_of_the_code_are_told(two: tuple[Run, Run]) -> None:
    path = paths.metrics(two[1].name)
    assert "MIXED CODE" not in compare(*two, Path("out"))
    files.write_json(path, json.loads(path.read_text()) | {"evaluation_code_digest": "0" * 64})
    for text in (compare(*two, Path("out")), (Path("out") / "compare.html").read_text()):
        assert "MIXED CODE: the runs were evaluated by different versions of the package, " in text
        assert "and 000000000000, which" in text


def test_without_weights_there_are_numbers_and_a_note(two: tuple[Run, Run]) -> None:
    paths.weights(two[1].name).unlink()
    report = compare(*two, Path("out"))
    assert "There are no pictures: " in report
    page = (Path("out") / "compare.html").read_text()
    assert "data:image" not in page
    assert "No image gains" not in page


def test_weights_that_predict_otherwise_are_told(two: tuple[Run, Run]) -> None:
    # Counts of the first run under the second's name: the second's weights do not predict them.
    table, other = (CountTable.read(paths.counts(run.name)) for run in two)
    sides = [side_of(table, run) for run in two]
    departed = list(pictures._departures(sides[1], samples(two[1]), masks(two[1])))
    truth, found = table.confusions().toarray(), other.confusions().toarray()
    differing = [index for index in range(len(table.ids)) if (truth[index] != found[index]).any()]
    assert len(departed) == len(differing) > 0
    assert all("other than in the evaluation" in note for note in departed)


def samples(run: Run) -> dict:
    from gald.datasets._reader import PreparedSplit

    return dict(enumerate(PreparedSplit(paths.prepared(EDITION, DATASET), ["test"])))


def masks(run: Run) -> dict:
    from gald.evaluate.predictor import Predictor

    predictor = Predictor(run, run.params.evaluate, CLASSES)
    return {index: predictor(one.image, one.mask.shape) for index, one in samples(run).items()}


def side_of(table: CountTable, run: Run | None = None) -> Side:
    names = CLASSES[: table.layout.num_classes]
    metrics = {"scores": dict.fromkeys(SCORES, 0.5), "per_class": [{"name": name, "iou": None} for name in names]}
    return Side(run, Measured("", "", "", 0, metrics, {}, True), table)


def counted(*pairs: tuple[list, list]) -> Side:
    layout = Layout(2, (1, 2, 3))
    images = [count_image(np.array(truth, np.uint8), np.array(found, np.uint8), layout) for truth, found in pairs]
    return side_of(CountTable.of([f"s{i}" for i in range(len(pairs))], layout, images))


def test_images_are_ranked_by_their_own_score() -> None:
    # Truth 0 0 1 1. All right: 1. One 1 as 0: IoU 2/3 and 1/2. All as 0: IoU 1/2 and 0.
    truth, worse, worst = [[0, 0, 1, 1]], [[0, 0, 0, 1]], [[0, 0, 0, 0]]
    first = counted((truth, truth), (truth, worse), (truth, worst), ([[255] * 4], worst))
    second = counted((truth, worse), (truth, worse), (truth, truth), ([[255] * 4], worst))
    assert [index for index, _ in changes(first, second)] == [2, 1, 0]  # the image without a label is none of them
    assert dict(changes(first, second)) == pytest.approx({2: 1 - 0.25, 1: 0.0, 0: 7 / 12 - 1})
    assert pictures.largest(list(changes(first, second))) == ([2], [0])


def test_sections_by_hand() -> None:
    # The 1 px ring of 0 0 0 1 1 1 is its two middle pixels, 2 to 3 px the other four.
    truth = [[0, 0, 0, 1, 1, 1]]
    one = counted((truth, [[0, 0, 0, 0, 1, 1]]))  # wrong at the boundary alone: IoU 1/2 and 0 there
    other = counted((truth, [[0, 0, 0, 1, 1, 0]]))  # wrong far from it: IoU 2/3 (2 of 3) and 1/2 there
    rings, objects, border, classes, *_ = sections(one, other)
    assert [(row.name, row.first, row.second) for row in rings.rows[:3]] == [
        ("1 px", 0.25, 1.0), ("2 to 3 px", 1.0, pytest.approx(7 / 12)), ("4 to 5 px", None, None),
    ]  # fmt: skip
    assert objects.rows[2].name == "Object accuracy, third quarter (3 px; 2 objects)"
    assert border.rows[3].name == "farther than 10 %"
    assert [(row.name, row.change) for row in classes.rows] == [("sky", 0.0), ("road", 0.0)]


def test_equal_quartiles_leave_a_bin_without_any_area() -> None:
    layout = Layout(2, (1, 1, 3))
    side = side_of(CountTable.of(["a"], layout, [count_image(*[np.array([[0, 1, 1]], np.uint8)] * 2, layout)]))
    assert [row.name.partition(" (")[2] for row in sections(side, side)[1].rows[:4]] == [
        "up to 1 px; 1 object)", "no area; 0 objects)", "2 to 3 px; 1 object)", "above 3 px; 0 objects)",
    ]  # fmt: skip


def test_a_crop_shows_where_most_pixels_change_as_wanted() -> None:
    wanted, unwanted = np.zeros((600, 900), bool), np.zeros((600, 900), bool)
    wanted[500:520, 700:720] = True
    wanted[10:60, 10:60] = unwanted[10:60, 10:60] = True  # as many lost as gained
    rows, columns = pictures.crop(wanted, unwanted)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (200, 300)
    assert rows.start <= 500 < 520 <= rows.stop
    assert columns.start <= 700 < 720 <= columns.stop
    assert pictures.crop(wanted[:90, :100], unwanted[:90, :100]) == (slice(0, 90), slice(0, 100))  # shown whole
