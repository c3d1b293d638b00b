"""What `gald cost` measured of a suite's networks, for a table with such columns.

Latency and peak memory are a machine's, and never twice the same. They are no part of an evaluation, whose numbers are:
who wants them in a table measures a suite on a quiet machine, and keeps the file that comes out beside the tables.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gald import paths
from gald.errors import StaleMetrics
from gald.tables.content import Line, Machine


def file(suite: str) -> Path:
    """Where the measurements of a suite are kept."""
    return paths.reports(suite) / "cost.csv"


def command(suite: str) -> str:
    """Spell the command that measures a suite."""
    return f"gald cost {suite} --csv {file(suite)}"


def read(suite: str) -> dict[str, dict[str, str]]:
    """Read what was measured of a suite's networks, by ``<scale>/<dataset>/<row>``; nothing where nothing was.

    Raises
    ------
    StaleMetrics
        The file is damaged, or of an earlier version.
    """
    if not file(suite).exists():
        return {}
    with file(suite).open(newline="", encoding="utf-8", errors="replace") as table:
        measured = {entry.get("row", ""): entry for entry in csv.DictReader(table)}
    for row, entry in measured.items():
        try:
            _sides(entry), _counted(entry), _machine(entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StaleMetrics(
                f"{file(suite)}: what stands there of {row or 'a network'} cannot be read ({error}); it is damaged, "
                f"or an older version wrote it: run `{command(suite)}`, or remove it"
            ) from error
    return measured


def of_line(entries: dict[str, dict[str, str]], line: Line) -> Machine | None:
    """Find a row's measurement, if it is one of this very network: same input, parameters and multiply-accumulates."""
    entry = entries.get(line.runs[0].name.rpartition("-seed")[0])
    if entry is None or line.runs[0].metrics["gmacs_size"] != _sides(entry):
        return None
    return _machine(entry) if _counted(entry) == (line.parameters, line.gmacs) else None


def _sides(entry: Mapping[str, str]) -> list[int]:
    """Height and width of the input."""
    return [int(side) for side in entry["input"].split("x")[1:]]


def _counted(entry: Mapping[str, str]) -> tuple[int, float] | None:
    """Parameters and GMACs; None where the network could not be measured."""
    return None if entry.get("refused") else (int(entry["parameters"]), int(entry["macs"]) / 1e9)


def _machine(entry: Mapping[str, str]) -> Machine | None:
    """What the network took; None where it could not be measured."""
    if entry.get("refused"):
        return None
    return Machine(
        peak_bytes=int(entry["peak_bytes"]),
        latency_ms=float(entry["latency_ms"]),
        latency_min_ms=float(entry["latency_min_ms"]),
        latency_max_ms=float(entry["latency_max_ms"]),
        device=entry["device"],
        dtype=entry["dtype"],
        threads=int(entry["threads"]),
        runs=int(entry["runs"]),
        torch=entry["torch"],
    )


def notes(suite: str, lines: Iterable[Line]) -> Iterator[str]:
    """Say what the measured columns are, on which machine, and how to measure what is missing."""
    lines = list(lines)
    measured = [line.machine for line in lines if line.machine is not None]
    for device, dtype, threads, runs, torch in dict.fromkeys(
        (one.device, one.dtype, one.threads, one.runs, one.torch) for one in measured
    ):
        yield (
            f"Peak memory (beyond weights and input) and latency (median of {runs} passes): one forward pass of one "
            f"image in {dtype} on {device}, {threads} thread{'s' * (threads != 1)}, torch {torch}. Another machine has "
            "other numbers; parameters and GMACs are the same everywhere."
        )
    missing = [f"{line.title}, {line.label}" for line in lines if line.machine is None]
    if missing:
        yield (
            f"Not measured, or measured of another network: {'; '.join(missing)}. On a quiet machine run "
            f"`{command(suite)}`, then `gald tables {suite} <this table>`."
        )
