"""What repeated seeds allow to be said about a difference between two rows.

Seeds are the unit: a row trained with seed k is paired with the other row trained with seed k, and the t interval is
taken over those differences. Fewer than three pairs give a number but no verdict, and so do pairs that all differ by
the same amount: scores that come in steps, or a seed that changes nothing, are no certainty. From six pairs on, which
is where it can reject at all, the sign-flip permutation test must reject too: it does not take the differences as
normal. It is a gate that each comparison passes by itself, at the plain level: its p values come in steps of 2 / 2^n,
which no correction for several comparisons would let through before n is large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gald.tables.significance import MIN_FLIPS, sign_flip, t_bound, t_test

MIN_SEEDS = 3  # two differences give an interval some 13 standard errors wide on each side: nothing to conclude from
CONFIDENCE = 0.95
NO_SPREAD = 1e-12  # deviations of fractions up to here are the rounding of equal numbers
LEVEL = 0.05  # of the tests: a 95 % t interval leaves zero out where the t test's p value is below it


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, sample standard deviation (None for one seed) and number of seeds; fractions."""

    mean: float
    deviation: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """A row minus another, seed by seed; fractions.

    Attributes
    ----------
    seeds : tuple of int
        Seeds that both rows have, ascending.
    values : tuple of float
        The difference for each of these seeds.
    mean : float
        Mean of `values`.
    interval : tuple of float or None
        Ends of the 95 % t interval of the mean; None below `MIN_SEEDS` pairs, and where all differ by the same amount
        other than zero.
    t_test, sign_flip : float or None
        Two-sided p values; None below `MIN_SEEDS` and `gald.tables.significance.MIN_FLIPS` pairs, and where there is no
        interval.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    t_test: float | None = None
    sign_flip: float | None = None

    @property
    def distinguishable(self) -> bool:
        """Whether there is an interval that leaves zero out, and the sign-flip test, where there is one, rejects."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return False
        return self.sign_flip is None or self.sign_flip <= LEVEL


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation (n - 1 in the denominator) of one value a seed.

    Parameters
    ----------
    values : sequence of float
        At least one value.

    Examples
    --------
    >>> spread([0.5, 0.75, 1.0])
    Spread(mean=0.75, deviation=0.25, n=3)
    >>> spread([0.5])
    Spread(mean=0.5, deviation=None, n=1)
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(mean, None, 1)
    return Spread(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)), n)


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided t interval of the mean of `values`.

    Parameters
    ----------
    values : sequence of float
        At least two values, taken as independent and normal.
    confidence : float
        Coverage in (0, 1).

    Returns
    -------
    tuple of float
        ``mean -+ t(n - 1) * deviation / sqrt(n)``.
    """
    whole = spread(values)
    assert whole.deviation is not None, "an interval needs two values"
    half = t_bound(whole.n, 1 - confidence) * whole.deviation / math.sqrt(whole.n)
    return whole.mean - half, whole.mean + half


def difference(baseline: Mapping[int, float], candidate: Mapping[int, float]) -> Difference | None:
    """Candidate minus baseline over the seeds that both have; None when they share no seed.

    Parameters
    ----------
    baseline, candidate : mapping of int to float
        A fraction for each seed.
    """
    seeds = tuple(sorted(baseline.keys() & candidate.keys()))
    if not seeds:
        return None
    values = tuple(candidate[seed] - baseline[seed] for seed in seeds)
    enough = len(seeds) >= MIN_SEEDS and (not any(values) or varied(values))
    return Difference(
        seeds,
        values,
        math.fsum(values) / len(seeds),
        t_interval(values) if enough else None,
        t_test(values) if enough else None,
        sign_flip(values) if enough and len(seeds) >= MIN_FLIPS else None,
    )


def varied(values: Sequence[float]) -> bool:
    """Whether fractions spread at all; equal ones say nothing of how far another one might lie off.

    Examples
    --------
    >>> varied([0.8 - 0.7, 0.4 - 0.3, 0.3 - 0.2]), varied([0.1, 0.1001])
    (False, True)
    """
    deviation = spread(values).deviation
    return deviation is not None and deviation > NO_SPREAD


def points(value: float, signed: bool = False, decimals: int = 1) -> str:
    """Spell a fraction in percent; a rounded zero bears no sign.

    Examples
    --------
    >>> points(0.61249), points(0.0213, signed=True), points(-0.0001, signed=True)
    ('61.2', '+2.1', '0.0')
    """
    text = f"{100 * value:{'+' if signed else ''}.{decimals}f}"
    return text if float(text) else f"{0:.{decimals}f}"


def verdict(change: Difference | None, adjusted: float | None = None) -> str:
    """One plain clause on what the seeds allow to be said.

    Parameters
    ----------
    change : Difference or None
        None where the rows share no seed.
    adjusted : float, optional
        Holm-adjusted p value of the t test, where this is one of several comparisons.

    Examples
    --------
    >>> verdict(Difference((0,), (0.02,), 0.02, None))
    'one seed, no verdict'
    >>> verdict(difference({0: 0.5, 1: 0.5, 2: 0.5}, {0: 0.75, 1: 0.75, 2: 0.75}))
    'no spread over 3 seeds, no verdict (all differ by the same amount)'
    >>> verdict(Difference((0, 1, 2), (0.01, 0.02, 0.03), 0.02, (-0.005, 0.045)))
    'not distinguishable (the interval covers zero)'
    >>> verdict(Difference((0, 1, 2), (0.02, 0.03, 0.04), 0.03, (0.005, 0.055), 0.036), adjusted=0.11)
    'not distinguishable (corrected p = 0.11)'
    """
    if change is None:
        return "no seed in common, no verdict"
    n = len(change.seeds)
    if n == 1:
        return "one seed, no verdict"
    if n < MIN_SEEDS:
        return f"{n} seeds, no verdict (it takes {MIN_SEEDS})"
    if change.interval is None:
        return f"no spread over {n} seeds, no verdict (all differ by the same amount)"
    if change.interval[0] <= 0 <= change.interval[1]:
        return "not distinguishable (the interval covers zero)"
    if not change.distinguishable:
        return f"not distinguishable (sign-flip test, {spelt_p(change.sign_flip)})"
    if adjusted is not None and adjusted > LEVEL:
        return f"not distinguishable (corrected {spelt_p(adjusted)})"
    way = "higher" if change.mean > 0 else "lower"
    return f"{way} ({'the interval leaves zero out' if adjusted is None else f'corrected {spelt_p(adjusted)}'})"


def spelt_p(value: float | None) -> str:
    """Spell a p value with two digits that count.

    Examples
    --------
    >>> spelt_p(0.11234), spelt_p(0.0312), spelt_p(0.00012), spelt_p(1.0)
    ('p = 0.11', 'p = 0.031', 'p < 0.001', 'p = 1')
    """
    if value is None:
        return "p unknown"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"
