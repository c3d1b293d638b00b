import itertools

import pytest

from gald.tables.comparisons import corrected
from gald.tables.content import Comparison
from gald.tables.significance import holm, sign_flip, t_test
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


VALUES = (0.013, -0.002, 0.021, 0.008, 0.017, 0.004, 0.011)


def test_the_t_test_is_scipys():
    from scipy import stats

    assert t_test(VALUES) == pytest.approx(stats.ttest_1samp(VALUES, 0).pvalue, rel=1e-12)
    assert (t_test([0.0, 0.0, 0.0]), t_test([0.5, 0.5, 0.5])) == (1.0, 0.0)


def test_sign_flips_are_all_tried():
    # By hand: of 1, 2, 3 the sums are 6, 4, 2, 0, 0, 2, 4, 6 without their signs.
    assert sign_flip([1, 2, 3]) == 2 / 8
    assert sign_flip([-1, -2, 3]) == 8 / 8
    assert sign_flip([1, -2, 3]) == 6 / 8
    seen = abs(sum(VALUES))
    flips = itertools.product((1, -1), repeat=len(VALUES))
    sums = [abs(sum(sign * value for sign, value in zip(signs, VALUES, strict=True))) for signs in flips]
    assert sign_flip(VALUES) == sum(one >= seen - 1e-12 for one in sums) / 2**7


def test_flips_that_tie_but_for_rounding_are_counted():
    assert sign_flip([0.1, 0.2, -0.3, 0.0]) == 1.0


def test_drawn_flips_come_close_and_are_drawn_again_alike(monkeypatch):
    exact = sign_flip(VALUES)
    monkeypatch.setattr("gald.tables.significance._EXACT", 3)
    assert sign_flip(VALUES) == pytest.approx(exact, abs=0.004)
    assert sign_flip(VALUES) == sign_flip(VALUES)
    assert sign_flip(VALUES, seed=1) != sign_flip(VALUES)
    many = sign_flip([1.0] * 40)
    assert many == 1 / 100_001  # never zero


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; what follows is never smaller.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_from_six_seeds_on_the_sign_flip_test_has_a_say():
    # One outlier against five equal gains: the t interval of six leaves zero out, but with five it had no second test.
    five = difference(dict.fromkeys(range(5), 0.5), {seed: 0.51 + 0.001 * seed for seed in range(5)})
    assert (five.sign_flip, five.distinguishable) == (None, True)
    six = difference(dict.fromkeys(range(6), 0.5), {seed: 0.51 + 0.001 * seed for seed in range(6)})
    assert (six.sign_flip, six.distinguishable) == (2 / 64, True)
    assert six.t_test < 2 / 64
    torn = Difference(tuple(range(6)), (0.01,) * 6, 0.01, (0.002, 0.018), 0.02, 0.0625)
    assert not torn.distinguishable
    assert verdict(torn) == "not distinguishable (sign-flip test, p = 0.062)"


@pytest.mark.parametrize("seeds", [3, 6])
def test_differences_without_spread_allow_no_verdict(seeds):
    # 0.3 - 0.2 and 0.4 - 0.3 are not equal as floats: their rounding is no spread.
    rounded = difference(
        {seed: 0.1 + seed / 10 for seed in range(seeds)}, {seed: 0.2 + seed / 10 for seed in range(seeds)}
    )
    assert len(set(rounded.values)) > 1
    assert (rounded.interval, rounded.t_test, rounded.distinguishable) == (None, None, False)
    assert verdict(rounded).startswith(f"no spread over {seeds} seeds, no verdict")
    nothing = difference(dict.fromkeys(range(seeds), 1.0), dict.fromkeys(range(seeds), 1.0))
    assert verdict(nothing) == "not distinguishable (the interval covers zero)"


def test_a_family_is_corrected_and_those_without_a_test_are_no_part_of_it():
    def one(p):
        return Comparison("d", "mean_iou", "a", "b", Difference((0, 1, 2), (0.1,) * 3, 0.1, (0.05, 0.15), p))

    untested = Comparison("d", "mean_iou", "a", "b", Difference((0,), (0.1,), 0.1, None))
    family = corrected([one(0.04), untested, one(0.01)])
    assert [each.adjusted for each in family] == pytest.approx([0.04, None, 0.02])
    assert corrected([one(0.04)])[0].adjusted is None  # the main comparison on one benchmark is one test
    assert not corrected([one(0.04), one(0.03)])[0].distinguishable
