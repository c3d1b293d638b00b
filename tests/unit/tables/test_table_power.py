"""Power of the rule that tables apply: against calculators for its t test, against drawn seeds for the whole of it."""

from __future__ import annotations

import numpy as np
import pytest

from gald.tables.comparisons import corrected
from gald.tables.content import Comparison
from gald.tables.power import power, resolved, seeds_needed, t_power
from gald.tables.significance import t_bound
from gald.tables.statistics import Difference, difference


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_pairs_as_known_calculators_have_them(effect, pairs):
    # G*Power, t tests, matched pairs, two-sided, alpha 0.05, power 0.8.
    assert t_power(pairs - 1, effect, t_bound(pairs - 1, 0.05)) < 0.8 <= t_power(pairs, effect, t_bound(pairs, 0.05))
    # Of ten pairs the sign-flip test lets 79 % pass: one more is needed.
    assert seeds_needed(effect, 1.0) == pairs + (effect == 1.0)


def test_power_of_the_t_test_as_drawn():
    generator = np.random.default_rng(0)
    values = generator.normal(1.5, 1.0, (20_000, 4))
    found = np.abs(values.mean(axis=1)) > 3.182446 * values.std(axis=1, ddof=1) / 2  # t(0.975, 3), any table
    assert power(4, 1.5, 1.0) == pytest.approx(found.mean(), abs=0.012)


def drawn(generator: np.random.Generator, seeds: int, effect: float) -> Difference:
    values = generator.normal(effect, 1.0, seeds)
    found = difference(dict.fromkeys(range(seeds), 0.0), dict(enumerate(values)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("seeds", "effect"),
    [
        (3, 2.0),
        (5, 1.5),
        (
            6,
            1.5,
        ),  # 68 % of such six differences all have one sign, which the sign-flip test asks for; 84 % pass the t test
        (6, 0.0),
        (8, 1.2),
        (10, 1.0),
        pytest.param(
            13, 0.86, marks=pytest.mark.slow
        ),  # the first number of seeds at which the sign-flip test is left out
    ],
)
def test_power_is_how_often_rows_are_told_apart(seeds, effect):
    generator = np.random.default_rng(seeds)
    rate = np.mean([drawn(generator, seeds, effect).distinguishable for _ in range(3000)])
    assert power(seeds, effect, 1.0) == pytest.approx(rate, abs=3 * (0.25 / 3000) ** 0.5)


@pytest.mark.parametrize(("seeds", "effect"), [(3, 6.0), (6, 2.0)])
def test_power_of_one_of_several_comparisons_is_that_of_the_corrected_family(seeds, effect):
    generator = np.random.default_rng(seeds)
    told = 0
    for _ in range(1000):
        changes = [drawn(generator, seeds, effect if place == 0 else 0.0) for place in range(8)]
        told += corrected([Comparison("camvid", "mean_iou", "a", "b", one) for one in changes])[0].distinguishable
    expected = power(seeds, effect, 1.0, tests=8)
    assert told / 1000 == pytest.approx(expected, abs=3 * (0.25 / 1000) ** 0.5)
    assert expected < power(seeds, effect, 1.0) - 0.1


def test_the_sign_flip_test_takes_power_away_and_never_adds_any():
    bound = t_bound(6, 0.05)
    assert t_power(6, 1.5, bound) - power(6, 1.5, 1.0) > 0.1
    # By hand: all six are gains with a probability of Phi(1.5)^6 = 0.9332^6 = 0.660.
    assert power(6, 1.5, 1.0) == pytest.approx(0.660, abs=0.015)
    assert power(5, 1.8, 1.0) > power(6, 1.5, 1.0)
    # Of 30 comparisons t must reach 6.4 > 5, beyond which six differences all have one sign: nothing is lost.
    assert power(6, 3.0, 1.0, tests=30) == t_power(6, 3.0, t_bound(6, 0.05 / 30))


def test_what_is_resolved_is_what_the_seeds_are_needed_for():
    for seeds, tests in ((3, 1), (6, 1), (9, 1), (20, 1), (3, 30), (9, 30)):
        smallest = resolved(seeds, 0.4, tests=tests)
        assert power(seeds, smallest, 0.4, tests=tests) == pytest.approx(0.8, abs=0.002)
        assert seeds_needed(1.001 * smallest, 0.4, tests=tests) <= seeds
    assert resolved(7, 0.4) < resolved(5, 0.4) < resolved(6, 0.4)  # six must all be gains, and that they seldom are
