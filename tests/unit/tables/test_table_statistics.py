import pytest

from gald.tables.statistics import Difference, difference, points, spread, t_interval, verdict


def test_mean_and_sample_deviation_by_hand():
    # 0.60, 0.62, 0.67: mean 0.63, squared deviations 9, 1 and 16 (in 1e-4), their sum over 2 is 13e-4.
    whole = spread([0.60, 0.62, 0.67])
    assert whole.mean == pytest.approx(0.63)
    assert whole.deviation == pytest.approx(0.0013**0.5)
    assert whole.n == 3


def test_t_interval_by_hand():
    # Differences 1, 2, 3 points: deviation 1, standard error 1/sqrt(3), t(0.975, 2) = 4.302653 (any table).
    low, high = t_interval([0.01, 0.02, 0.03])
    half = 4.302653 * 0.01 / 3**0.5
    assert low == pytest.approx(0.02 - half, abs=1e-8)
    assert high == pytest.approx(0.02 + half, abs=1e-8)


def test_seeds_are_paired_by_number_and_not_by_position():
    change = difference({0: 0.5, 1: 0.6, 2: 0.9}, {2: 1.0, 1: 0.7, 7: 0.0})
    assert change is not None
    assert change.seeds == (1, 2)
    assert change.values == pytest.approx((0.1, 0.1))
    assert change.mean == pytest.approx(0.1)
    assert change.interval is None


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        ({0: 0.51}, "one seed, no verdict"),
        ({0: 0.51, 1: 0.52}, "2 seeds, no verdict (it takes 3)"),
        ({0: 0.51, 1: 0.52, 2: 0.53}, "not distinguishable (the interval covers zero)"),
        ({0: 0.519, 1: 0.520, 2: 0.521}, "higher (the interval leaves zero out)"),
        ({0: 0.481, 1: 0.480, 2: 0.479}, "lower (the interval leaves zero out)"),
        ({0: 0.5, 1: 0.5, 2: 0.5}, "not distinguishable (the interval covers zero)"),
        ({7: 0.5}, "no seed in common, no verdict"),
    ],
)
def test_verdicts(candidate, says):
    # 1, 2 and 3 points give 2 -+ 2.48: the interval covers zero although each seed gained.
    assert verdict(difference({0: 0.5, 1: 0.5, 2: 0.5}, candidate)) == says


def test_an_interval_that_ends_at_zero_decides_nothing():
    assert not Difference((0, 1, 2), (0.0, 0.0, 0.03), 0.01, (0.0, 0.02)).distinguishable


@pytest.mark.parametrize(("value", "text"), [(-0.0004, "0.0"), (0.0004, "0.0"), (-0.0006, "-0.1"), (1.0, "+100.0")])
def test_a_rounded_zero_bears_no_sign(value, text):
    assert points(value, signed=True) == text
