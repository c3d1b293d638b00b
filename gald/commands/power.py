"""`gald power`: how many seeds would resolve a difference between rows, from the spread that their seeds show."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from itertools import combinations

from gald import plugins
from gald.errors import ParamsError
from gald.params import SCORES, Suite, load_suite
from gald.tables.collect import collect
from gald.tables.comparisons import compare
from gald.tables.content import Comparison, Content, Line
from gald.tables.power import MOST, POWER, deviation_interval, resolved, seeds_needed
from gald.tables.render import aligned
from gald.tables.significance import MIN_FLIPS
from gald.tables.statistics import CONFIDENCE, LEVEL, MIN_SEEDS, points, spread, varied

POINTS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Differences that are asked about, in points of percent."""

_COLUMNS = 90  # of the report's running text
_NONE = "no table of suite {suite!r} has a score to compare; name one of: {tables}"


def power(
    suite: str,
    table: str | None = None,
    *,
    difference: float | None = None,
    score: str | None = None,
    rows: tuple[str, str] | None = None,
) -> str:
    """Say how many seeds the comparisons of a suite's tables would take.

    Parameters
    ----------
    suite : str
        Name of a suite whose runs are trained and evaluated.
    table : str, optional
        One of its tables; all that have scores and several rows by default.
    difference : float, optional
        The one difference to ask about instead of `POINTS`, in points of percent above 0.
    score : str, optional
        A key of `gald.params.SCORES`, shown by the table or not; that of the named comparison by default, or the
        table's first.
    rows : tuple of str, optional
        The two rows to compare, the first minus the second; every two by default.

    Returns
    -------
    str
        Markdown: a table of seeds for each table of the suite, the named comparison first, then every pair of rows.

    Raises
    ------
    ParamsError
        There is no such suite, table, score or row, the table compares no score, or the difference is not above 0.
    StaleMetrics
        A run's metrics are missing, belong to other weights or to another edition of the data.
    """
    if difference is not None and not 0 < difference < math.inf:
        raise ParamsError(f"--difference is {difference}: give points of percent above 0, for example 0.3")
    if score is not None and score not in SCORES:
        raise ParamsError(f"--score: no score is called {score!r}; {plugins.nearest(score, SCORES)}")
    loaded = load_suite(suite)
    sizes = POINTS if difference is None else (difference,)
    names = [loaded.table(table).name] if table else [one.name for one in loaded.tables]
    if rows is not None:
        names = _with_rows(loaded, names, rows)
    parts = [part for name in names if (part := _of_table(loaded, name, sizes, score, rows))]
    if not parts:
        raise ParamsError(_NONE.format(suite=suite, tables=", ".join(one.name for one in loaded.tables)))
    return "\n\n".join([textwrap.fill(_preamble(), _COLUMNS), *parts]) + "\n"


def _with_rows(suite: Suite, names: Sequence[str], rows: tuple[str, str]) -> list[str]:
    """Pick the tables that show both rows."""
    shown = {name: {cell.row for cell in suite.cells[name]} for name in names}
    known = {row for listed in shown.values() for row in listed}
    for row in rows:
        if row not in known:
            where = f"{', '.join(names)} of suite {suite.name!r}"
            raise ParamsError(f"--rows: no row {row!r} in {where}; {plugins.nearest(row, known)}")
    if rows[0] == rows[1]:
        raise ParamsError(f"--rows names {rows[0]!r} twice; give two rows to compare")
    kept = [name for name in names if set(rows) <= shown[name]]
    if not kept:
        raise ParamsError(f"--rows: no table of suite {suite.name!r} shows both {rows[0]!r} and {rows[1]!r}")
    return kept


def _preamble() -> str:
    level = f"{100 * LEVEL:g} %"
    return (
        f"Seeds with which a true difference of that size is called higher or lower with a power of {100 * POWER:g} %, "
        f"if the differences spread as they did: by the two-sided t test on paired differences ({level}), from "
        f"{MIN_FLIPS} seeds on by the sign-flip test too ({MIN_FLIPS}, which must all agree, resolve less than "
        f"{MIN_FLIPS - 1}). Of several tests each is held to {level} over their number, Holm's first step; a pair or "
        "score that its table does not compare counts as one more. The deviation is itself an estimate: in brackets, "
        f"the seeds at both ends of its {100 * CONFIDENCE:g} % interval. A verdict takes {MIN_SEEDS} seeds in any case."
    )


