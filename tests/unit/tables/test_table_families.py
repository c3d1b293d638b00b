"""Several comparisons of one table over many seeds, from metrics files to the text under the table."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gald import paths
from gald.errors import ParamsError
from gald.files import write_text
from gald.params import SCORES
from gald.tables.comparisons import corrected
from gald.tables.content import Comparison
from gald.tables.run import build_table
from gald.tables.significance import sign_flip, t_test
from gald.tables.statistics import difference
from tests.unit.tables.conftest import TABLE, write_params, write_run

# Deviation 0.016 points of 1: t = 141 with five, 173 with six.
STEADY = (0.0100, 0.0101, 0.0099, 0.0102, 0.0098, 0.0100)
RISING = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)  # mean 3.5, deviation 1.87 points: t = 4.58, p = 0.0059
TORN = (0.03, 0.03, 0.03, 0.03, 0.03, -0.002)  # t = 4.63, p = 0.0057; of 64 flips 4 lie as far: p = 0.0625


def families(root, gains, seeds, columns, **changes):
    """Build a table of GA and GA then LD, whose scores differ by `gains`, and return its text."""
    table = TABLE | {"columns": list(columns), "main": None, "contrasts": [{"row": "ga-ld", "than": "ga"}]} | changes
    suite = write_params(
        root, {"components": table}, {"components": {"datasets": ["camvid"], "seeds": list(range(seeds))}}
    )
    for run in suite.runs:
        gained = {name: each[run.seed] for name, each in gains.items()} if run.row == "ga-ld" else {}
        scores = {name: 0.5 + gained.get(name, 0.0) for name in SCORES}
        write_run(run, scores["mean_iou"], scores=scores)
    build_table(suite, "components")
    return paths.table(suite.name, "components", "md").read_text()


@pytest.mark.parametrize("seeds", [5, 6])
def test_a_further_seed_that_agrees_takes_no_verdict_away(workplace, seeds):
    # The sign-flip test's p value is 2 / 64 at best with six seeds; times 30 comparisons it would forbid any verdict.
    columns = list(SCORES)[:30]
    text = families(workplace, {"boundary_iou_3": STEADY}, seeds, columns, layout="scores")
    assert "| Boundary IoU, 3 px (%) | 50.0 ± 0.0 | 51.0 ± 0.0 | +1.0, higher |" in text
    assert text.count("0.0, not distinguishable |") == 29
    assert "among the 30 comparisons other than the main one" in text


COLUMNS = ("mean_iou", "trimap_mean_iou_1", "trimap_mean_iou_3", "trimap_mean_iou_5", "boundary_iou_1", "boundary_f_1")


def test_six_seeds_pass_both_tests_or_are_told_which_one_they_fail(workplace):
    gains = {"mean_iou": STEADY, "boundary_iou_1": RISING, "boundary_f_1": TORN}
    text = families(workplace, gains, 6, COLUMNS)
    outcomes = {found[1]: line for line in text.splitlines() if (found := re.search(r"CamVid, (.*?): GA, then", line))}
    assert outcomes["mIoU"].endswith("higher (corrected p < 0.001).")
    assert "mean +3.5 points" in outcomes["Boundary IoU, 1 px"]
    # Sorted: 1e-10, 0.0057 (torn), 0.0059 (rising), 1, 1, 1, so that the rising one is held to 5 x 0.0057.
    assert outcomes["Boundary IoU, 1 px"].endswith("higher (corrected p = 0.029).")
    assert outcomes["Boundary F-score, 1 px"].endswith("not distinguishable (sign-flip test, p = 0.062).")
    assert "from six seeds on each must pass its own sign-flip test too, at 0.05" in text


def test_holm_decides_where_the_sign_flip_test_is_passed(workplace):
    columns = list(SCORES)[:10]  # ten tests: 10 x 0.0059 is too much, though 2 / 64 passes
    text = families(workplace, {"mean_iou": RISING}, 6, columns)
    assert "mIoU: GA, then LD minus GA: +1.0, +2.0, +3.0, +4.0, +5.0, +6.0" in text
    assert "not distinguishable (corrected p = 0.059)" in text
    assert (round(t_test(RISING), 4), sign_flip(RISING)) == (0.0059, 2 / 64)


def test_the_note_says_what_a_first_verdict_takes(workplace):
    # Any table of t: 0.05 / 30 two-sided is 24.5 with 2 degrees of freedom, 0.05 / 2 is 6.21.
    text = families(workplace, {}, 3, list(SCORES)[:30])
    assert (
        "Not distinguishable means not shown, which is not the same as equal: of 30 p values the smallest must be "
        "0.0017 or less before correction, an absolute t of 24.5 with 3 seeds." in text
    )
    assert "0.025 or less before correction, an absolute t of 6.21 with 3 seeds" in families(
        workplace, {}, 3, list(SCORES)[:2]
    )


def one(change) -> Comparison:
    return Comparison("camvid", "mean_iou", "a", "b", change)


@pytest.mark.parametrize(("seeds", "shared"), [(3, 0.7), (6, 0.0), (8, 0.7)])
def test_a_family_without_any_difference_is_rarely_told_apart(seeds, shared):
    """Of 600 tables of 10 comparisons of equal rows at most 5 % call any row higher or lower, but for chance."""
    generator = np.random.default_rng(seeds)
    wrong = 0
    for _ in range(600):
        noise = generator.standard_normal((10, seeds)) * (1 - shared) ** 0.5
        noise += generator.standard_normal(seeds) * shared**0.5  # scores of one run rise and fall together
        family = [one(difference(dict.fromkeys(range(seeds), 0.0), dict(enumerate(row)))) for row in noise]
        wrong += any(each.distinguishable for each in corrected(family))
    assert wrong / 600 <= 0.05 + 2 * (0.05 * 0.95 / 600) ** 0.5


@pytest.mark.parametrize(
    ("seen", "seeds", "heading", "of"),
    [
        ({}, 3, "named beforehand", None),
        ({"other": [0, 1, 2]}, 3, "named beforehand", None),  # of another scale
        ({"tiny": [3, 4]}, 3, "named beforehand", None),  # of seeds that are not compared here
        ({"tiny": [0, 1, 2]}, 5, "named when the results of seeds 0, 1, 2 had been seen", "seeds 0, 1, 2"),
        ({"tiny": [0, 1, 2]}, 1, "named when the results of seed 0 had been seen", "seed 0"),
    ],
)
def test_a_comparison_that_was_named_after_results_had_been_seen_says_so(workplace, seen, seeds, heading, of):
    write_text(workplace / "params/suites/other.yaml", "{title: Another, edition: mini, recipe: mini, tables: {}}")
    text = families(workplace, {}, seeds, COLUMNS, main=TABLE["main"] | {"seen": seen}, contrasts=[])
    page = paths.table("tiny", "components", "html").read_text()
    assert f"Main comparison, {heading}. Does LD help?" in text
    assert f"<h3>Main comparison, {heading}</h3>" in page
    note = f"EXPLORATORY: the main comparison was named when the results of {of} had been seen"
    assert (note in text, f'<li class="flag">{note}' in page) == (of is not None, of is not None)


def test_scales_that_no_suite_has_are_refused(workplace):
    table = TABLE | {"main": TABLE["main"] | {"seen": {"tinny": [0]}}}
    with pytest.raises(
        ParamsError, match=r"components\.yaml: main\.seen\.tinny: no suite has that scale; did you mean 'tiny'"
    ):
        write_params(workplace, {"components": table}, {"components": {"datasets": ["camvid"], "seeds": [0]}})
