"""Tests of a mean difference over seeds, and their correction where there are several.

The unit is a seed. Two tests of the same question stand here, because they fail in different ways: the t test takes the
differences as normal, the sign-flip test only as symmetric about zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MIN_FLIPS = 6  # two-sided, n differences give no p value below 2 / 2^n: five could never pass 5 %
_EXACT = 16  # up to 2^16 flips are all tried
_DRAWN = 100_000  # of more; the standard error at p = 0.05 is 0.0007
_TIE = 1e-12  # relative: flips that give the same mean but for rounding count as equal


def t_test(values: Sequence[float]) -> float:
    """Two-sided p value of the one-sample t test that the mean is zero.

    Parameters
    ----------
    values : sequence of float
        At least two differences, taken as independent and normal. Where all are equal the p value is 1 if they are
        zero, else 0.

    Examples
    --------
    >>> round(t_test([0.01, 0.02, 0.03]), 4)
    0.0742
    """
    from scipy.special import stdtr

    n = len(values)
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return 2 * float(stdtr(n - 1, -abs(mean) / error))


def t_bound(seeds: int, level: float) -> float:
    """Smallest absolute t at which the two-sided t test over some seeds rejects.

    Parameters
    ----------
    seeds : int
        At least 2.
    level : float
        In (0, 1).

    Examples
    --------
    >>> round(t_bound(3, 0.05), 2), round(t_bound(3, 0.05 / 30), 1)
    (4.3, 24.5)
    """
    from scipy.special import stdtrit  # the quantile alone: scipy.stats takes a second to import

    return float(stdtrit(seeds - 1, 1 - level / 2))


def sign_flip(values: Sequence[float], seed: int = 0) -> float:
    """Two-sided p value of the sign-flip permutation test that differences are symmetric about zero.

    Parameters
    ----------
    values : sequence of float
        At least one difference.
    seed : int
        Of the flips that are drawn where there are more than 2^16.

    Returns
    -------
    float
        Share of flips whose mean lies at least as far from zero as the one seen. With all flips tried that is the
        exact p value; of drawn ones the flip seen counts as one more, so that it is never zero.

    References
    ----------
    Fisher, "The Design of Experiments" (1935), section 21; Phipson and Smyth, "Permutation p-values should never be
    zero" (2010), of drawn flips.

    Examples
    --------
    >>> sign_flip([1, 2, 3, 4, 5, 6]), sign_flip([1, 1, -1])  # 2 of 64 flips; all of them
    (0.03125, 1.0)
    """
    observed = np.asarray(values, np.float64)
    least = abs(observed.sum()) - _TIE * np.abs(observed).sum()
    n = len(observed)
    if n <= _EXACT:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
        return float(np.mean(np.abs(_flipped(bits, observed)) >= least))
    bits = np.random.default_rng(seed).integers(0, 2, (_DRAWN, n), dtype=np.int8)
    return float((1 + np.count_nonzero(np.abs(_flipped(bits, observed)) >= least)) / (1 + _DRAWN))


def _flipped(bits: npt.NDArray[np.integer], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums of the values, negative where a bit is set."""
    return np.asarray((1 - 2 * bits) @ values)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of a family of tests, so that the chance of any false rejection among them stays in bounds.

    Parameters
    ----------
    p_values : sequence of float
        One for each test, dependent or not.

    Returns
    -------
    list of float
        In the same order; a test is rejected at level a where its adjusted value is at most a.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).

    Examples
    --------
    >>> holm([0.5, 0.01, 0.02])  # times 1, 3 and 2
    [0.5, 0.03, 0.04]
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = running
    return adjusted
