"""Suites: tables built at a scale. Loading one merges, validates and names all of its runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from gald import paths, plugins
from gald.errors import ParamsError
from gald.options import NonNegativeInt
from gald.params._merge import Layer, Merged, read_yaml
from gald.params._names import no_such_run, scales, suites_of_scale
from gald.params._protocols import resolve_protocol
from gald.params._run_params import RunParams
from gald.params._runs import Run, Runs
from gald.params._sections import DownloadParams, PrepareParams, Section
from gald.params._tables import Cell, Table, load_table
from gald.params._validate import validated

_RUN_SECTIONS = ("model", "train", "evaluate")


class TableUse(Section):
    """At which benchmarks and seeds a suite builds a table, and what this scale makes of it."""

    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    rows: tuple[str, ...] | None = None  # null = all
    # row -> what this scale must change in it; the notes, added to the table's own, say so
    adjust: dict[str, dict[str, Any]] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @field_validator("datasets", "seeds", "rows")
    @classmethod
    def _once(cls, listed: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        twice = [entry for entry in dict.fromkeys(listed or ()) if (listed or ()).count(entry) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} stands twice; keep one")
        return listed


class SuiteParams(Section):
    """A suite's file."""

    file: str  # where it was read, for messages
    title: str
    scale: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    edition: Literal["mini", "full"]
    recipe: str
    overrides: dict[str, Any]
    tables: Annotated[dict[str, TableUse], Field(min_length=1)]


@dataclass(frozen=True)
class Suite:
    """All runs and tables of a suite."""

    name: str
    title: str
    scale: str
    edition: str
    runs: tuple[Run, ...]
    tables: tuple[Table, ...]
    cells: dict[str, tuple[Cell, ...]]  # table name -> what it shows

    @property
    def datasets(self) -> tuple[str, ...]:
        """Benchmarks of the suite, in the order of its tables."""
        return tuple(dict.fromkeys(run.dataset for run in self.runs))

    def run(self, name: str) -> Run:
        """Look up a run of this suite by name."""
        for run in self.runs:
            if run.name == name:
                return run
        known = (run.name for run in self.runs)
        raise ParamsError(f"suite {self.name!r} has no run {name!r}; {plugins.nearest(name, known)}")

    def table(self, name: str) -> Table:
        """Look up a table of this suite by name."""
        for table in self.tables:
            if table.name == name:
                return table
        known = (table.name for table in self.tables)
        raise ParamsError(f"suite {self.name!r} has no table {name!r}; {plugins.nearest(name, known)}")

    def table_runs(self, name: str) -> tuple[Run, ...]:
        """Runs that a table shows, each once."""
        return tuple(self.run(run) for run in dict.fromkeys(cell.run for cell in self.cells[self.table(name).name]))


def load_suite(name: str, root: Path = paths.PARAMS) -> Suite:
    """Merge and validate every run of a suite.

    Parameters
    ----------
    name : str
        Suite, the name of a file in ``params/suites``.
    root : Path
        Folder of the params.

    Raises
    ------
    ParamsError
        Any key unknown, of the wrong type or impossible; every problem of every row in one message.
    """
    suite = _read_suite(name, root)
    problems: dict[str, None] = {}
    tables, cells, runs = [], {}, Runs()
    for table_name, use in suite.tables.items():
        try:
            table = load_table(table_name, root)
            problems.update(dict.fromkeys(_unknown_scales(table, root)))
            cells[table_name] = tuple(_table_cells(suite, table, use, root, runs, problems))
            tables.append(table.model_copy(update={"notes": (*table.notes, *use.notes)}))
        except ParamsError as error:
            problems.update(dict.fromkeys(str(error).splitlines()))
    try:
        data_params(root)
    except ParamsError as error:
        problems.update(dict.fromkeys(str(error).splitlines()))
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise ParamsError(f"suite {name!r} is refused, {len(problems)} problem(s):\n{lines}")
    return Suite(name, suite.title, suite.scale, suite.edition, runs.all(), tuple(tables), cells)


def validate_suite(name: str, root: Path = paths.PARAMS) -> Suite:
    """Load a suite, and hold its runs against those of the other suites that share its scale."""
    suite = load_suite(name, root)
    digests = {run.name: (run.digest(), run.evaluate_digest()) for run in suite.runs}
    for other in suites_of_scale(suite.scale, root):
        if other == name:
            continue
        try:
            theirs = load_suite(other, root).runs
        except ParamsError:
            continue  # refused when it is asked for; it builds nothing until then
        for run in theirs:
            if digests.get(run.name, (run.digest(), run.evaluate_digest())) != (run.digest(), run.evaluate_digest()):
                raise ParamsError(f"suites {name!r} and {other!r} share the run {run.name!r} but not its params; "
                                  "rename the row or give one suite a scale of its own")  # fmt: skip
    return suite


def find_run(name: str, root: Path = paths.PARAMS) -> Run:
    """Look up a run by name among the suites of its scale.

    Raises
    ------
    ParamsError
        No such run, or its suite is invalid.
    """
    if not root.is_dir():
        raise ParamsError(f"no folder {root} here; run this in the repository's root")
    known: list[str] = []
    failures: list[ParamsError] = []
    for suite_name in suites_of_scale(name.split("/")[0], root):
        try:
            runs = load_suite(suite_name, root).runs
        except ParamsError as error:
            failures.append(error)
            continue
        for run in runs:
            if run.name == name:
                return run
        known += [run.name for run in runs]
    if failures:
        raise failures[0]
    raise ParamsError(no_such_run(name, known, root))


