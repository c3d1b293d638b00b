"""Images a second that prepare converts: the format of each benchmark, in miniature, with one and with two processes.

The miniatures' samples are listed several times under other names, so that starting processes weighs little. Their
images are small: these figures compare formats and processes; a benchmark's own images take longer.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gald.bench._measure import machine, tell
from gald.datasets import load_spec, names
from gald.datasets._native import MINIATURES
from gald.datasets._spec import DatasetSpec, RawSample
from gald.datasets._writers import draw_archives
from gald.download.archives import unpack
from gald.prepare.manifest import head
from gald.prepare.run import make

_RUNS = 3
_SAMPLES = 1000
_PROCESSES = (1, 2)
_SEED = 0


@dataclass(frozen=True)
class _Params:
    """A prepare section."""

    processes: int
    on_error: str = "stop"


def bench() -> str:
    """Time prepare on every benchmark's miniature; return the report as Markdown."""
    rows = [_line(name, _SAMPLES, _RUNS) for name in names() if name in MINIATURES]
    lines = [
        f"{machine()}; {_SAMPLES} samples of the miniatures, median of {_RUNS} runs, start of the processes included",
        "",
        "| benchmark | image, mask | one process (images/s) | two processes (images/s) | ratio |",
        "|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, samples: int, runs: int) -> str:
    """Measure one benchmark; one row of the table."""
    tell("prepare", name)
    spec = load_spec(name)
    with tempfile.TemporaryDirectory(prefix="gald-bench-") as folder:
        root = Path(folder)
        _lay_out(spec, root)
        found = spec.index(root / "files")
        first = next(iter(found.values()))[0]
        repeated = replace(spec, index=_repeating(found, samples))
        # in turn, so that what else the machine does falls on both alike
        seconds = [[_seconds(repeated, root, processes) for processes in _PROCESSES] for _ in range(runs)]
    rates = [samples / statistics.median(column) for column in zip(*seconds, strict=True)]
    suffixes = ", ".join(path.suffix.lstrip(".") for path in (first.image, first.mask) if path is not None)
    return f"| {name} ({spec.source}) | {suffixes} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[1] / rates[0]:.2f} |"


def _lay_out(spec: DatasetSpec, root: Path) -> None:
    """Draw and unpack the miniature, as the download stage does."""
    (root / "archives").mkdir()
    (root / "files").mkdir()
    draw_archives(spec.name, root / "archives", _SEED)
    for archive in spec.archives:
        unpack(root / "archives" / archive.name, archive, root / "files", "run the benchmark again")


def _repeating(found: dict[str, list[RawSample]], total: int) -> Callable[[Path], dict[str, list[RawSample]]]:
    """Index that lists about `total` samples: those found, again and again."""
    share = total / sum(len(listed) for listed in found.values())

    def index(_: Path) -> dict[str, list[RawSample]]:
        return {
            split: [
                replace(listed[k % len(listed)], id=f"{listed[k % len(listed)].id}-{k // len(listed)}")
                for k in range(max(1, round(len(listed) * share)))
            ]
            for split, listed in found.items()
        }

    return index


def _seconds(spec: DatasetSpec, root: Path, processes: int) -> float:
    """Seconds that one whole preparation takes."""
    logging.disable(logging.WARNING)  # what the preparation says
    try:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            begun = time.perf_counter()
            top = head(spec, "mini", {"tree_sha256": "", "archives": []})
            make(spec, top, root / "files", Path(folder) / "part", _Params(processes))
            return time.perf_counter() - begun
    finally:
        logging.disable(logging.NOTSET)
