"""A published table, written once: rows, columns, the main comparison, and verified published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from gald import paths, plugins
from gald.options import NonNegativeInt, PositiveInt
from gald.params._merge import read_yaml
from gald.params._scores import COSTS, SCORES
from gald.params._sections import Box, ProtocolParams, Section, Size
from gald.params._validate import validated

RowName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]  # part of paths, and of what a wildcard may take


def _known_column(name: str) -> str:
    if name not in (known := {**SCORES, **COSTS}):
        raise ValueError(f"no column is called {name!r}; {plugins.nearest(name, known)}")
    return name


Column = Annotated[str, AfterValidator(_known_column)]


class Comparison(Section):
    """The comparison that a table is built to answer, named before any number is seen; `seen` says where it was not."""

    row: str
    than: str
    column: Column
    question: str  # in words, for the report
    # scale -> seeds whose results had been seen when it was named; on these it is exploratory, and the table says so
    seen: dict[str, tuple[NonNegativeInt, ...]] = Field(default_factory=dict)


class Contrast(Section):
    """A pair of rows to compare in every score of the table, beside what it is built to answer."""

    row: str
    than: str


class PublishedProtocol(ProtocolParams):
    """How a published number was measured, in the terms of a metrics file's protocol.

    It stands beside the number in full: what ``protocols.yaml`` says is about our runs, and no edit of it changes how
    somebody else's number came about.
    """

    name: str = ""  # theirs has none here
    split: str
    classes: PositiveInt  # that the mean is over, as 59 or 60
    input_size: Size | Box | None  # null = native


class Published(Section):
    """A verified published number, with what makes it comparable."""

    row: str
    dataset: str
    column: Column
    value: Annotated[float, Field(gt=0, lt=1)]  # a fraction, as every score here
    method: str  # as the source names it: method, backbone
    protocol: str  # in the source's words
    measured_by: PublishedProtocol | None = None  # ours is subtracted only where it is the same; null: never
    source: str


class Table(Section):
    """One table of the report, at no particular scale."""

    name: str
    title: str
    caption: str
    # a line for each row and all columns; a column for each benchmark; or a line for each score, a column for each row
    layout: Literal["rows", "datasets", "scores"]
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    rows: Annotated[dict[RowName, dict[str, Any]], Field(min_length=1)]  # name -> overrides of a run's params
    labels: dict[str, str]  # row -> what the reader sees
    main: Comparison | None
    contrasts: tuple[Contrast, ...]
    published: tuple[Published, ...]
    notes: tuple[str, ...]

    @model_validator(mode="after")
    def _check(self) -> Table:
        named = [*self.labels, *(entry.row for entry in self.published)]
        if self.main is not None:
            named += [self.main.row, self.main.than]
        named += [row for pair in self.contrasts for row in (pair.row, pair.than)]
        for row in named:
            if row not in self.rows:
                raise ValueError(f"names the row {row!r}, which is not among rows: {', '.join(self.rows)}")
        known = plugins.available("datasets")
        for entry in self.published:
            if entry.dataset not in known:
                line = f"no dataset is called {entry.dataset!r}; {plugins.nearest(entry.dataset, known)}"
                raise ValueError(f"published: {line}")
        return self

    def label(self, row: str) -> str:
        """What the reader sees for a row."""
        return self.labels.get(row, row)


class Cell(Section):
    """One run shown in one table: which row, benchmark and seed it stands for."""

    row: str
    dataset: str
    seed: int
    run: str


def load_table(name: str, root: Path = paths.PARAMS) -> Table:
    """Read ``params/tables/<name>.yaml``.

    Raises
    ------
    ParamsError
        The file is missing or does not describe a table; all problems at once.
    """
    path = root / "tables" / f"{name}.yaml"
    defaults: dict[str, Any] = {"layout": "rows", "labels": {}, "main": None}
    defaults |= {"contrasts": [], "published": [], "notes": []}
    content = {"name": name, **defaults, **read_yaml(path)}
    return validated(Table, content, lambda _: str(path))
