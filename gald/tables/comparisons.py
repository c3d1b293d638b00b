"""Which rows a table compares, and how the p values of several comparisons are corrected.

The main comparison is named in the table's params, before any run or with the seeds that had been seen by then. On one
benchmark it is one test and stands as it is; on several, its tests are a family of their own. All that the table
compares besides, the named pair's other scores and the pairs listed as contrasts, are a second family. Within a family
the p values of the t tests are corrected as Holm (1979) does. The sign-flip tests are not: each is asked beside, which
can only make false verdicts rarer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from gald.params import SCORES, Table
from gald.tables.content import Comparison, Content, Line
from gald.tables.significance import holm, t_bound
from gald.tables.statistics import LEVEL, MIN_SEEDS, difference, points, verdict

FAMILY = (
    "Rows are called higher or lower by the t test's p values, corrected as in Holm (1979) among the {count} "
    "comparisons other than the main one; from six seeds on each must pass its own sign-flip test too, at {level:g}."
)
EXPLORATORY = (
    "EXPLORATORY: the main comparison was named when the results of {seeds} had been seen: on these it is exploratory, "
    "and only seeds trained since then can confirm it."
)
FIRST = (
    "Not distinguishable means not shown, which is not the same as equal: of {count} p values the smallest must be "
    "{p:.2g} or less before correction, {bounds}."
)


def compare(candidate: Line, baseline: Line, score: str) -> Comparison:
    """Compare two rows of one benchmark in one score, seed by seed."""
    one = Comparison(candidate.dataset, score, candidate.row, baseline.row, None)
    if not candidate.protocol.same(baseline.protocol):
        return replace(one, obstacle="scored by different protocols, no verdict")
    return replace(one, change=difference(baseline.scores[score], candidate.scores[score]))


def main_comparisons(table: Table, lines: Sequence[Line]) -> tuple[Comparison, ...]:
    """Make the comparison that the table was built for, on each benchmark."""
    if table.main is None or table.main.column not in SCORES:
        return ()
    pairs = _pairs(lines, table.main.row, table.main.than)
    return corrected([compare(*pair, table.main.column) for pair in pairs])


def seen(table: Table, scale: str, comparisons: Iterable[Comparison]) -> tuple[int, ...]:
    """List the seeds of the main comparison whose results had been seen when it was named, ascending."""
    known = table.main.seen.get(scale, ()) if table.main is not None else ()
    return tuple(sorted({seed for one in comparisons if one.change for seed in one.change.seeds}.intersection(known)))


def naming(content: Content) -> str:
    """Say when the main comparison was named, for its heading."""
    if not content.seen:
        return "named beforehand"
    return f"named when the results of {_seeds(content.seen)} had been seen"


def _seeds(seeds: Sequence[int]) -> str:
    """Spell some seeds.

    Examples
    --------
    >>> _seeds([0]), _seeds([0, 1, 2])
    ('seed 0', 'seeds 0, 1, 2')
    """
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def other_comparisons(table: Table, lines: Sequence[Line]) -> tuple[Comparison, ...]:
    """Make all other comparisons of the table: the named pair's other scores, then the contrasts in every score."""
    main, columns = table.main, [column for column in table.columns if column in SCORES]
    found: dict[tuple[str, str, str, str], Comparison] = {}
    named = [] if main is None else [(main.row, main.than)]
    for row, than in (*named, *((pair.row, pair.than) for pair in table.contrasts)):
        for pair in _pairs(lines, row, than):
            for column in columns:
                if main is None or (row, than, column) != (main.row, main.than, main.column):
                    found.setdefault((pair[0].dataset, row, than, column), compare(*pair, column))
    return corrected(found.values(), alone=True)


def _pairs(lines: Sequence[Line], row: str, than: str) -> Iterator[tuple[Line, Line]]:
    by_place = {(line.dataset, line.row): line for line in lines}
    for line in lines:
        if line.row == row and (line.dataset, than) in by_place:
            yield line, by_place[line.dataset, than]


