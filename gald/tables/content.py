"""What a table says, before anything is rendered: plain records that `collect` fills and the renderers read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gald.params import COSTS, Published
from gald.tables.statistics import LEVEL, Difference, Spread

MEASURES = {name: COSTS[name] for name in ("peak_memory", "latency")}
"""Columns that are of a machine; `gald.tables.machine` reads what was measured."""


@dataclass(frozen=True)
class Machine:
    """One forward pass of a row's network on one machine, and how it was measured.

    Attributes
    ----------
    peak_bytes : int
        Most memory that it took beyond weights and input.
    latency_ms, latency_min_ms, latency_max_ms : float
        Median, least and most of the timed passes.
    device, dtype, torch : str
    threads, runs : int
        Of the CPU, and timed passes.
    """

    peak_bytes: int
    latency_ms: float
    latency_min_ms: float
    latency_max_ms: float
    device: str
    dtype: str
    threads: int
    runs: int
    torch: str


@dataclass(frozen=True)
class Measured:
    """One run's results, read from its boundary files and found to belong together.

    Attributes
    ----------
    name, dataset, row : str
        The run, its benchmark and its row.
    seed : int
        Seed of the training.
    metrics : dict
        The metrics file as it stands; scores are fractions.
    record : dict
        The run's ``run.json``.
    params_match : bool
        Whether the run was trained with the params that its suite asks for now.
    """

    name: str
    dataset: str
    row: str
    seed: int
    metrics: dict[str, Any]
    record: dict[str, Any]
    params_match: bool

    @property
    def classes(self) -> dict[str, float | None]:
        """IoU of each class by name, as a fraction; None where the class is absent."""
        return {entry["name"]: entry["iou"] for entry in self.metrics["per_class"]}

    @property
    def commit(self) -> str:
        """Commit of the code that trained the run, in words."""
        code = self.record["code"]
        if code["commit"] is None:
            return "unknown (not under git)"
        return str(code["commit"])[:12] + (" and local changes" if code["dirty"] else "")


@dataclass(frozen=True)
class Protocol:
    """How scores came about: a number never travels without it.

    Attributes
    ----------
    name, text : str
        Among the params' protocols, and in words.
    split : str
    meaning : str
        All that decides the scores, as canonical JSON: two protocols are one where this is the same.
    """

    name: str
    text: str
    split: str
    meaning: str

    @classmethod
    def of(cls, metrics: dict[str, Any]) -> Protocol:
        """Read the protocol of a metrics file."""
        fields = dict(metrics["protocol"])
        name, text = fields.pop("name"), fields.pop("text")
        return cls(name, text, fields["split"], json.dumps(fields, sort_keys=True))

    def same(self, other: Protocol) -> bool:
        """Whether scores of both may stand in one column."""
        return self.meaning == other.meaning

    def is_of(self, published: Published) -> bool:
        """Whether a published number was measured in this way, whatever either is called."""
        if published.measured_by is None:
            return False
        ours, theirs = json.loads(self.meaning), published.measured_by.model_dump(mode="json", exclude={"name"})
        return all(ours.get(field) == value for field, value in theirs.items())


@dataclass(frozen=True)
class Reference:
    """A published number, as a fraction, with what is needed to judge whether it may be compared."""

    value: float
    method: str
    protocol: str
    source: str
    comparable: bool  # measured by the protocol of the line that it stands beside


@dataclass(frozen=True)
class Line:
    """One row of a table on one benchmark, over its seeds.

    Attributes
    ----------
    scores : dict
        Column to seed to fraction; a column that no run could score (an absent class) maps to nothing.
    spreads : dict
        Column to mean and spread, for the columns that have a score.
    parameters : int
        Number of parameters, classifier included.
    gmacs : float
        Multiply-accumulates of one image of `gmacs_size` (height, width), in units of 1e9.
    """

    dataset: str
    title: str  # of the benchmark, as printed
    row: str
    label: str  # of the row, as printed
    runs: tuple[Measured, ...]
    seeds: tuple[int, ...]
    scores: dict[str, dict[int, float]]
    spreads: dict[str, Spread]
    parameters: int
    gmacs: float
    gmacs_size: tuple[int, int]
    protocol: Protocol
    published: dict[str, Reference] = field(default_factory=dict)  # by column
    machine: Machine | None = None  # None where the network was not measured on any


def sign(line: Line, lines: Sequence[Line]) -> str:
    """Sign of a line's protocol among those of its benchmark, as `` (a)``; empty where there is but one."""
    meanings = list(dict.fromkeys(one.protocol.meaning for one in lines if one.dataset == line.dataset))
    return "" if len(meanings) == 1 else f" ({chr(ord('a') + meanings.index(line.protocol.meaning))})"


@dataclass(frozen=True)
class Comparison:
    """Two rows on one benchmark and one score: candidate minus baseline.

    Attributes
    ----------
    change : Difference or None
        None where the rows share no seed, or `obstacle` says why they cannot be compared.
    obstacle : str
        Empty if there is none.
    adjusted : float or None
        p value of the t test, corrected for the other comparisons of its family, see `gald.tables.comparisons`; None
        where the family is this one alone, or the seeds are too few for a test.
    """

    dataset: str
    score: str
    candidate: str
    baseline: str
    change: Difference | None
    obstacle: str = ""
    adjusted: float | None = None

    @property
    def distinguishable(self) -> bool:
        """Whether the seeds, and the correction where there is one, tell the rows apart."""
        return (
            self.change is not None
            and self.change.distinguishable
            and (self.adjusted is None or self.adjusted <= LEVEL)
        )


@dataclass(frozen=True)
class Content:
    """A whole table.

    Attributes
    ----------
    layout : str
        ``rows``: a line for each row of each benchmark; ``datasets``: a line for each row, a column a benchmark;
        ``scores``: a line for each score of each benchmark, a column a row.
    columns : tuple of str
        Scores to show, keys of `gald.params.SCORES`, none in a table of costs; parameters and GMACs always stand
        beside a row.
    measures : tuple of str
        What a machine took to show, keys of `MEASURES`.
    lines : tuple of Line
        Grouped by benchmark, in the order of the table's rows.
    question : str
        What the main comparison asks, in words; empty when there is none.
    comparisons : tuple of Comparison
        The main comparison, named in the table's params, on each benchmark.
    seen : tuple of int
        Seeds that it compares and whose results had been seen when it was named; empty where that was before any run.
    others : tuple of Comparison
        All other comparisons that the table makes, corrected among themselves.
    notes : tuple of str
        Sentences to stand under the table.
    """

    name: str
    title: str
    caption: str
    suite: str
    edition: str
    layout: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    question: str = ""
    comparisons: tuple[Comparison, ...] = ()
    seen: tuple[int, ...] = ()
    others: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """Benchmarks in the order in which the table shows them."""
        return tuple(dict.fromkeys(line.dataset for line in self.lines))

    def dataset_title(self, dataset: str) -> str:
        """Name of one of the table's benchmarks, as printed."""
        return next(line.title for line in self.lines if line.dataset == dataset)

    @property
    def rows(self) -> tuple[str, ...]:
        """Rows in the order in which the table shows them."""
        return tuple(dict.fromkeys(line.row for line in self.lines))

    @property
    def runs(self) -> tuple[Measured, ...]:
        """All runs that the table shows, each once."""
        return tuple({run.name: run for line in self.lines for run in line.runs}.values())

    def mark(self, line: Line) -> str:
        """Sign of a line's protocol, as `` (a)``; empty where its benchmark has one protocol."""
        return sign(line, self.lines)