def _of_table(suite: Suite, name: str, sizes: Sequence[float], score: str | None, rows: tuple[str, str] | None) -> str:
    """Tell of one table; empty where it has no score or no two rows on one benchmark."""
    content, main = collect(suite, name), suite.table(name).main
    if not content.columns:
        return ""
    named = main.column if main is not None and main.column in SCORES else content.columns[0]
    column = score or named
    pairs = list(_pairs(content, column, rows))
    if not pairs:
        return ""
    head = ["pair", "tests", "n", "mean", "deviation", *(f"{size:g}" for size in sizes), "resolved now"]
    lines = [f"## {content.title}: {SCORES[column].removesuffix(' (%)')}, points", ""]
    lines += aligned([head, *(_cells(content, one, sizes) for one in pairs)])
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


def _pairs(content: Content, column: str, rows: tuple[str, str] | None) -> Iterator[Comparison]:
    """Compare the rows that are asked for on each benchmark; else the named ones, then every other two."""
    main = [one for one in content.comparisons if one.score == column and rows is None]
    yield from main
    known = {(one.dataset, frozenset((one.candidate, one.baseline))) for one in main}
    for dataset in content.datasets:
        lines: list[Line] = [line for line in content.lines if line.dataset == dataset]
        if rows is not None:
            by_row = {line.row: line for line in lines}
            lines = [by_row[row] for row in reversed(rows) if row in by_row]
        for baseline, candidate in combinations(lines, 2):
            if (dataset, frozenset((candidate.row, baseline.row))) not in known:
                yield compare(candidate, baseline, column)


def _family(content: Content, one: Comparison) -> tuple[Comparison, ...]:
    """List the comparisons that one is corrected among, itself included."""
    for family in (content.comparisons, content.others):
        if any(_asks(other) == _asks(one) for other in family):
            return tuple(other for other in family if other.change is not None)
    return (*(other for other in content.others if other.change is not None), one)


def _asks(one: Comparison) -> tuple[str, str, frozenset[str]]:
    """What a comparison is about, in whichever direction."""
    return one.dataset, one.score, frozenset((one.candidate, one.baseline))


def _cells(content: Content, one: Comparison, sizes: Sequence[float]) -> list[str]:
    labels = {line.row: line.label for line in content.lines}
    main = any(_asks(other) == _asks(one) for other in content.comparisons)
    name = f"{labels[one.candidate]} minus {labels[one.baseline]}{' (named)' if main else ''}"
    if len(content.datasets) > 1:
        name = f"{content.dataset_title(one.dataset)}: {name}"
    if one.change is None:
        return [name, "", "0", one.obstacle or "no seed in common", *("" for _ in range(len(sizes) + 2))]
    n, tests = len(one.change.seeds), len(_family(content, one))
    begin = [name, str(tests), str(n), points(one.change.mean, signed=True, decimals=2)]
    deviation = spread(one.change.values).deviation
    if deviation is None or n < MIN_SEEDS:
        return [*begin, "unknown", *("?" for _ in sizes), "?"]
    if not varied(one.change.values):
        return [*begin, "none", *("?" for _ in sizes), "?"]
    ends = deviation_interval(deviation, n)
    cells = [_seeds(size / 100, deviation, ends, tests) for size in sizes]
    least = points(resolved(n, deviation, tests=tests), decimals=2)
    return [*begin, points(deviation, decimals=2), *cells, least]


def _seeds(difference: float, deviation: float, ends: tuple[float, float], tests: int) -> str:
    deviations = (ends[0], deviation, ends[1])
    least, found, most = (_spelt(seeds_needed(difference, one, tests=tests)) for one in deviations)
    return found if least == most else f"{found} ({least} to {most})"


def _spelt(seeds: int | None) -> str:
    return f"> {MOST}" if seeds is None else str(seeds)
