"""From the boundary files of a table's runs to its content: checked, paired by seed, averaged.

Nothing is shown that cannot be traced: metrics must bear the digest of the very ``run.json`` that lies beside the
weights, and every run of a table the edition of its suite.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gald import params, paths
from gald.datasets import load_spec
from gald.errors import StaleMetrics
from gald.files import sha256
from gald.params import Run, Suite, Table
from gald.tables import machine
from gald.tables.content import MEASURES, SCORES, Comparison, Content, Line, Measured, Reference
from gald.tables.statistics import difference, points, spread

_LISTED = 12  # absent classes named in a note; the miniatures of large benchmarks lack well over a hundred


def measure(run: Run, edition: str) -> Measured:
    """Read one run's results and refuse them unless they belong to its present weights.

    Parameters
    ----------
    run : Run
        As the suite asks for it now.
    edition : str
        Edition of the data that the table is about.

    Raises
    ------
    StaleMetrics
        The run or its metrics are missing, the metrics belong to other weights, or to another edition of the data;
        the message ends with the command to run.
    """
    run_file, metrics_file = paths.run_json(run.name), paths.metrics(run.name)
    if not run_file.exists():
        raise StaleMetrics(f"{run_file} is missing: run `gald train {run.name}`, then `gald evaluate {run.name}`")
    metrics = _read(metrics_file, run)
    if metrics.get("run_sha256") != sha256(run_file):
        raise StaleMetrics(f"{metrics_file} belongs to other weights than {run_file}: run `gald evaluate {run.name}`")
    if metrics["edition"] != edition:
        raise StaleMetrics(
            f"{metrics_file} was measured on edition {metrics['edition']!r}, the table is about {edition!r}, and the "
            f"two are never mixed: run `gald train {run.name}`, then `gald evaluate {run.name}`"
        )
    return Measured(
        name=run.name,
        dataset=run.dataset,
        row=run.row,
        seed=run.seed,
        metrics=metrics,
        record=_read(run_file, run),
        params_match=metrics["params_sha256"] == run.digest() and metrics["evaluate_sha256"] == run.evaluate_digest(),
    )


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
        See `measure`; also when runs of one benchmark were scored on different prepared data.
    """
    table = suite.table(table_name)
    measured = {run.name: measure(run, suite.edition) for run in suite.table_runs(table_name)}
    groups: dict[tuple[str, str], dict[int, Measured]] = {}
    for cell in suite.cells[table_name]:
        groups.setdefault((cell.dataset, cell.row), {})[cell.seed] = measured[cell.run]
    datasets = dict.fromkeys(dataset for dataset, _ in groups)
    lines = tuple(
        _line(table, dataset, row, groups[dataset, row])
        for dataset in datasets
        for row in table.rows
        if (dataset, row) in groups
    )
    _refuse_mixed_data(lines)
    measures = tuple(column for column in table.columns if column in MEASURES)
    if measures:
        entries = machine.read(suite.name)
        lines = tuple(replace(line, machine=machine.of_line(entries, line)) for line in lines)
    return Content(
        name=table.name,
        title=table.title,
        caption=table.caption,
        suite=suite.name,
        edition=suite.edition,
        layout=table.layout,
        columns=tuple(column for column in table.columns if column in SCORES),
        lines=lines,
        question=table.main.question if table.main else "",
        comparisons=tuple(_main_comparisons(table, lines)),
        notes=(*_untested(table, lines), *_notes(suite, table, lines), *table.notes),
        measures=measures,
    )


def dataset_title(dataset: str) -> str:
    """Name of a benchmark as printed, from its own file."""
    return load_spec(dataset).title


def _read(path: Path, run: Run) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise StaleMetrics(f"{path} is missing: run `gald evaluate {run.name}`") from None
    except ValueError as error:
        raise StaleMetrics(
            f"{path} is no valid JSON ({error}): delete it and run `gald evaluate {run.name}`"
        ) from error
    return content


