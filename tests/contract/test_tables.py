"""What every table's file and every suite that builds it promise, by listing."""

from pathlib import Path

import pytest

from gald.params import SCORES, load_suite, load_table, suite_names

PARAMS = Path(__file__).parents[2] / "params"
TABLES = sorted(path.stem for path in (PARAMS / "tables").glob("*.yaml"))
SUITES = {name: load_suite(name, PARAMS) for name in suite_names(PARAMS)}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_scores_names_its_main_comparison(name: str) -> None:
    table = load_table(name, PARAMS)
    if not set(table.columns) & set(SCORES):
        return  # a table of costs compares nothing
    assert table.main is not None
    assert table.main.column in table.columns
    assert table.main.question.endswith("?")
    scales = {suite.scale: {run.seed for run in suite.runs} for suite in SUITES.values()}
    for scale, seeds in table.main.seen.items():
        assert set(seeds) <= scales[scale]


@pytest.mark.parametrize("name", SUITES)
def test_fine_detail_shows_the_components_rows_and_trains_nothing_more(name: str) -> None:
    cells = SUITES[name].cells
    if "fine_detail" in cells:
        assert cells["fine_detail"] == cells["components"]


def test_fine_detail_asks_what_aggregation_takes_and_what_each_distribution_gives_back() -> None:
    table = load_table("fine_detail", PARAMS)
    assert table.main is not None
    named = {(table.main.row, table.main.than)} | {(pair.row, pair.than) for pair in table.contrasts}
    assert named == {("psp-affinity", "psp"), ("psp", "none"), ("psp-mask", "psp")}
    assert table.main.column.startswith("trimap_mean_iou")
