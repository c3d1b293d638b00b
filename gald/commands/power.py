"""`gald power`: how many seeds would resolve a difference between rows, from the spread that their seeds show."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from itertools import combinations

from gald.errors import ParamsError
from gald.params import SCORES, Suite, load_suite
from gald.tables.collect import collect
from gald.tables.comparisons import compare
from gald.tables.content import Comparison, Content, Line
from gald.tables.power import MOST, POWER, deviation_interval, resolved, seeds_needed
from gald.tables.render import aligned
from gald.tables.statistics import CONFIDENCE, LEVEL, MIN_SEEDS, points, spread, varied

POINTS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Differences that are asked about, in points of percent."""

_COLUMNS = 90  # of the report's running text
_NONE = "no table of suite {suite!r} has a score to compare; name one of: {tables}"


def power(suite: str, table: str | None = None, difference: float | None = None) -> str:
    """Say how many seeds the comparisons of a suite's tables would take.

    Parameters
    ----------
    suite : str
        Name of a suite whose runs are trained and evaluated.
    table : str, optional
        One of its tables; all that have scores and several rows by default.
    difference : float, optional
        The one difference to ask about instead of `POINTS`, in points of percent above 0.

    Returns
    -------
    str
        Markdown: a table of seeds for each table of the suite, the named comparison first, then every pair of rows.

    Raises
    ------
    ParamsError
        There is no such suite, it has no such table, the table compares no score, or the difference is not above 0.
    StaleMetrics
        A run's metrics are missing, belong to other weights or to another edition of the data.
    """
    if difference is not None and not 0 < difference < math.inf:
        raise ParamsError(f"--difference is {difference}: give points of percent above 0, for example 0.3")
    loaded = load_suite(suite)
    sizes = POINTS if difference is None else (difference,)
    names = [table] if table else [one.name for one in loaded.tables]
    parts = [part for name in names if (part := _of_table(loaded, name, sizes))]
    if not parts:
        raise ParamsError(_NONE.format(suite=suite, tables=", ".join(one.name for one in loaded.tables)))
    return "\n\n".join([textwrap.fill(_preamble(), _COLUMNS), *parts]) + "\n"


def _preamble() -> str:
    return (
        f"Seeds with which the two-sided t test on paired differences ({100 * LEVEL:g} %) finds a true difference of "
        f"that size with a power of {100 * POWER:g} %, if the differences spread as they did. The deviation is itself "
        f"an estimate: in brackets, the seeds at both ends of its {100 * CONFIDENCE:g} % interval. A verdict takes "
        f"{MIN_SEEDS} seeds in any case. From 6 seeds on it takes the sign-flip test too, and of pairs that are not "
        "the named one a correction: both ask for more seeds than stand here."
    )


def _of_table(suite: Suite, name: str, sizes: Sequence[float]) -> str:
    """Tell of one table; empty where it has no score or no two rows on one benchmark."""
    content, main = collect(suite, name), suite.table(name).main
    named = main.column if main is not None and main.column in SCORES else None
    column = named or next(iter(content.columns), None)
    pairs = list(_pairs(content, column, content.comparisons)) if column is not None else []
    if column is None or not pairs:
        return ""
    head = ["pair", "n", "mean", "deviation", *(f"{size:g}" for size in sizes), "resolved now"]
    lines = [f"## {content.title}: {SCORES[column].removesuffix(' (%)')}, points", ""]
    lines += aligned([head, *(_cells(content, one, sizes, one in content.comparisons) for one in pairs)])
    lines += [line for remark in _remarks(pairs) for line in ("", remark)]
    return "\n".join(lines)


def _remarks(pairs: Sequence[Comparison]) -> Iterator[str]:
    """Say of which pairs the spread is not known."""
    changes = [one.change for one in pairs if one.change is not None]
    if any(len(change.seeds) < MIN_SEEDS for change in changes):
        yield f"With fewer than {MIN_SEEDS} seeds the spread is not known well enough to plan with: train more."
    if any(len(change.seeds) >= MIN_SEEDS and not varied(change.values) for change in changes):
        yield (
            "Where all seeds differ by the same amount, nothing is known of the spread: the score comes in coarse "
            "steps, or the seed changes nothing."
        )


def _pairs(content: Content, column: str, main: Sequence[Comparison]) -> Iterator[Comparison]:
    """Compare the named rows, then every other two rows of each benchmark."""
    yield from main
    known = {(one.dataset, frozenset((one.candidate, one.baseline))) for one in main}
    for dataset in content.datasets:
        lines: list[Line] = [line for line in content.lines if line.dataset == dataset]
        for baseline, candidate in combinations(lines, 2):
            if (dataset, frozenset((candidate.row, baseline.row))) not in known:
                yield compare(candidate, baseline, column)


def _cells(content: Content, one: Comparison, sizes: Sequence[float], main: bool) -> list[str]:
    labels = {line.row: line.label for line in content.lines}
    name = f"{labels[one.candidate]} minus {labels[one.baseline]}{' (named)' if main else ''}"
    if len(content.datasets) > 1:
        name = f"{content.dataset_title(one.dataset)}: {name}"
    if one.change is None:
        return [name, "0", one.obstacle or "no seed in common", *("" for _ in range(len(sizes) + 2))]
    n, mean = len(one.change.seeds), points(one.change.mean, signed=True, decimals=2)
    deviation = spread(one.change.values).deviation
    if deviation is None or n < MIN_SEEDS:
        return [name, str(n), mean, "unknown", *("?" for _ in sizes), "?"]
    if not varied(one.change.values):
        return [name, str(n), mean, "none", *("?" for _ in sizes), "?"]
    ends = deviation_interval(deviation, n)
    cells = [_seeds(size / 100, deviation, ends) for size in sizes]
    return [name, str(n), mean, points(deviation, decimals=2), *cells, points(resolved(n, deviation), decimals=2)]


def _seeds(difference: float, deviation: float, ends: tuple[float, float]) -> str:
    least, found, most = (_spelt(seeds_needed(difference, one)) for one in (ends[0], deviation, ends[1]))
    return found if least == most else f"{found} ({least} to {most})"


def _spelt(seeds: int | None) -> str:
    return f"> {MOST}" if seeds is None else str(seeds)
