"""How many seeds a difference takes, from the seeds that there are."""

import math
from pathlib import Path
from typing import Any

import pytest

from gald.cli import main
from gald.commands.power import power
from gald.errors import ParamsError
from gald.params import load_suite
from tests.unit.tables.conftest import TABLE, write_params, write_run

UNNAMED = {**TABLE, "main": None, "title": "Unnamed"}
COSTS = {**TABLE, "main": None, "columns": ["parameters"], "title": "Costs"}


def of_seeds(root: Path, scores: dict[str, tuple[float, ...]], tables: tuple[str, ...] = ("components",)) -> str:
    seeds = list(range(len(next(iter(scores.values())))))
    known = {"components": TABLE, "unnamed": UNNAMED, "costs": COSTS}
    uses = {name: {"datasets": ["camvid"], "seeds": seeds} for name in tables}
    suite = write_params(root, {name: known[name] for name in tables}, uses)
    for run in suite.runs:
        write_run(run, scores[run.row][run.seed])
    return suite.name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def row_of(report: str, start: str) -> list[str]:
    line = next(line for line in report.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_seeds_for_a_deviation_of_one_point(here: Path) -> None:
    # Differences of 2, 3 and 4 points deviate by 1. Cohen (1988) and any calculator: effect 0.5 takes 34 pairs, effect
    # 2 takes 5, effect 1 takes 10 by the t test, and one more passes the sign-flip test too.
    # Of 3 seeds the deviation's 95 % interval is 0.52 to 6.28 points.
    report = power(of_seeds(here, {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)}))
    head = row_of(report, "pair")
    cells = dict(zip(head, row_of(report, "GA, then LD minus GA (named)"), strict=True))
    assert head == ["pair", "tests", "n", "mean", "deviation", "0.1", "0.2", "0.5", "1", "2", "resolved now"]
    assert [cells[name] for name in ("tests", "n", "mean", "deviation")] == ["1", "3", "+3.00", "1.00"]
    assert cells["1"].startswith("11 (5 to ")
    assert cells["0.5"].startswith("34 (")
    assert cells["2"].startswith("5 (3 to ")
    assert cells["0.1"].endswith("to > 10000)")
    assert cells["resolved now"] == "3.26"
    assert "power of 80 %" in " ".join(report.split())


@pytest.mark.parametrize("count", [1, 2])
def test_few_seeds_promise_nothing(here: Path, count: int) -> None:
    report = power(of_seeds(here, {"ga": (0.60, 0.62)[:count], "ga-ld": (0.62, 0.65)[:count]}))
    assert row_of(report, "GA, then LD")[4:] == ["unknown", *["?"] * 6]
    assert "With fewer than 3 seeds the spread is not known well enough" in report


@pytest.mark.parametrize("gain", [0.25, 0.0])
def test_seeds_that_differ_by_the_same_amount_promise_nothing(here: Path, gain: float) -> None:
    report = power(of_seeds(here, {"ga": (0.5, 0.6, 0.7), "ga-ld": (0.5 + gain, 0.6 + gain, 0.7 + gain)}))
    assert row_of(report, "GA, then LD")[4:] == ["none", *["?"] * 6]
    assert "nothing is known of the spread" in report


def test_every_table_with_scores_and_a_difference_of_ones_own(here: Path) -> None:
    scores = {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)}
    suite = of_seeds(here, scores, ("components", "unnamed", "costs"))
    report = power(suite, difference=0.3)
    assert [line for line in report.splitlines() if line.startswith("## ")] == [
        "## Components: mIoU, points", "## Unnamed: mIoU, points",
    ]  # fmt: skip
    assert row_of(report, "pair")[5:] == ["0.3", "resolved now"]
    assert "(named)" not in power(suite, "unnamed")
    with pytest.raises(ParamsError, match="no table of suite 'tiny' has a score to compare"):
        power(suite, "costs")
    with pytest.raises(ParamsError, match="did you mean 'components'"):
        power(suite, "component")
    for wrong in (0, math.nan, math.inf):
        with pytest.raises(ParamsError, match=f"--difference is {wrong}"):
            power(suite, difference=wrong)