def _line(table: Table, dataset: str, row: str, by_seed: dict[int, Measured]) -> Line:
    runs = tuple(by_seed[seed] for seed in sorted(by_seed))
    first = runs[0].metrics
    scores = {column: {seed: run.metrics[column] for seed, run in sorted(by_seed.items())} for column in SCORES}
    present = {
        column: {seed: value for seed, value in values.items() if value is not None}
        for column, values in scores.items()
    }
    return Line(
        dataset=dataset,
        title=dataset_title(dataset),
        row=row,
        label=table.label(row),
        runs=runs,
        seeds=tuple(sorted(by_seed)),
        scores=present,
        spreads={column: spread(list(values.values())) for column, values in present.items() if values},
        parameters=first["parameters"],
        gmacs=first["gmacs"],
        gmacs_size=(first["gmacs_size"][0], first["gmacs_size"][1]),
        split=first["split"],
        protocol="; ".join(dict.fromkeys(run.metrics["protocol"] for run in runs)),
        published={
            entry.column: Reference(entry.value, entry.method, entry.protocol, entry.source)
            for entry in table.published
            if (entry.row, entry.dataset) == (row, dataset)
            and first["edition"] == "full"  # drawn scenes compare with none
            and first["source"]["name"] == load_spec(dataset).source
        },
    )


def _refuse_mixed_data(lines: Iterable[Line]) -> None:
    seen: dict[str, Measured] = {}
    for run in (run for line in lines for run in line.runs):
        other = seen.setdefault(run.dataset, run)
        if other.metrics["manifest_sha256"] != run.metrics["manifest_sha256"]:
            raise StaleMetrics(
                f"{other.name} and {run.name} were scored on different prepared data of {run.dataset}: run "
                f"`gald train` and `gald evaluate` for the one that does not match {_manifest(run)}"
            )


def _manifest(run: Measured) -> Path:
    return paths.manifest(run.metrics["edition"], run.dataset)


def _main_comparisons(table: Table, lines: tuple[Line, ...]) -> Iterator[Comparison]:
    if table.main is not None and table.main.column in SCORES:
        for candidate, baseline in _main_pairs(table.main, lines):
            change = difference(baseline.scores[table.main.column], candidate.scores[table.main.column])
            yield Comparison(candidate.dataset, table.main.column, candidate.row, baseline.row, change)


def _main_pairs(main: params.Comparison, lines: tuple[Line, ...]) -> Iterator[tuple[Line, Line]]:
    by_place = {(line.dataset, line.row): line for line in lines}
    for line in lines:
        if line.row == main.row and (line.dataset, main.than) in by_place:
            yield line, by_place[line.dataset, main.than]


def _untested(table: Table, lines: tuple[Line, ...]) -> Iterator[str]:
    """Tell the named pair's differences in the other scores, as numbers without a verdict."""
    if table.main is None:
        return
    for candidate, baseline in _main_pairs(table.main, lines):
        for column in table.columns:
            if column in SCORES and column != table.main.column:
                change = difference(baseline.scores[column], candidate.scores[column])
                if change is not None:
                    score, mean = SCORES[column].removesuffix(" (%)"), points(change.mean, signed=True)
                    pair = f"{candidate.label} minus {baseline.label}"
                    yield f"Beside the named comparison, untested: {candidate.title}, {score}: {pair} {mean} points."


def _notes(suite: Suite, table: Table, lines: tuple[Line, ...]) -> Iterator[str]:
    """Say what a reader must know to read the numbers: protocol, absent classes, cost, mixed code or params."""
    runs = list({run.name: run for line in lines for run in line.runs}.values())
    scored = any(column in SCORES for column in table.columns)
    if scored:
        yield from _scoring(lines, runs)
    sizes = dict.fromkeys("{}x{}".format(*line.gmacs_size) for line in lines)
    spread_note = " ±: sample standard deviation over n seeds." if scored else ""
    yield f"GMACs: one forward pass at {', '.join(sizes)} (height x width).{spread_note}"
    if any(column in MEASURES for column in table.columns):
        yield from machine.notes(suite.name, lines)
    if scored:
        yield from _absent(runs)
        if suite.edition == "mini":
            yield "Drawn scenes of the miniature edition: no published number can be compared with these."
    yield from _flags(runs)


