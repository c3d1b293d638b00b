"""What repeated seeds allow to be said about a difference between two rows.

Seeds are the unit: a row trained with seed k is paired with the other row trained with seed k, and the t interval is
taken over those differences. Fewer than three pairs give a number but no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MIN_SEEDS = 3  # two differences give an interval some 13 standard errors wide on each side: nothing to conclude from
CONFIDENCE = 0.95


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
        Ends of the 95 % t interval of the mean; None below `MIN_SEEDS` pairs.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None

    @property
    def distinguishable(self) -> bool:
        """Whether there is an interval and it leaves zero out."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


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
    from scipy.special import stdtrit  # the quantile alone: scipy.stats takes a second to import

    whole = spread(values)
    assert whole.deviation is not None, "an interval needs two values"
    half = float(stdtrit(whole.n - 1, (1 + confidence) / 2)) * whole.deviation / math.sqrt(whole.n)
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
    interval = t_interval(values) if len(seeds) >= MIN_SEEDS else None
    return Difference(seeds, values, math.fsum(values) / len(seeds), interval)


def points(value: float, signed: bool = False, decimals: int = 1) -> str:
    """Spell a fraction in percent; a rounded zero bears no sign.

    Examples
    --------
    >>> points(0.61249), points(0.0213, signed=True), points(-0.0001, signed=True)
    ('61.2', '+2.1', '0.0')
    """
    text = f"{100 * value:{'+' if signed else ''}.{decimals}f}"
    return text if float(text) else f"{0:.{decimals}f}"


def verdict(change: Difference | None) -> str:
    """One plain clause on what the seeds allow to be said.

    Examples
    --------
    >>> verdict(Difference((0,), (0.02,), 0.02, None))
    'one seed: no verdict'
    >>> verdict(Difference((0, 1, 2), (0.01, 0.02, 0.03), 0.02, (-0.005, 0.045)))
    'not distinguishable (the interval covers zero)'
    """
    if change is None:
        return "no seed in common: no verdict"
    n = len(change.seeds)
    if n == 1:
        return "one seed: no verdict"
    if change.interval is None:
        return f"{n} seeds: no verdict (it takes {MIN_SEEDS})"
    if not change.distinguishable:
        return "not distinguishable (the interval covers zero)"
    return f"{'higher' if change.mean > 0 else 'lower'} (the interval leaves zero out)"