def test_one_of_several_comparisons_takes_more_seeds(here: Path) -> None:
    # The table makes two comparisons, both corrected: mIoU is held to 2.5 %. Effect 2 / 6.28 then takes
    # (2.24 + 0.84)^2 / 0.318^2 = 94 pairs and a few for the spread's own spread.
    table = {**UNNAMED, "contrasts": [{"row": "ga-ld", "than": "ga"}], "columns": ["mean_iou", "trimap_mean_iou_3"]}
    suite = write_params(here, {"unnamed": table}, {"unnamed": {"datasets": ["camvid"], "seeds": [0, 1, 2]}})
    for run in suite.runs:
        write_run(run, 0.5 + 0.01 * (run.row == "ga-ld") * (2 + run.seed), scores={"boundary_f_1": 0.1 * run.seed})
    report = power("tiny", difference=2)
    assert row_of(report, "GA, then LD")[1:6] == ["2", "3", "+3.00", "1.00", "6 (4 to 97)"]
    # A score that the table does not show would be a third.
    assert row_of(power("tiny", score="boundary_f_1"), "GA, then LD")[1] == "3"


def test_any_score_and_any_two_rows(here: Path) -> None:
    suite = of_seeds(here, {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)}, ("components", "unnamed"))
    for run in load_suite(suite, here / "params").runs:
        gained = (0.01, 0.02, 0.06)[run.seed] if run.row == "ga-ld" else 0.0
        write_run(run, 0.5, scores={"boundary_iou_9": 0.3 + gained})
    report = power(suite, "components", score="boundary_iou_9")
    assert "## Components: Boundary IoU, 9 px, points" in report
    assert row_of(report, "GA, then LD minus GA")[1:4] == ["2", "3", "+3.00"]  # not the named score: no main comparison
    backwards = power(suite, "components", rows=("ga", "ga-ld"), score="boundary_iou_9")
    assert row_of(backwards, "GA minus GA, then LD")[1:4] == ["2", "3", "-3.00"]
    assert "(named)" in power(suite, "components", rows=("ga", "ga-ld"))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"score": "boundary_iou_4"}, r"--score: no score is called 'boundary_iou_4'; did you mean 'boundary_iou_\d'"),
        ({"score": "parameters"}, "--score: no score is called 'parameters'"),
        ({"rows": ("ga", "ga-l")}, "--rows: no row 'ga-l' in components of suite 'tiny'; did you mean 'ga-ld'"),
        ({"rows": ("ga", "ga")}, "--rows names 'ga' twice"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(here: Path, asked: dict[str, Any], told: str) -> None:
    suite = of_seeds(here, {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)})
    with pytest.raises(ParamsError, match=told):
        power(suite, **asked)


def test_two_rows_of_different_tables_are_no_pair(here: Path) -> None:
    tables = {"components": TABLE, "unnamed": UNNAMED}
    use = {"datasets": ["camvid"], "seeds": [0]}
    uses = {"components": use | {"rows": ["ga"]}, "unnamed": use | {"rows": ["ga-ld"]}}
    for run in write_params(here, tables, uses).runs:
        write_run(run, 0.5)
    with pytest.raises(ParamsError, match="no table of suite 'tiny' shows both 'ga-ld' and 'ga'"):
        power("tiny", rows=("ga-ld", "ga"))


def test_the_command_line_takes_score_and_rows(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_seeds(here, {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)})
    main(["power", "tiny", "components", "--score", "mean_iou", "--rows", "ga", "ga-ld", "--difference", "0.5"])
    assert row_of(capsys.readouterr().out, "GA minus GA, then LD (named)")[3:5] == ["-3.00", "1.00"]


def test_one_row_has_no_pair(here: Path) -> None:
    uses = {"unnamed": {"datasets": ["camvid"], "seeds": [0, 1, 2], "rows": ["ga"]}}
    for run in write_params(here, {"unnamed": UNNAMED}, uses).runs:
        write_run(run, 0.5)
    with pytest.raises(ParamsError, match="has a score to compare"):
        power("tiny")


def test_columns_are_aligned_for_a_terminal(here: Path) -> None:
    report = power(of_seeds(here, {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)}))
    assert len({len(line) for line in report.splitlines() if line.startswith("|")}) == 1