def _unknown_scales(table: Table, root: Path) -> Iterator[str]:
    """Name scales that no suite has: what was seen of them would be forgotten without a word."""
    for scale in table.main.seen if table.main is not None else ():
        if scale not in (known := scales(root)):
            place = root / "tables" / f"{table.name}.yaml"
            yield f"{place}: main.seen.{scale}: no suite has that scale; {plugins.nearest(scale, known)}"


def data_params(root: Path = paths.PARAMS) -> tuple[DownloadParams, PrepareParams]:
    """Sections of base.yaml that all suites share, since data is shared."""
    path = root / "base.yaml"
    base = read_yaml(path)
    origin = str(path)
    download = validated(DownloadParams, base.get("download", {}), lambda _: f"{origin}: download")
    prepare = validated(PrepareParams, base.get("prepare", {}), lambda _: f"{origin}: prepare")
    return download, prepare


def _read_suite(name: str, root: Path) -> SuiteParams:
    path = root / "suites" / f"{name}.yaml"
    content = {"file": str(path), "scale": name, "overrides": {}, **read_yaml(path)}
    return validated(SuiteParams, content, lambda _: str(path))


def _table_cells(
    suite: SuiteParams, table: Table, use: TableUse, root: Path, runs: Runs, problems: dict[str, None]
) -> Iterator[Cell]:
    known = plugins.available("datasets")
    for dataset in use.datasets:
        if dataset not in known:
            line = f"no dataset is called {dataset!r}; {plugins.nearest(dataset, known)}"
            problems[f"{suite.file}: tables.{table.name}.datasets: {line}"] = None
    datasets = [dataset for dataset in use.datasets if dataset in known]
    shown = table.rows if use.rows is None else use.rows
    for row in use.adjust:
        if row not in shown:
            line = f"{suite.file}: tables.{table.name}.adjust: no row {row!r}; {plugins.nearest(row, shown)}"
            problems[line] = None
    for row in shown:
        if row not in table.rows:
            line = f"{suite.file}: tables.{table.name}.rows: no row {row!r}; {plugins.nearest(row, table.rows)}"
            problems[line] = None
            continue
        for dataset in datasets:
            for seed in use.seeds:
                try:
                    params = _run_params(suite, table, row, dataset, seed, root)
                    run = Run(f"{suite.scale}/{dataset}/{row}-seed{seed}", suite.scale, dataset, row, seed, params)
                    yield Cell(row=row, dataset=dataset, seed=seed, run=runs.add(run, table.name).name)
                except ParamsError as error:
                    problems.update(dict.fromkeys(str(error).splitlines()))


def _run_params(suite: SuiteParams, table: Table, row: str, dataset: str, seed: int, root: Path) -> RunParams:
    adjusted = suite.tables[table.name].adjust.get(row, {})
    layers = [
        *with_dataset(root / "base.yaml", "", dataset, shared=("download", "prepare")),
        *with_dataset(root / "recipes.yaml", suite.recipe, dataset),
        Layer(f"{suite.file}: overrides", suite.overrides),
        Layer(f"{root}/tables/{table.name}.yaml: rows.{row}", table.rows[row]),
        Layer(f"{suite.file}: tables.{table.name}.adjust.{row}", adjusted),
    ]
    for layer in layers:
        for key in layer.values:
            if key not in _RUN_SECTIONS:
                raise ParamsError(f"{layer.origin}: {key}: unknown key; {plugins.nearest(str(key), _RUN_SECTIONS)}")
    merged = Merged.of(layers)
    merged.values.setdefault("train", {})["seed"] = seed
    source = data_params(root)[0].source(dataset)
    resolve_protocol(merged, root)
    content = {"edition": suite.edition, "dataset": dataset, "source": source, **merged.values}
    return validated(RunParams, content, lambda path: merged.origin(path) or layers[-1].origin)


def with_dataset(path: Path, entry: str, dataset: str, shared: tuple[str, ...] = ()) -> Iterator[Layer]:
    """Layers of a file: what holds for all benchmarks, then what its `datasets` says of this one."""
    content = read_yaml(path)
    origin = f"{path}: {entry}".removesuffix(": ")
    if entry:
        if entry not in content:
            raise ParamsError(f"{path}: no recipe {entry!r}; {plugins.nearest(entry, content)}")
        content = _mapping(content[entry], origin)
    by_dataset = _mapping(content.get("datasets", {}), f"{origin}: datasets")
    known = plugins.available("datasets")
    for name in by_dataset:
        if name not in known:
            line = f"no dataset is called {name!r}; {plugins.nearest(str(name), known)}"
            raise ParamsError(f"{origin}: datasets: {line}")
    yield Layer(origin, {key: value for key, value in content.items() if key not in ("datasets", *shared)})
    one = f"{origin}: datasets.{dataset}"
    yield Layer(one, _mapping(by_dataset.get(dataset, {}), one))


def _mapping(value: Any, origin: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ParamsError(f"{origin}: expected a mapping of keys, found {value!r}")
    return value
