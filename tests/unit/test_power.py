"""How many seeds a difference takes, from the seeds that there are."""

import math
from pathlib import Path

import pytest

from gald.commands.power import power
from gald.errors import ParamsError
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
    # Differences of 2, 3 and 4 points deviate by 1. Cohen (1988) and any calculator: effect 1 takes 10 pairs, effect
    # 0.5 takes 34, effect 2 takes 5. Of 3 seeds the deviation's 95 % interval is 0.52 to 6.28 points.
    report = power(of_seeds(here, {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)}))
    head = row_of(report, "pair")
    cells = dict(zip(head, row_of(report, "GA, then LD minus GA (named)"), strict=True))
    assert head == ["pair", "n", "mean", "deviation", "0.1", "0.2", "0.5", "1", "2", "resolved now"]
    assert (cells["n"], cells["mean"], cells["deviation"]) == ("3", "+3.00", "1.00")
    assert cells["1"].startswith("10 (5 to ")
    assert cells["0.5"].startswith("34 (")
    assert cells["2"].startswith("5 (3 to ")
    assert cells["0.1"].endswith("to > 10000)")
    assert cells["resolved now"] == "3.26"
    assert "power of 80 %" in report


@pytest.mark.parametrize("count", [1, 2])
def test_few_seeds_promise_nothing(here: Path, count: int) -> None:
    report = power(of_seeds(here, {"ga": (0.60, 0.62)[:count], "ga-ld": (0.62, 0.65)[:count]}))
    assert row_of(report, "GA, then LD")[3:] == ["unknown", *["?"] * 6]
    assert "With fewer than 3 seeds the spread is not known well enough" in report


@pytest.mark.parametrize("gain", [0.25, 0.0])
def test_seeds_that_differ_by_the_same_amount_promise_nothing(here: Path, gain: float) -> None:
    report = power(of_seeds(here, {"ga": (0.5, 0.6, 0.7), "ga-ld": (0.5 + gain, 0.6 + gain, 0.7 + gain)}))
    assert row_of(report, "GA, then LD")[3:] == ["none", *["?"] * 6]
    assert "nothing is known of the spread" in report


def test_every_table_with_scores_and_a_difference_of_ones_own(here: Path) -> None:
    scores = {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)}
    suite = of_seeds(here, scores, ("components", "unnamed", "costs"))
    report = power(suite, difference=0.3)
    assert [line for line in report.splitlines() if line.startswith("## ")] == [
        "## Components: mIoU, points", "## Unnamed: mIoU, points",
    ]  # fmt: skip
    assert row_of(report, "pair")[4:] == ["0.3", "resolved now"]
    assert "(named)" not in power(suite, "unnamed")
    with pytest.raises(ParamsError, match="no table of suite 'tiny' has a score to compare"):
        power(suite, "costs")
    with pytest.raises(ParamsError, match="did you mean 'components'"):
        power(suite, "component")
    for wrong in (0, math.nan, math.inf):
        with pytest.raises(ParamsError, match=f"--difference is {wrong}"):
            power(suite, difference=wrong)


def test_one_row_has_no_pair(here: Path) -> None:
    uses = {"unnamed": {"datasets": ["camvid"], "seeds": [0, 1, 2], "rows": ["ga"]}}
    for run in write_params(here, {"unnamed": UNNAMED}, uses).runs:
        write_run(run, 0.5)
    with pytest.raises(ParamsError, match="has a score to compare"):
        power("tiny")


def test_columns_are_aligned_for_a_terminal(here: Path) -> None:
    report = power(of_seeds(here, {"ga": (0.60, 0.62, 0.67), "ga-ld": (0.62, 0.65, 0.71)}))
    assert len({len(line) for line in report.splitlines() if line.startswith("|")}) == 1