def _scoring(lines: tuple[Line, ...], runs: list[Measured]) -> Iterator[str]:
    """Say how the scores came about."""
    yield from _data(runs)
    for protocol in dict.fromkeys(line.protocol for line in lines):
        where = dict.fromkeys(f"{line.title} {line.split}" for line in lines if line.protocol == protocol)
        yield f"Protocol ({', '.join(where)}): {protocol}. The last iterate is scored, no checkpoint is picked."
    widths = sorted({run.metrics["boundary_width"] for run in runs})
    yield f"Boundary mIoU: within {' or '.join(map(str, widths))} px of a boundary between classes."


def _absent(runs: list[Measured]) -> Iterator[str]:
    """Name the classes that no mask of a split holds."""
    for dataset in dict.fromkeys(run.dataset for run in runs):
        absent = dict.fromkeys(name for run in runs if run.dataset == dataset for name in run.metrics["absent"])
        if absent:
            yield _absent_note(dataset, list(absent), next(run for run in runs if run.dataset == dataset))


def _data(runs: list[Measured]) -> Iterator[str]:
    """Say which published form of each benchmark was used, and what of it was left out."""
    first = {run.dataset: run for run in reversed(runs)}
    titles = {dataset: dataset_title(dataset) for dataset in dict.fromkeys(run.dataset for run in runs)}
    forms = [f"{title}, {first[name].metrics['source']['about']}" for name, title in titles.items()]
    drawn = ", drawn in the format of" * (runs[0].metrics["edition"] == "mini")
    yield f"Data{drawn}: {'; '.join(forms)}."
    for name, title in titles.items():
        skipped = {split: count for split, count in first[name].metrics["skipped"].items() if count}
        if skipped:
            counts = ", ".join(f"{count} of {split}" for split, count in skipped.items())
            page = paths.audit(first[name].metrics["edition"], name)
            yield f"SKIPPED: {title}: unreadable samples were left out ({counts}); {page} names them."


def _absent_note(dataset: str, absent: list[str], run: Measured) -> str:
    total = len(run.metrics["per_class"])
    names = ", ".join(absent) if len(absent) <= _LISTED else f"listed in {paths.metrics(run.name)}"
    title = dataset_title(dataset)
    return f"{title}: {len(absent)} of {total} classes are absent from the split and left out of every mean: {names}."


def _commit(run: Measured) -> str:
    code = run.record["code"]
    return str(code["commit"])[:12] + (" and local changes" if code["dirty"] else "")


def _flags(runs: list[Measured]) -> Iterator[str]:
    commits = Counter(_commit(run) for run in runs)
    yield f"Code: commit {', '.join(f'{name} ({n} of {len(runs)} runs)' for name, n in commits.items())}."
    trained = Counter(run.record["code"]["digest"] for run in runs)
    scored = Counter(run.metrics["evaluation_code_digest"] for run in runs)
    for word, codes in (("trained", trained), ("evaluated", scored)):
        if len(codes) > 1:
            listed = ", ".join(f"{name[:12]} ({n} of {len(runs)} runs)" for name, n in codes.items())
            yield f"MIXED CODE: the runs were {word} by different versions of the package: {listed}."
    resumed = [run.name for run in runs if run.record["resumed_from"]]
    if resumed:
        yield f"Stopped and resumed by other code or on another machine: {', '.join(resumed)}."
    other = [run.name for run in runs if not run.params_match]
    if other:
        yield f"OTHER PARAMS: trained or evaluated with other params than the suite asks for now: {', '.join(other)}."
    machines = Counter(f"{run.record['environment']['cpu']}, {run.record['environment']['device']}" for run in runs)
    if len(machines) > 1:
        yield f"Trained on different machines: {'; '.join(machines)}."
