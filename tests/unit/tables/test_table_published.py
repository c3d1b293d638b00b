"""Published numbers beside ours: where they stand, and when one may be subtracted from the other."""

import csv
import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from gald import paths
from gald.errors import ParamsError
from gald.evaluate.protocol import protocol
from gald.files import write_text
from gald.params import load_suite
from gald.tables.run import build_table
from tests.unit.tables.conftest import PROTOCOL, TABLE, write_params, write_run

MEASURED = {
    "split": "val", "classes": 3, "input_size": None, "window": None, "overlap": 0.0, "average": "logits",
    "scales": [1.0], "flip": False,
}  # fmt: skip
NUMBER = {
    "row": "ga", "dataset": "camvid", "column": "mean_iou", "value": 0.6105, "method": "GA, some backbone",
    "protocol": "test, single scale", "source": "a paper, table 1", "measured_by": MEASURED,
}  # fmt: skip
USES = {"components": {"datasets": ["camvid"], "seeds": [0]}}
CITED = "GA, some backbone; test, single scale; a paper, table 1"


def scored(root, number, edition="full", metrics=PROTOCOL):
    """Make a suite whose table cites a number, with runs at 60 percent."""
    suite = write_params(root, {"components": TABLE | {"published": [number]}}, USES, edition)
    for run in suite.runs:
        write_run(run, 0.6, protocol=metrics)
    return suite


def read(suite, suffix="md"):
    build_table(suite, "components")
    return paths.table(suite.name, "components", suffix).read_text()


def test_published_numbers_stand_in_columns_of_their_own(workplace):
    suite = scored(workplace, NUMBER)
    text = read(suite)
    assert "| Published mIoU (%) | Ours - published | Source and protocol |" in text
    assert f"| 61.05 | -1.1 | {CITED} |" in text
    assert re.search(r"\| GA, then LD \|.*\| not available \|  \|  \|", text)
    ga, ga_ld = csv.DictReader(read(suite, "csv").splitlines())
    assert (ga["published_mean_iou"], ga_ld["published_mean_iou"]) == ("0.6105", "")


def test_the_layout_with_a_column_a_benchmark(workplace):
    suite = scored(workplace, NUMBER)
    suite = dataclasses.replace(suite, tables=(suite.tables[0].model_copy(update={"layout": "datasets"}),))
    text = read(suite)
    assert (
        "| Row | Parameters (M) | GMACs | CamVid mIoU (%) | published | CamVid Trimap mIoU, 3 px (%) | published | n |"
        in text
    )
    assert "| GA | 1.23 | 0.512 | 60.0 | 61.05 | 50.0 | not available | 1 |" in text
    assert f"Published, CamVid, GA, mIoU (%): 61.05; {CITED}." in text
    assert '<th class="group" colspan="4">CamVid</th>' in read(suite, "html")


def test_published_numbers_do_not_stand_beside_drawn_scenes(workplace):
    suite = scored(workplace, NUMBER, "mini")
    assert "61.05" not in read(suite)
    assert "0.6105" not in read(suite, "csv")


def test_published_numbers_do_not_stand_beside_another_published_form(workplace):
    suite = scored(workplace, NUMBER)
    for run in suite.runs:
        write_run(run, 0.6, source={"name": "original", "about": "as of 60 classes instead of 59"})
    assert "61.05" not in read(suite)


@pytest.mark.parametrize(
    "change",
    [
        {"split": "test"},
        {"classes": 4},
        {"input_size": [96, 192]},
        {"window": [96, 96], "overlap": 0.5},
        {"average": "probabilities"},
        {"scales": [0.75, 1.0]},
        {"flip": True},
    ],
)
def test_ours_is_subtracted_from_numbers_of_the_same_protocol_alone(workplace, change):
    other = NUMBER | {"measured_by": MEASURED | change}
    assert f"| 61.05 | other protocol | {CITED} |" in read(scored(workplace, other))
    # The same number beside runs that were measured so.
    assert f"| 61.05 | -1.1 | {CITED} |" in read(scored(workplace, other, metrics=PROTOCOL | change))


def test_a_number_whose_protocol_is_not_known_is_never_subtracted_from(workplace):
    assert f"| 61.05 | other protocol | {CITED} |" in read(scored(workplace, NUMBER | {"measured_by": None}))


def test_a_protocol_that_is_edited_is_another_one_whatever_it_is_called(workplace):
    scored(workplace, NUMBER)
    path = workplace / "params/protocols.yaml"
    write_text(path, path.read_text().replace("flip: false", "flip: true", 1))
    suite = load_suite("tiny", workplace / "params")
    for run in suite.runs:  # evaluated again, as the params ask for it now
        write_run(run, 0.6, protocol=protocol(run.params.evaluate, 3))
    assert suite.runs[0].params.evaluate.protocol.name == "whole"
    assert f"| 61.05 | other protocol | {CITED} |" in read(suite)


def test_an_evaluation_s_own_record_is_what_numbers_are_compared_by(workplace):
    suite = scored(workplace, NUMBER)
    split = suite.runs[0].params.evaluate.split
    suite = scored(workplace, NUMBER | {"measured_by": MEASURED | {"split": split}})
    for run in suite.runs:
        write_run(run, 0.6, protocol=protocol(run.params.evaluate, 3))
    assert f"| 61.05 | -1.1 | {CITED} |" in read(suite)


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ({"flip": None}, r"published\.0\.measured_by\.flip: found None"),
        ({"scales": []}, r"published\.0\.measured_by\.scales"),
        ({"overlap": 0.5}, "window is null"),
        ({"clases": 3}, r"measured_by\.clases: unknown key; did you mean 'classes'"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(workplace, measured, told):
    with pytest.raises(ParamsError, match=told):
        scored(workplace, NUMBER | {"measured_by": MEASURED | measured})


@pytest.mark.parametrize("key", MEASURED)
def test_a_protocol_is_told_in_full(workplace, key):
    part = {name: value for name, value in MEASURED.items() if name != key}
    with pytest.raises(ParamsError, match=rf"published\.0\.measured_by\.{key}: this key is missing"):
        scored(workplace, NUMBER | {"measured_by": part})


def test_what_the_tables_cite_is_comparable_with_what_the_paper_suite_measures():
    """Every cited number was measured whole, once, on the classes that the benchmark has."""
    root = Path(__file__).parents[3] / "params"
    suite, cited = load_suite("paper", root), 0
    for table in suite.tables:
        for number in table.published:
            run = next(run for run in suite.runs if (run.row, run.dataset) == (number.row, number.dataset))
            ours = protocol(run.params.evaluate, 19)
            theirs = yaml.safe_load(number.measured_by.model_dump_json(exclude={"name"}))
            assert {key: ours[key] for key in theirs} == theirs
            cited += 1
    assert cited == 10
