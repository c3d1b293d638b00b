"""How many seeds would resolve a difference, from the spread that was seen.

The rule planned for is the one that tables apply: the two-sided t test on paired differences and, from six pairs on,
the sign-flip test too. The t test's power at a true difference d, with n seeds and a deviation s of the differences,
follows from the noncentral t distribution with n - 1 degrees of freedom and noncentrality d sqrt(n) / s. What the
sign-flip test takes off it is found by drawing: each draw of n errors has one smallest difference at which the t test,
and one at which the sign-flip test, calls it a gain. It takes so much of six that they resolve less than five do.

Of several comparisons the t test is held to the plain level divided by their number, Holm's first step: the power that
is left where no other of them differs, and less than there is where others do.

References
----------
Cohen, "Statistical Power Analysis for the Behavioral Sciences" (1988), chapter 2.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from gald.tables.significance import MIN_FLIPS, t_bound
from gald.tables.statistics import CONFIDENCE, LEVEL, MIN_SEEDS

POWER = 0.8
MOST = 10_000  # seeds; beyond, a figure would be of no use
_GATED = 12  # from 13 seeds on the sign-flip test takes less than half a percent off a power of 80 %: left out
_MEANS = 1 << 22  # means over subsets of a draw's errors that are looked at for one number of seeds, 32 MiB
_DRAWS = 20_000

Values = npt.NDArray[np.float64]


def power(seeds: int, difference: float, deviation: float, *, tests: int = 1) -> float:
    """Chance that a comparison over some seeds calls a row higher or lower.

    Parameters
    ----------
    seeds : int
        At least 2.
    difference, deviation : float
        True mean of the differences between two rows, and their standard deviation above 0, in one unit.
    tests : int
        Comparisons that this one is corrected among, itself included.

    Examples
    --------
    >>> round(power(3, 1.0, 1.0), 3), round(power(20, 1.0, 1.0), 3), round(power(20, 1.0, 1.0, tests=30), 3)
    (0.179, 0.989, 0.771)
    """
    effect = abs(difference) / deviation
    bound = t_bound(seeds, LEVEL / tests)
    return t_power(seeds, effect, bound) - _lost(seeds, effect, bound)


def t_power(seeds: int, effect: float, bound: float) -> float:
    """Chance that t over some seeds lies beyond a bound on either side.

    Parameters
    ----------
    seeds : int
        At least 2.
    effect : float
        True mean of the differences in units of their standard deviation.
    bound : float
        As `gald.tables.significance.t_bound` gives it.
    """
    from scipy.special import nctdtr

    missed, wrong = (float(nctdtr(seeds - 1, effect * math.sqrt(seeds), end)) for end in (bound, -bound))
    return 1 - _or_nothing(missed) + _or_nothing(wrong)


def _or_nothing(share: float) -> float:
    """Take a share of a distribution for zero where scipy gives NaN: so far out that no float would hold it."""
    return 0.0 if math.isnan(share) else share


def _lost(seeds: int, effect: float, bound: float) -> float:
    """Chance that the t test rejects and the sign-flip test does not."""
    # Beyond a t of n - 1 all values have one sign, and no flip lies as far out as they do.
    if not MIN_FLIPS <= seeds <= _GATED or bound >= seeds - 1:
        return 0.0
    means, deviations, flips = _drawn(seeds)
    smallest = bound * deviations / math.sqrt(seeds) - means  # effect at which t reaches the bound
    return sum(float(np.mean((smallest <= true) & (flips > true))) for true in (effect, -effect))


@cache
def _drawn(seeds: int) -> tuple[Values, Values, Values]:
    """Draw errors: their means, deviations, and the effect above which the sign-flip test rejects; each (draws,).

    With errors z and an effect d, twice the sets of values whose sum z + d is not above zero, the empty one among them,
    is the number of flips that lie as far out as the values themselves. A set leaves the count where d exceeds minus
    its mean error; so many may stay that the p value is at most the level.
    """
    left = math.floor(LEVEL * 2 ** (seeds - 1))
    errors = np.random.default_rng(0).standard_normal((min(_DRAWS, _MEANS >> seeds), seeds))
    sets = (np.arange(1, 2**seeds)[:, None] >> np.arange(seeds) & 1).astype(np.float64)
    turning = -errors @ (sets / sets.sum(axis=1, keepdims=True)).T  # draws x sets
    place = turning.shape[1] - left
    return errors.mean(axis=1), errors.std(axis=1, ddof=1), np.partition(turning, place, axis=1)[:, place]


def seeds_needed(difference: float, deviation: float, *, tests: int = 1) -> int | None:
    """Fewest seeds, at least 3, with which a difference is resolved with a power of 80 %; None above 10 000.

    Parameters
    ----------
    difference, deviation : float
        As for `power`; a deviation of 0 takes the fewest seeds.
    tests : int
        As for `power`.

    Examples
    --------
    >>> seeds_needed(1.0, 1.0), seeds_needed(5.0, 1.0), seeds_needed(0.001, 1.0), seeds_needed(1.0, 1.0, tests=30)
    (11, 3, None, 21)
    """
    if deviation == 0:
        return MIN_SEEDS
    for seeds in range(MIN_SEEDS, _GATED + 1):  # one by one: at six, the sign-flip test may take away what five had
        if power(seeds, difference, deviation, tests=tests) >= POWER:
            return seeds
    if power(MOST, difference, deviation, tests=tests) < POWER:
        return None
    low, high = _GATED, MOST  # from there on power grows with the number of seeds: the first that is enough, by halving
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(middle, difference, deviation, tests=tests) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def resolved(seeds: int, deviation: float, *, tests: int = 1) -> float:
    """Smallest difference that some seeds resolve with a power of 80 %, in the deviation's unit.

    Examples
    --------
    >>> round(resolved(20, 1.0), 2), round(resolved(3, 1.0), 2), round(resolved(3, 1.0, tests=30), 2)
    (0.66, 3.26, 17.94)
    """
    if deviation == 0:
        return 0.0
    low, high = 0.0, 1.0
    while power(seeds, high, 1.0, tests=tests) < POWER:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if power(seeds, middle, 1.0, tests=tests) >= POWER else (middle, high)
    return high * deviation


def deviation_interval(deviation: float, seeds: int) -> tuple[float, float]:
    """Ends of the 95 % interval of a standard deviation that was estimated from some seeds' differences.

    Examples
    --------
    >>> [round(end, 2) for end in deviation_interval(1.0, 3)]
    [0.52, 6.28]
    """
    from scipy.special import chdtri

    freedom, tail = seeds - 1, (1 - CONFIDENCE) / 2
    return tuple(deviation * math.sqrt(freedom / float(chdtri(freedom, p))) for p in (tail, 1 - tail))  # type: ignore[return-value]
