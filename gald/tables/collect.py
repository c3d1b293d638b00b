"""From the boundary files of a table's runs to its content: checked, paired by seed, averaged.

Nothing is shown that cannot be traced: metrics must bear the digest of the very ``run.json`` that lies beside the
weights, and every run of a table the edition of its suite.
"""

from __future__ import annotations

from dataclasses import replace

from gald.datasets import load_spec
from gald.params import SCORES, Suite, Table
from gald.tables import comparisons, machine
from gald.tables.content import MEASURES, Content, Line, Measured, Reference
from gald.tables.measured import measure, one_protocol, refuse_mixed_data
from gald.tables.notes import notes
from gald.tables.statistics import spread


def collect(suite: Suite, table_name: str) -> Content:
    """Gather what a table says at the scale of a suite.

    Parameters
    ----------
    suite : Suite
    table_name : str
        One of the suite's tables.

    Raises
    ------
    StaleMetrics
        See `measure`; also when runs of one benchmark were scored on different prepared data, or seeds of one row by
        different protocols.
    """
    table = suite.table(table_name)
    lines = _lines(suite, table)
    measures = tuple(column for column in table.columns if column in MEASURES)
    if measures:
        entries = machine.read(suite.name)
        lines = tuple(replace(line, machine=machine.of_line(entries, line)) for line in lines)
    main = comparisons.main_comparisons(table, lines)
    content = Content(
        name=table.name,
        title=table.title,
        caption=table.caption,
        suite=suite.name,
        edition=suite.edition,
        layout=table.layout,
        columns=tuple(column for column in table.columns if column in SCORES),
        lines=lines,
        question=table.main.question if table.main else "",
        comparisons=main,
        seen=comparisons.seen(table, suite.scale, main),
        others=comparisons.other_comparisons(table, lines),
        measures=measures,
    )
    return replace(content, notes=(*comparisons.notes(content), *notes(suite, table, lines), *table.notes))


def _lines(suite: Suite, table: Table) -> tuple[Line, ...]:
    """Read the table's runs, a line for each row of each benchmark."""
    measured = {run.name: measure(run, suite.edition) for run in suite.table_runs(table.name)}
    groups: dict[tuple[str, str], dict[int, Measured]] = {}
    for cell in suite.cells[table.name]:
        groups.setdefault((cell.dataset, cell.row), {})[cell.seed] = measured[cell.run]
    datasets = dict.fromkeys(dataset for dataset, _ in groups)
    lines = tuple(
        _line(table, dataset, row, groups[dataset, row])
        for dataset in datasets
        for row in table.rows
        if (dataset, row) in groups
    )
    refuse_mixed_data(run for line in lines for run in line.runs)
    return lines


def _line(table: Table, dataset: str, row: str, by_seed: dict[int, Measured]) -> Line:
    seeds = tuple(sorted(by_seed))
    runs = tuple(by_seed[seed] for seed in seeds)
    first, protocol, spec = runs[0].metrics, one_protocol(runs), load_spec(dataset)
    values = {column: {seed: by_seed[seed].metrics["scores"][column] for seed in seeds} for column in SCORES}
    present = {
        column: {seed: value for seed, value in scores.items() if value is not None}
        for column, scores in values.items()
    }
    return Line(
        dataset=dataset,
        title=spec.title,
        row=row,
        label=table.label(row),
        runs=runs,
        seeds=seeds,
        scores=present,
        spreads={column: spread(list(scores.values())) for column, scores in present.items() if scores},
        parameters=first["parameters"],
        gmacs=first["gmacs"],
        gmacs_size=(first["gmacs_size"][0], first["gmacs_size"][1]),
        protocol=protocol,
        published={
            entry.column: Reference(entry.value, entry.method, entry.protocol, entry.source, protocol.is_of(entry))
            for entry in table.published
            if (entry.row, entry.dataset) == (row, dataset)
            and first["edition"] == "full"  # drawn scenes compare with none
            and first["source"]["name"] == spec.source
        },
    )