def corrected(family: Iterable[Comparison], *, alone: bool = False) -> tuple[Comparison, ...]:
    """Correct the p values of a family's t tests.

    Parameters
    ----------
    family : iterable of Comparison
        Those with too few seeds for a test are no part of it.
    alone : bool
        Whether a family of one is marked as corrected too.
    """
    listed = list(family)
    tested = {place: one.change.t_test for place, one in enumerate(listed) if one.change is not None}
    known = {place: p for place, p in tested.items() if p is not None}
    if len(known) > 1 or alone:
        for place, adjusted in zip(known, holm(list(known.values())), strict=True):
            listed[place] = replace(listed[place], adjusted=adjusted)
    return tuple(listed)


def says(comparison: Comparison) -> str:
    """Say in one clause what a comparison allows to be said."""
    return comparison.obstacle or verdict(comparison.change, comparison.adjusted)


def cell(comparison: Comparison) -> str:
    """Spell a comparison's outcome for a cell: mean difference in points, and what may be said of it."""
    if comparison.change is None:
        return says(comparison)
    return f"{points(comparison.change.mean, signed=True)}, {says(comparison).partition(' (')[0]}"


def sentence(comparison: Comparison, content: Content) -> str:
    """Say the outcome of a comparison in one sentence.

    Examples
    --------
    A mean of +2.0 points over three seeds reads ``Cityscapes, mIoU: GA then LD minus GA: +1.0, +2.0, +3.0 (seeds 0,
    1, 2), mean +2.0 points, 95 % t interval -0.48 to +4.48: not distinguishable (the interval covers zero).``
    """
    labels = {(line.dataset, line.row): line.label for line in content.lines}
    candidate, baseline = (labels[comparison.dataset, row] for row in (comparison.candidate, comparison.baseline))
    change = comparison.change
    title = SCORES[comparison.score].removesuffix(" (%)")
    head = f"{content.dataset_title(comparison.dataset)}, {title}: {candidate} minus {baseline}: "
    if change is None:
        return f"{head}{says(comparison)}."
    each = ", ".join(points(value, signed=True) for value in change.values)
    if len(change.seeds) == 1:
        return f"{head}{each} points ({_seeds(change.seeds)}); {says(comparison)}."
    text = f"{head}{each} ({_seeds(change.seeds)}), mean {points(change.mean, signed=True)} points"
    if change.interval is not None:
        low, high = (points(end, signed=True, decimals=2) for end in change.interval)
        text += f", 95 % t interval {low} to {high}"
    return f"{text}: {says(comparison)}."


def notes(content: Content) -> Iterator[str]:
    """Tell the comparisons beside the main one, in sentences unless the table has columns for them; and corrections."""
    if content.seen:
        yield EXPLORATORY.format(seeds=_seeds(content.seen))
    tests = sum(one.adjusted is not None for one in content.comparisons)
    if tests:
        yield f"The named comparison is {tests} tests, one a benchmark: p values corrected among them (Holm 1979)."
        yield _first(content.comparisons)
    if not content.others:
        return
    if content.layout != "scores":
        yield from (f"Beside the named comparison: {sentence(one, content)}" for one in content.others)
    count = sum(one.adjusted is not None for one in content.others)
    if count == 1:
        yield "One comparison beside the main one was tested: there is nothing to correct for."
    elif count:
        yield FAMILY.format(count=count, level=LEVEL)
        yield _first(content.others)
    elif all(not one.obstacle and (one.change is None or len(one.change.seeds) < MIN_SEEDS) for one in content.others):
        yield f"No comparison was tested: a verdict about a method takes {MIN_SEEDS} seeds of both rows."
    else:
        yield "No comparison beside the main one was tested; each says why."


def _first(family: Iterable[Comparison]) -> str:
    """Say what the first verdict of a family takes, so that its absence is not read as equality."""
    seeds = [len(one.change.seeds) for one in family if one.change is not None and one.adjusted is not None]
    level = LEVEL / len(seeds)
    bounds = (f"an absolute t of {t_bound(n, level):.3g} with {n} seeds" for n in sorted(set(seeds)))
    return FIRST.format(count=len(seeds), p=level, bounds=", ".join(bounds))
