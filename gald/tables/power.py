"""How many seeds would resolve a difference, from the spread that was seen.

The test planned for is the two-sided t test on paired differences. Its power at a true difference d, with n seeds and a
deviation s of the differences, follows from the noncentral t distribution with n - 1 degrees of freedom and
noncentrality d sqrt(n) / s.

References
----------
Cohen, "Statistical Power Analysis for the Behavioral Sciences" (1988), chapter 2.
"""

from __future__ import annotations

import math

from gald.tables.statistics import CONFIDENCE, LEVEL, MIN_SEEDS

POWER = 0.8
MOST = 10_000  # seeds; beyond, a figure would be of no use


def power(seeds: int, difference: float, deviation: float) -> float:
    """Chance that the t interval over some seeds leaves zero out.

    Parameters
    ----------
    seeds : int
        At least 2.
    difference, deviation : float
        True mean of the differences between two rows, and their standard deviation above 0, in one unit.

    Examples
    --------
    >>> round(power(3, 1.0, 1.0), 3), round(power(10, 1.0, 1.0), 3)
    (0.179, 0.803)
    """
    from scipy.special import nctdtr, stdtrit

    freedom, shift = seeds - 1, abs(difference) * math.sqrt(seeds) / deviation
    bound = float(stdtrit(freedom, 1 - LEVEL / 2))
    missed, wrong = (float(nctdtr(freedom, shift, end)) for end in (bound, -bound))
    return 1 - _or_nothing(missed) + _or_nothing(wrong)


def _or_nothing(share: float) -> float:
    """Take a share of a distribution for zero where scipy gives NaN: so far out that no float would hold it."""
    return 0.0 if math.isnan(share) else share


def seeds_needed(difference: float, deviation: float) -> int | None:
    """Fewest seeds, at least 3, with which a difference is resolved with a power of 80 %; None above 10 000.

    Parameters
    ----------
    difference, deviation : float
        As for `power`; a deviation of 0 takes the fewest seeds.

    Examples
    --------
    >>> seeds_needed(1.0, 1.0), seeds_needed(5.0, 1.0), seeds_needed(0.001, 1.0)
    (10, 3, None)
    """
    if deviation == 0:
        return MIN_SEEDS
    if power(MOST, difference, deviation) < POWER:
        return None
    low, high = MIN_SEEDS - 1, MOST  # power grows with the number of seeds: the first that is enough, by halving
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, difference, deviation) >= POWER else (middle, high)
    return high


def resolved(seeds: int, deviation: float) -> float:
    """Smallest difference that some seeds resolve with a power of 80 %, in the deviation's unit.

    Examples
    --------
    >>> round(resolved(10, 1.0), 2), round(resolved(3, 1.0), 2)
    (1.0, 3.26)
    """
    if deviation == 0:
        return 0.0
    low, high = 0.0, 1.0
    while power(seeds, high, 1.0) < POWER:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if power(seeds, middle, 1.0) >= POWER else (middle, high)
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
