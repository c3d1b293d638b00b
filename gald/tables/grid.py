"""A table's content as header and cells of plain text, the same in every rendered format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gald.params import COSTS, SCORES
from gald.tables import comparisons
from gald.tables.content import MEASURES, Content, Line, Machine
from gald.tables.statistics import Spread, points

NOT_AVAILABLE = "not available"
_TEXT_COLUMNS = ("Benchmark", "Row", "Score", "Protocol", "Source and protocol")


@dataclass(frozen=True)
class Grid:
    """A laid-out table.

    Attributes
    ----------
    header : list of str
    rows : list of list of str
    begins : list of bool
        Before which rows a rule separates one group from the next.
    groups : list of (str, int)
        Titles over the header with the number of columns that each spans; empty if there are none.
    """

    header: list[str]
    rows: list[list[str]]
    begins: list[bool]
    groups: list[tuple[str, int]]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers and are set flush right."""
        return [name not in _TEXT_COLUMNS for name in self.header]


def grid(content: Content) -> Grid:
    """Lay a table out.

    In layout ``rows`` a line for each line of the content, in layout ``datasets`` one for each row of the table, in
    layout ``scores`` one for each score of each benchmark.
    """
    return {"rows": _of_rows, "datasets": _of_datasets, "scores": _of_scores}[content.layout](content)


def score_cell(whole: Spread | None) -> str:
    """Spell a score as percent, mean and sample standard deviation.

    Examples
    --------
    >>> score_cell(Spread(0.61249, 0.0041, 3)), score_cell(Spread(0.5, None, 1)), score_cell(None)
    ('61.2 ± 0.4', '50.0', 'absent')
    """
    if whole is None:
        return "absent"
    return points(whole.mean) + ("" if whole.deviation is None else f" ± {points(whole.deviation)}")


def _of_rows(content: Content) -> Grid:
    several = len(content.datasets) > 1
    scored = bool(content.columns)  # a table of costs shows no seeds, and no protocol
    marked = scored and any(content.mark(line) for line in content.lines)
    cited = [column for column in content.columns if any(column in line.published for line in content.lines)]
    cited = cited or list(content.columns[:1])  # so that a missing number is said to be missing
    cited = cited if content.edition == "full" else []
    header = [*(["Benchmark"] if several else []), "Row", COSTS["parameters"], COSTS["gmacs"]]
    header += [MEASURES[measure] for measure in content.measures]
    header += [*(SCORES[column] for column in content.columns), *(["n"] if scored else [])]
    header += ["Protocol"] if marked else []
    for column in cited:
        header += [f"Published {SCORES[column]}", "Ours - published", "Source and protocol"]
    rows = []
    for line in content.lines:
        cells = [*([line.title] if several else []), line.label, *_costs(line)]
        cells += [_measure_cell(line.machine, measure) for measure in content.measures]
        cells += [score_cell(line.spreads.get(column)) for column in content.columns]
        cells += [str(len(line.seeds))] if scored else []
        cells += [f"{line.protocol.name}{content.mark(line)}, {line.protocol.text}"] if marked else []
        rows.append([*cells, *(cell for column in cited for cell in _published_cells(line, column))])
    previous = [content.lines[0].dataset, *(line.dataset for line in content.lines)]
    begins = [line.dataset != before for line, before in zip(content.lines, previous, strict=False)]
    return Grid(header, rows, begins, [])


def _costs(line: Line) -> list[str]:
    return [_three_digits(line.parameters / 1e6), _three_digits(line.gmacs)]


def _measure_cell(machine: Machine | None, measure: str) -> str:
    if machine is None:
        return "not measured"
    return f"{machine.peak_bytes / 2**20:.1f}" if measure == "peak_memory" else f"{machine.latency_ms:.1f}"


def _published_cells(line: Line, column: str) -> list[str]:
    published, ours = line.published.get(column), line.spreads.get(column)
    if published is None:
        return [NOT_AVAILABLE, "", ""]
    gap = points(ours.mean - published.value, signed=True) if ours else ""
    gap = gap if published.comparable else "other protocol"
    return [points(published.value, decimals=2), gap, f"{published.method}; {published.protocol}; {published.source}"]


def _of_datasets(content: Content) -> Grid:
    full = content.edition == "full"
    header = ["Row", COSTS["parameters"], COSTS["gmacs"]]
    for dataset in content.datasets:
        for column in content.columns:
            header += [f"{content.dataset_title(dataset)} {SCORES[column]}", *(["published"] if full else [])]
    rows = []
    for row in content.rows:
        lines = {line.dataset: line for line in content.lines if line.row == row}
        present = list(lines.values())
        cells = [present[0].label, *map(_range, zip(*map(_costs, present), strict=True))]
        for dataset in content.datasets:
            for column in content.columns:
                cells += _dataset_cells(content, lines.get(dataset), column)
        rows.append([*cells, "/".join(dict.fromkeys(str(len(line.seeds)) for line in present))])
    width = len(content.columns) * (2 if full else 1)
    groups = [("", 3), *((content.dataset_title(dataset), width) for dataset in content.datasets), ("", 1)]
    return Grid([*header, "n"], rows, [False for _ in rows], groups)


def _dataset_cells(content: Content, line: Line | None, column: str) -> list[str]:
    full = content.edition == "full"
    if line is None:
        return ["not run", *([""] if full else [])]
    published = line.published.get(column)
    theirs = NOT_AVAILABLE
    if published is not None:
        theirs = points(published.value, decimals=2) + ("" if published.comparable else " (other protocol)")
    return [score_cell(line.spreads.get(column)) + content.mark(line), *([theirs] if full else [])]


def _of_scores(content: Content) -> Grid:
    several = len(content.datasets) > 1
    labels = {line.row: line.label for line in content.lines}
    pairs = list(dict.fromkeys((one.candidate, one.baseline) for one in (*content.comparisons, *content.others)))
    header = [*(["Benchmark"] if several else []), "Score", *labels.values()]
    header += [f"{labels[row]} minus {labels[than]}" for row, than in pairs]
    rows, begins = [], []
    for dataset in content.datasets:
        lines = [_line_of(content, dataset, row) for row in labels]
        before = None
        for title, cells in _costs_and_seeds(content, lines):
            rows.append([*([content.dataset_title(dataset)] if several else []), title, *cells, *("" for _ in pairs)])
            begins.append(len(rows) > 1 and title == COSTS["parameters"])
        for column in content.columns:
            cells = ["not run" if line is None else score_cell(line.spreads.get(column)) for line in lines]
            cells += [_outcome(content, dataset, column, *pair) for pair in pairs]
            rows.append([*([content.dataset_title(dataset)] if several else []), SCORES[column], *cells])
            family = stem(column) if stem(column) != column else ""  # scores of no family are one group
            begins.append(family != before)
            before = family
    return Grid(header, rows, begins, [])


def _line_of(content: Content, dataset: str, row: str) -> Line | None:
    return next((line for line in content.lines if (line.dataset, line.row) == (dataset, row)), None)


def _costs_and_seeds(content: Content, lines: list[Line | None]) -> Iterator[tuple[str, list[str]]]:
    """What stands above the scores of each row: its cost, its seeds, and its protocol where there are several."""
    for place, name in enumerate(("parameters", "gmacs")):
        yield COSTS[name], ["" if line is None else _costs(line)[place] for line in lines]
    yield "n (seeds)", ["" if line is None else str(len(line.seeds)) for line in lines]
    if any(content.mark(line) for line in lines if line is not None):
        yield "Protocol", ["" if line is None else line.protocol.name + content.mark(line) for line in lines]


def _outcome(content: Content, dataset: str, column: str, row: str, than: str) -> str:
    """What a table's comparison of two rows in one score came to; empty where it makes none."""
    for one in (*content.comparisons, *content.others):
        if (one.dataset, one.score, one.candidate, one.baseline) == (dataset, column, row, than):
            return comparisons.cell(one)
    return ""


def stem(column: str) -> str:
    """Name of a score without its width, quarter or zone.

    Examples
    --------
    >>> stem("boundary_f_12"), stem("mean_iou")
    ('boundary_f', 'mean_iou')
    """
    name, _, last = column.rpartition("_")
    return name if last.isdigit() else column


def _range(cells: Iterable[str]) -> str:
    """Join the lowest and the highest of some numbers, or give the one that they all are."""
    known = sorted(set(cells), key=float)
    return known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"
